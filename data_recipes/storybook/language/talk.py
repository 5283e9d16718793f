"""Conversation without pictures: greetings, questions about what nano can do, and requests that it must refuse."""

from __future__ import annotations

import random
from dataclasses import dataclass

from data_recipes.storybook.language.captions import canonical
from data_recipes.storybook.language.drawing_prompts import (
    COLOUR_NAMES,
    KINDS,
    SCENIC,
    DrawingPrompt,
    GroupSpec,
    complete,
)
from data_recipes.storybook.language.drawing_requests import COMMANDS
from data_recipes.storybook.language.talk_phrases import (
    AFFIRMATIONS,
    DECLINES,
    INFORMATION,
    SMALL_TALK,
    TASKS,
    TASKS_ABOUT,
)
from data_recipes.storybook.language.unknown_things import nearest_known
from data_recipes.storybook.language.wording import COUNT_WORDS, article, listing, noun, pluralise, rough
from data_recipes.storybook.splits import Phrases, Split, pair_is_held_out, word_is_held_out
from data_recipes.storybook.world.scene import MAX_COUNT, MAX_GROUPS, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES

CANNOT = "I am a tiny model. I can only draw and talk about storybook pictures."
WHAT_ELSE = "All right. What shall I draw?"
EXAMPLES = {
    "animal": ("fox", "cat", "dog", "rabbit", "elephant"),
    "bird": ("owl", "duck", "penguin", "parrot"),
    "sea animal": ("fish", "whale", "crab", "octopus"),
    "plant": ("tree", "flower", "cactus", "mushroom"),
    "food": ("apple", "banana", "cake", "pizza"),
    "vehicle": ("car", "train", "boat", "rocket"),
    "building": ("house", "castle", "tent", "church"),
    "clothing": ("shirt", "dress", "top hat", "shoe"),
    "instrument": ("guitar", "drum", "piano", "bell"),
    "tool": ("hammer", "axe", "key", "ladder"),
    "toy": ("ball", "kite", "robot", "teddy bear"),
    "shape": ("circle", "square", "star", "heart"),
}
CATEGORY_PLURALS = {
    "animal": "animals", "bird": "birds", "sea animal": "sea animals", "plant": "plants", "food": "food",
    "vehicle": "vehicles", "building": "buildings", "clothing": "clothes", "instrument": "instruments",
    "tool": "tools", "toy": "toys", "shape": "shapes",
}  # fmt: skip
WHICH = Phrases(
    "which",
    ("which {many} can you draw?", "what {many} can you draw?", "which {many} do you know?", "tell me some {many}",
     "can you draw {many}?", "do you know any {many}?", "what {many} are there?",
     "what kinds of {many} can you paint?"),
)  # fmt: skip
ABLE = Phrases(
    "able",
    ("are you able to draw {many}?", "do you know how to draw {many}?", "do you know {many}?", "can you do {many}?",
     "is it possible to get {many}?", "would you know how to paint {many}?"),
)  # fmt: skip


@dataclass(frozen=True)
class ScriptedTurn:
    """What the user says (perhaps with a picture of `uploaded`) and the reply; `drawn` is the picture drawn after it.

    Where something is drawn, `reply` is its canonical caption. `kind` says what the turn is about.
    """

    kind: str
    text: str
    reply: str
    drawn: Scene | None = None
    uploaded: Scene | None = None


def drawing_turn(kind: str, text: str, scene: Scene) -> ScriptedTurn:
    return ScriptedTurn(kind, text, canonical(scene), drawn=scene)


def make_talk(rng: random.Random, split: Split = "train") -> list[ScriptedTurn]:
    """One to three turns of talk; an offer is sometimes taken, and then drawn."""
    maker = rng.choices((small_talk, information, refusal, task), (0.28, 0.2, 0.37, 0.15))[0]
    turns = maker(rng, split)
    if len(turns) == 1 and rng.random() < 0.2:
        turns += small_talk(rng, split)
    return turns


def small_talk(rng: random.Random, split: Split = "train") -> list[ScriptedTurn]:
    """A greeting, thanks, or a question about nano itself."""
    phrases, reply = rng.choice(SMALL_TALK)
    return [ScriptedTurn("small talk", rough(rng, phrases.choose(rng, split)), reply)]


def task(rng: random.Random, split: Split = "train") -> list[ScriptedTurn]:
    """Something that a picture model cannot do, at times about a thing that it could draw."""
    if rng.random() < 0.7:
        return [ScriptedTurn("task", rough(rng, TASKS.choose(rng, split)), CANNOT)]
    kind = rng.choice(KINDS)
    slots = {"a": f"{article(kind)} {kind}", "many": noun(kind, 2), "bare": kind}
    return [ScriptedTurn("task", rough(rng, TASKS_ABOUT.choose(rng, split).format(**slots)), CANNOT)]


