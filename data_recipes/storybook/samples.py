"""The endless mixed stream that nano learns from: sample `i` is the same conversation on every machine.

Before it draws, the assistant always says the canonical caption; the picture follows from those words alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from data_recipes.storybook.drawing.render import render
from data_recipes.storybook.language.captions import canonical, long, short
from data_recipes.storybook.language.dialogues import make_dialogue
from data_recipes.storybook.language.drawing_prompts import sample_drawing, sample_upload
from data_recipes.storybook.language.drawing_requests import open_request, phrase
from data_recipes.storybook.language.edits import sample_edit
from data_recipes.storybook.language.impossible import impossible_edit
from data_recipes.storybook.language.questions import Question, ask, describe, which
from data_recipes.storybook.language.talk import make_talk
from data_recipes.storybook.script_messages import drawing, script_messages
from data_recipes.storybook.splits import Split
from data_recipes.storybook.world.scene import Scene
from vargpt.types import Message

MIXTURE: dict[str, float] = {
    "draw": 0.34,
    "describe": 0.08,
    "ask": 0.23,
    "edit": 0.15,
    "dialogue": 0.14,
    "talk": 0.06,
}
TOLD = ("On my page: {picture}", "A page in words: {picture}", "Imagine this page: {picture}",
        "Think of a picture: {picture}", "My picture shows this: {picture}",
        "This is on the page: {picture}")  # fmt: skip
DESCRIPTIONS = ("description",) * 8 + ("short description", "long description")


@dataclass(frozen=True)
class Sample:
    """One conversation to learn from: the assistant's messages are the ones to be learnt."""

    sample_id: int
    kind: str  # a name in MAKERS
    messages: tuple[Message, ...]


def make_sample(
    sample_id: int, split: Split = "train", resolution: int = 64, mixture: Mapping[str, float] = MIXTURE
) -> Sample:
    """The sample of this number. Equal arguments give equal text and pixels.

    Args:
        sample_id: any integer; the stream is endless.
        split: "train" never shows a held-out combination or wording.
        resolution: of the pictures in px, a multiple of 32.
        mixture: weights of the kinds; they need not add up to one.

    Raises:
        ValueError: the mixture names an unknown kind.
    """
    unknown = set(mixture) - set(MAKERS)
    if unknown:
        raise ValueError(f"unknown kinds of samples {sorted(unknown)}; known are {', '.join(MAKERS)}")
    rng = random.Random(f"{split}-{sample_id}")
    kind = rng.choices(tuple(mixture), tuple(mixture.values()))[0]
    return Sample(sample_id, kind, tuple(MAKERS[kind](rng, split, resolution)))


def _draw(rng: random.Random, split: Split, resolution: int) -> list[Message]:
    if rng.random() < 0.04:
        text, scene = open_request(rng, split)
    else:
        prompt, scene = sample_drawing(rng, split)
        text = phrase(rng, prompt, split)
    return [Message.of("user", text), drawing(scene, resolution)]


def _describe(rng: random.Random, split: Split, resolution: int) -> list[Message]:
    scene = sample_upload(rng, split)
    asked = describe(rng, scene, split, rng.choice(DESCRIPTIONS))
    return [Message.of("user", render(scene, resolution), asked.question), Message.of("assistant", asked.answer)]


def _ask_about_all(rng: random.Random, scene: Scene, split: Split) -> Question:
    """Often a question on the whole picture: it teaches to see more per picture than one on a single thing."""
    roll = rng.random()
    if roll < 0.35:
        return describe(rng, scene, split, "description")
    return which(rng, scene, split) if roll < 0.7 else ask(rng, scene, split)


def _ask(rng: random.Random, split: Split, resolution: int) -> list[Message]:
    scene = sample_upload(rng, split)
    messages: list[Message] = []
    for turn in range(rng.choice((2, 3, 4, 5, 6))):
        asked = _ask_about_all(rng, scene, split) if turn == 0 else ask(rng, scene, split)
        parts = (render(scene, resolution), asked.question) if turn == 0 else (asked.question,)
        messages += [Message.of("user", *parts), Message.of("assistant", asked.answer)]
    return messages


def _told(rng: random.Random, split: Split, resolution: int) -> list[Message]:
    """Questions about a picture that is only described in words, answered without seeing it."""
    scene = sample_upload(rng, split)
    messages: list[Message] = []
    opening = rng.choice(TOLD).format(picture=canonical(scene))
    for turn in range(rng.choice((2, 3, 4, 5, 6))):
        asked = which(rng, scene, split) if rng.random() < 0.4 else ask(rng, scene, split)
        text = f"{opening} {asked.question}" if turn == 0 else asked.question
        messages += [Message.of("user", text), Message.of("assistant", asked.answer)]
    return messages


def _edit(rng: random.Random, split: Split, resolution: int) -> list[Message]:
    if rng.random() < 0.05:
        scene = sample_upload(rng, split)
        instruction, reply = impossible_edit(rng, scene, split)
        return [Message.of("user", render(scene, resolution), instruction), Message.of("assistant", reply)]
    while True:
        scene = sample_upload(rng, split)
        edit = sample_edit(rng, scene, split)
        if edit is not None:
            break
    return [Message.of("user", render(scene, resolution), edit.instruction), drawing(edit.after, resolution)]


def _dialogue(rng: random.Random, split: Split, resolution: int) -> list[Message]:
    return script_messages(make_dialogue(rng, split), resolution)


def _talk(rng: random.Random, split: Split, resolution: int) -> list[Message]:
    return script_messages(make_talk(rng, split), resolution)


MAKERS: dict[str, Callable[[random.Random, Split, int], list[Message]]] = {
    "draw": _draw,
    "describe": _describe,
    "ask": _ask,
    "told": _told,
    "edit": _edit,
    "dialogue": _dialogue,
    "talk": _talk,
}


def text_corpus(n: int, split: Split = "train") -> Iterator[str]:
    """`n` short texts from both sides of the conversation, without rendering: what the BPE is trained on."""
    for index in range(n):
        rng = random.Random(f"corpus-{split}-{index}")
        roll = rng.random()
        if roll < 0.4:
            prompt, scene = sample_drawing(rng, split)
            yield f"{phrase(rng, prompt, split)}\n{canonical(scene)}"
        elif roll < 0.6:
            asked = ask(rng, sample_upload(rng, split), split)
            yield f"{asked.question}\n{asked.answer}"
        elif roll < 0.75:
            edit = sample_edit(rng, sample_upload(rng, split), split)
            yield (
                canonical(sample_upload(rng, split)) if edit is None else f"{edit.instruction}\n{canonical(edit.after)}"
            )
        elif roll < 0.9:
            yield "\n".join(f"{turn.text}\n{turn.reply}" for turn in make_talk(rng, split))
        else:
            scene = sample_upload(rng, split)
            yield f"{canonical(scene)}\n{short(scene)}\n{long(scene)}"
