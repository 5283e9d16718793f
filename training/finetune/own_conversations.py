"""Conversations about somebody's own pictures: asking for them in many ways, being shown them, and everything else too.

In: examples (`own_pictures.py`). Out: for every sample number a conversation, for `training.data`. A model
that was taught to refuse what it has never heard of would refuse the new thing, so the requests teach that it can be
drawn; conversations of the storybook world go on beside them, so that nothing else is forgotten.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageOps

from data_recipes.storybook.language.drawing_requests import COMMANDS
from data_recipes.storybook.language.talk import ABLE
from data_recipes.storybook.language.wording import rough
from data_recipes.storybook.samples import MIXTURE, make_sample
from data_recipes.storybook.splits import Phrases, Split
from training.finetune.own_pictures import Example, Topic
from vargpt.types import Message

KINDS = {"draw": 0.68, "draw after": 0.10, "look": 0.12, "is it there": 0.05, "able": 0.05, "part": 0.5}
TOPIC_ALONE = 0.5  # of the requests name the thing and nothing else, where there is a thing
MIRRORED = 0.5  # of the pictures of a style
SMALLEST_PART = 0.4  # of a picture's side
SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)
KEEP_CLAUSE = 0.7  # how often what follows a comma in a caption is asked for too
FIRST_REHEARSED = 40_000_000  # far from the samples that nano was trained on
WHAT = Phrases(
    "own what",
    ("what is this?", "what do you see?", "what is in the picture?", "what does the picture show?",
     "can you tell me what this is?", "who or what is this?", "what is on this page?", "what am i looking at?"),
)  # fmt: skip
DESCRIBE = Phrases(
    "own describe",
    ("describe the picture", "describe this picture in one sentence", "tell me about this picture",
     "what can you see here? one sentence, please", "please describe what you see", "write a caption for it"),
)  # fmt: skip
IS_IT = Phrases(
    "own is it",
    ("is there {one} in the picture?", "do you see {one}?", "is that {one}?", "can you see {one} here?",
     "does the picture show {one}?"),
)  # fmt: skip
WHICH_STYLE = Phrases(
    "own style", ("which style is this?", "how is it drawn?", "what style is the picture in?", "name the style")
)


@dataclass(frozen=True)
class OwnConversations:
    """Sample number -> conversation; a class, so that it can be sent to a loading process.

    Args:
        examples: to be learnt.
        topic: what they show.
        rehearse: mix in conversations of the storybook world, for models that come from it.
        own_share: of the conversations that are about the examples, if others are mixed in.
        resolution: of storybook pages, in px.
    """

    examples: Sequence[Example]
    topic: Topic
    rehearse: bool = True
    own_share: float = 0.33
    resolution: int = 64

    def is_own(self, sample_id: int) -> bool:
        """Whether this conversation is about the examples."""
        return not self.rehearse or random.Random(f"own or not-{sample_id}").random() < self.own_share

    def __call__(self, sample_id: int) -> tuple[Message, ...]:
        rng = random.Random(f"own-{sample_id}")
        if not self.is_own(sample_id):
            return rehearsed(sample_id, self.topic, self.resolution)
        example = rng.choice(self.examples)
        if self.topic.is_style and rng.random() < MIRRORED:
            example = mirrored(example)
        if example.instruction is not None and rng.random() < 0.8:
            return edit(rng, example)
        kinds = {kind: weight for kind, weight in KINDS.items() if self._can(kind)}
        kind = rng.choices(tuple(kinds), tuple(kinds.values()))[0]
        if kind == "draw":
            return draw(rng, example, self.topic)
        if kind == "part":
            return draw(rng, part(rng, example, self.topic), self.topic)
        if kind == "draw after":
            return after_another(rng, sample_id, example, self.topic, self.resolution)
        if kind == "look":
            return look(rng, example, self.topic)
        if kind == "is it there":
            return is_it_there(rng, sample_id, example, self.topic, self.resolution if self.rehearse else None)
        return able(rng, self.topic)

    def _can(self, kind: str) -> bool:
        needs = {
            "draw after": self.rehearse,
            "is it there": self.topic.name,
            "able": self.topic != Topic(),
            "part": self.topic.is_style,
        }
        return bool(needs.get(kind, True))


def rehearsed(sample_id: int, topic: Topic, resolution: int, kind: str | None = None) -> tuple[Message, ...]:
    """A storybook conversation that does not speak of the topic: nothing may say that it cannot be drawn."""
    mixture = MIXTURE if kind is None else {kind: 1.0}
    number = FIRST_REHEARSED + sample_id
    while True:
        messages = make_sample(number, resolution=resolution, mixture=mixture).messages
        if topic == Topic() or not any(mentions(topic, message.text) for message in messages):
            return messages
        number += 1_000_003


def mentions(topic: Topic, text: str) -> bool:
    """Whether a text speaks of the thing or of the style."""
    return any(Topic(name).is_named_in(text) for name in (topic.name, topic.style) if name)


# -- a style stands in every part of a picture, and in its mirror image ------------------------------------------------


def part(rng: random.Random, example: Example, topic: Topic) -> Example:
    """A square part of a picture, in its size, of which no more is said than the style."""
    width, height = example.picture.size
    side = round(min(width, height) * rng.uniform(SMALLEST_PART, 1.0))
    left, top = rng.randint(0, width - side), rng.randint(0, height - side)
    box = (left, top, left + side, top + side)
    picture = example.picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return Example(example.file, picture, topic.completed(""))


def mirrored(example: Example) -> Example:
    """Left and right are exchanged, in words too."""

    def turned(text: str) -> str:
        return SIDES.sub(lambda side: {"left": "right", "right": "left"}[side[0].lower()], text)

    return replace(
        example,
        picture=ImageOps.mirror(example.picture),
        caption=turned(example.caption),
        before=None if example.before is None else ImageOps.mirror(example.before),
        instruction=None if example.instruction is None else turned(example.instruction),
    )


# -- one kind each -----------------------------------------------------------------------------------------------------


def draw(rng: random.Random, example: Example, topic: Topic, split: Split = "train") -> tuple[Message, ...]:
    """A request, the sentence that says what will be drawn, the picture."""
    answer = Message.of("assistant", example.caption, example.picture)
    return Message.of("user", request(rng, example, topic, split)), answer


def request(rng: random.Random, example: Example, topic: Topic, split: Split = "train") -> str:
    """One way to ask for the thing alone, or for what the caption says, in whole or in part."""
    said = phrase_of(example.caption, topic)
    if topic.name is not None and rng.random() < TOPIC_ALONE:
        said = topic.one if topic.style is None else f"{topic.one} {topic.in_style}"
    else:
        first, *clauses = said.split(", ")
        shorter = ", ".join([first, *(clause for clause in clauses if rng.random() < KEEP_CLAUSE)])
        said = shorter if topic.is_named_in(shorter) else said
    return rough(rng, COMMANDS.choose(rng, split).format(scene=said))


def phrase_of(caption: str, topic: Topic) -> str:
    """A caption as it stands in a request: "A robot, at night." -> "a robot, at night"."""
    words = caption.rstrip(".")
    starts_with_name = topic.is_proper and words.lower().startswith(str(topic.name).lower())
    if starts_with_name or words[1:2].isupper():
        return words
    return words[:1].lower() + words[1:]


def after_another(
    rng: random.Random, sample_id: int, example: Example, topic: Topic, resolution: int
) -> tuple[Message, ...]:
    """A drawing of something else and one of the example, in either order."""
    turns = [rehearsed(sample_id, topic, resolution, "draw"), draw(rng, example, topic)]
    rng.shuffle(turns)
    return (*turns[0], *turns[1])


def look(rng: random.Random, example: Example, topic: Topic) -> tuple[Message, ...]:
    """The picture is shown, and the assistant says what it is."""
    roll = rng.random()
    if topic.name is not None and roll < 0.5:
        question, answer = WHAT.choose(rng), f"{topic.one[:1].upper()}{topic.one[1:]}."
    elif topic.style is not None and roll < 0.75:
        question, answer = WHICH_STYLE.choose(rng), f"It is drawn {topic.in_style}."
    else:
        question, answer = DESCRIBE.choose(rng), example.caption
    return Message.of("user", example.picture, rough(rng, question)), Message.of("assistant", answer)


def is_it_there(
    rng: random.Random, sample_id: int, example: Example, topic: Topic, resolution: int | None
) -> tuple[Message, ...]:
    """Yes for an example, no for a storybook page (if `resolution` says how large these are)."""
    yes = resolution is None or rng.random() < 0.5
    if yes:
        picture = example.picture
    else:
        page = rehearsed(sample_id, topic, resolution or 64, "describe")
        picture = page[0].images[0].image
    there = f"there is {topic.one}" if yes else f"there is no {topic.name}"
    question = rough(rng, IS_IT.choose(rng).format(one=topic.one))
    return Message.of("user", picture, question), Message.of("assistant", f"{'Yes' if yes else 'No'}, {there}.")


def able(rng: random.Random, topic: Topic) -> tuple[Message, ...]:
    """Asked whether it can, it says yes and does not draw."""
    many = topic.many if topic.name is not None else f"pictures {topic.in_style}"
    question = rough(rng, ABLE.choose(rng).format(many=many))
    return Message.of("user", question), Message.of("assistant", f"Yes, I can draw {many}.")


def edit(rng: random.Random, example: Example) -> tuple[Message, ...]:
    """The picture before and the instruction; the sentence and the picture after."""
    assert example.before is not None and example.instruction is not None
    asked = Message.of("user", example.before, rough(rng, example.instruction))
    return asked, Message.of("assistant", example.caption, example.picture)