def information(rng: random.Random, split: Split = "train") -> list[ScriptedTurn]:
    """What can be drawn: categories, colours, backgrounds, styles, single things."""
    roll = rng.random()
    if roll < 0.4:
        phrases, what = rng.choice(INFORMATION)
        reply = {
            "colours": f"I know {listing(list(COLOURS))}.",
            "backgrounds": f"I can draw {listing([BACKGROUNDS[name].phrases[0] for name in SCENIC])}.",
            "styles": f"I can draw {listing([look.phrases[0] for look in STYLES.values()])}.",
            "counts": f"I can draw up to {COUNT_WORDS[MAX_COUNT]} things of a kind.",
            "groups": f"I can draw up to {COUNT_WORDS[MAX_GROUPS]} kinds of things on one page.",
        }[what]
        return [ScriptedTurn("information", rough(rng, phrases.choose(rng, split)), reply)]
    if roll < 0.75:
        category = rng.choice(tuple(EXAMPLES))
        many = CATEGORY_PLURALS[category]
        names = [f"{article(name)} {name}" for name in EXAMPLES[category]]
        reply = f"I can draw many {many}, such as {listing(names)}." if many != "food" else (
            f"I can draw food, such as {listing(names)}.")  # fmt: skip
        return [ScriptedTurn("information", rough(rng, WHICH.choose(rng, split).format(many=many)), reply)]
    template = ABLE.choose(rng, split)
    if rng.random() < 0.6:
        kind = rng.choice(KINDS)
        reply = f"Yes, I can draw {noun(kind, 2)}."
        return [ScriptedTurn("information", rough(rng, template.format(many=noun(kind, 2))), reply)]
    thing = pluralise(unknown_thing(rng, split))
    return [ScriptedTurn("information", rough(rng, template.format(many=thing)), f"No, I can't draw {thing} yet.")]


def unknown_thing(rng: random.Random, split: Split) -> str:
    """A thing that cannot be drawn; in the held-out split one that training never names."""
    wanted = split == "heldout"
    return rng.choice([thing for thing in nearest_known() if word_is_held_out("unknown", thing) == wanted])


def refusal(rng: random.Random, split: Split = "train") -> list[ScriptedTurn]:
    """A request that cannot be met, a reply that offers something else, and at times the user's answer."""
    maker = rng.choices((_unknown, _too_many, _wrong_colour, _too_full), (0.7, 0.1, 0.12, 0.08))[0]
    prompt, turn = maker(rng, split)
    if rng.random() < 0.45:
        return [turn]
    if rng.random() < 0.75:
        scene = complete(rng, prompt, split)
        if scene is None:
            return [turn]
        return [turn, drawing_turn("accepted", rough(rng, AFFIRMATIONS.choose(rng, split)), scene)]
    return [turn, ScriptedTurn("declined", rough(rng, DECLINES.choose(rng, split)), WHAT_ELSE)]


def _requested(rng: random.Random, split: Split, words: str) -> str:
    if rng.random() < 0.2:
        words += f" {rng.choice(BACKGROUNDS[rng.choice(SCENIC)].phrases)}"
    return rough(rng, COMMANDS.choose(rng, split).format(scene=words))


def _unknown(rng: random.Random, split: Split) -> tuple[DrawingPrompt, ScriptedTurn]:
    thing = unknown_thing(rng, split)
    kind = nearest_known()[thing]
    roll = rng.random()
    if roll < 0.1:
        words = f"{rng.choice(('two', '2', 'three'))} {pluralise(thing)}"
    else:
        adjective = f"{rng.choice((*COLOUR_NAMES, 'big', 'small'))} " if roll < 0.3 else ""
        words = f"{article(adjective or thing)} {adjective}{thing}"
        if 0.3 < roll < 0.42:
            other = rng.choice(KINDS)
            words += f" and {article(other)} {other}"
    offer = f"{article(kind)} {kind}"
    reply = f"I can't draw {article(thing)} {thing} yet. Shall I draw {offer} instead?"
    return DrawingPrompt((GroupSpec(kind),)), ScriptedTurn("refusal", _requested(rng, split, words), reply)


def _too_many(rng: random.Random, split: Split) -> tuple[DrawingPrompt, ScriptedTurn]:
    kind, count = rng.choice(KINDS), rng.choice((6, 7, 8, 9, 10, 12, 15, 20, 50, 100))
    number = COUNT_WORDS[count] if count <= 12 and rng.random() < 0.5 else str(count)
    reply = f"I can draw up to five things of a kind. Shall I draw five {noun(kind, 2)}?"
    return DrawingPrompt((GroupSpec(kind, MAX_COUNT),)), ScriptedTurn(
        "refusal", _requested(rng, split, f"{number} {noun(kind, 2)}"), reply
    )


def _wrong_colour(rng: random.Random, split: Split) -> tuple[DrawingPrompt, ScriptedTurn]:
    kind = rng.choice([name for name in rng.sample(KINDS, 20) if not OBJECTS[name].recolourable] or ["fox"])
    colour = rng.choice([colour for colour in COLOUR_NAMES if colour != OBJECTS[kind].colour])
    if OBJECTS[kind].colour is None:
        colour = "purple"  # surely not the natural look of a thing of many colours
    reply = f"I can't draw {article(colour)} {colour} {kind}. Shall I draw {article(kind)} {kind} in its own colours?"
    words = f"{article(colour)} {colour} {kind}"
    return DrawingPrompt((GroupSpec(kind),)), ScriptedTurn("refusal", _requested(rng, split, words), reply)


def _too_full(rng: random.Random, split: Split) -> tuple[DrawingPrompt, ScriptedTurn]:
    while True:
        kinds = rng.sample(KINDS, rng.choice((4, 4, 5)))
        offered = kinds[:MAX_GROUPS]
        if split == "heldout" or not any(pair_is_held_out(a, b) for a in offered for b in offered):
            break
    names = [f"{article(kind)} {kind}" for kind in kinds]
    reply = f"I can draw up to three kinds of things. Shall I draw {listing(names[:MAX_GROUPS])}?"
    prompt = DrawingPrompt(tuple(GroupSpec(kind) for kind in offered))
    return prompt, ScriptedTurn("refusal", _requested(rng, split, listing(names)), reply)
