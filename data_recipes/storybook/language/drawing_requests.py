"""Wordings of a `DrawingPrompt` as users type it: many templates, digits, synonyms and careless typing."""

from __future__ import annotations

import random

from data_recipes.storybook.language.drawing_prompts import KINDS, DrawingPrompt, GroupSpec, complete
from data_recipes.storybook.language.wording import (
    COUNT_WORDS,
    USER_PLACES,
    USER_SIZES,
    article,
    listing,
    pick,
    rough,
    sounds_plural,
    user_noun,
)
from data_recipes.storybook.splits import Phrases, Split, is_held_out
from data_recipes.storybook.world.scene import Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, OBJECTS, STYLES

COMMANDS = Phrases(
    "request",
    (
        "draw {scene}",
        "{scene}",
        "draw me {scene}",
        "please draw {scene}",
        "can you draw {scene}?",
        "could you paint {scene}?",
        "paint {scene}",
        "i'd like a picture of {scene}",
        "a picture of {scene}",
        "show me {scene}",
        "make a picture of {scene}",
        "can you paint {scene} please?",
        "i want {scene}",
        "could you draw {scene} for me?",
        "create an image of {scene}",
        "generate a picture of {scene}",
        "draw a picture of {scene}",
        "i want to see {scene}",
        "paint me {scene}, please",
        "please make me a picture with {scene}",
        "i would like to see {scene}",
        "would you draw {scene}?",
        "sketch {scene}",
        "give me {scene}",
        "let's see {scene}",
        "now draw {scene}",
        "can i have a picture of {scene}?",
        "please paint {scene} for me",
        "could i get a drawing of {scene}?",
        "a drawing of {scene} please",
        "make me {scene}",
        "image of {scene}",
        "i need an illustration of {scene}",
        "illustrate {scene}",
        "can you show me {scene}?",
        "my daughter wants {scene}",
        "hi, can you draw {scene}?",
        "hello! please draw {scene}",
        "how about {scene}?",
        "what about a picture with {scene}?",
        "i'd love to see {scene}",
        "render {scene}",
        "would you please paint {scene}?",
        "for my book i need {scene}",
        "put {scene} on a page",
        "can you make {scene}?",
        "picture: {scene}",
        "draw {scene}, please",
        "{scene}, please",
        "i'd like you to draw {scene}",
        "can we have {scene}?",
        "next picture: {scene}",
        "imagine {scene} and draw it",
        "do you think you could draw {scene}?",
        "try to draw {scene}",
        "design a page with {scene}",
        "do you think you can paint {scene}?",
        "could you try to draw {scene}?",
        "do you think it is possible to draw {scene}?",
        "can you imagine {scene}? draw it",
        "would you like to draw {scene}?",
        "think of {scene} and paint it",
        "i think i'd like {scene}",
        "is it possible to get {scene}?",
        "could you manage to draw {scene}?",
        "please try {scene}",
        "would you mind drawing {scene}?",
        "do me a favour and draw {scene}",
        "may i see {scene}?",
        "are you able to draw {scene}?",
        "do you want to draw {scene}?",
        "i wish to see {scene}",
        "let me have {scene}",
        "get me a picture of {scene}",
        "draw: {scene}",
    ),
)
# In each of these families the sixth is held out; some turn the order around, and some join by a mere sign.
RELATIONS = {
    "left of": Phrases(
        "left of",
        ("{a} to the left of {b}", "{a} left of {b}", "{a} on the left of {b}", "{a} standing to the left of {b}",
         "{a} placed left of {b}", "{a} on the left side of {b}", "{a} just left of {b}", "{b} with {a} to its left",
         "{b} and to its left {a}", "{a} at the left of {b}"),
    ),
    "right of": Phrases(
        "right of",
        ("{a} to the right of {b}", "{a} right of {b}", "{a} on the right of {b}", "{a} standing to the right of {b}",
         "{a} placed right of {b}", "{a} on the right side of {b}", "{a} just right of {b}",
         "{b} with {a} to its right", "{b} and to its right {a}", "{a} at the right of {b}"),
    ),
    "above": Phrases(
        "above",
        ("{a} above {b}", "{a} over {b}", "{a} up above {b}", "{a} floating above {b}", "{a} high above {b}",
         "{a} higher than {b}", "{a} right above {b}", "{b} with {a} above it", "{b} and above it {a}"),
    ),
    "below": Phrases(
        "below",
        ("{a} below {b}", "{a} under {b}", "{a} underneath {b}", "{a} lower than {b}", "{a} down below {b}",
         "{a} beneath {b}", "{a} right under {b}", "{b} with {a} below it", "{b} and under it {a}"),
    ),
    "next to": Phrases(
        "next to",
        ("{a} next to {b}", "{a} beside {b}", "{a} and {b} next to each other", "{a} and {b} side by side",
         "{a} by the side of {b}", "{a} alongside {b}", "{a} right next to {b}", "{a} close to {b}",
         "{a} and beside it {b}"),
    ),
}  # fmt: skip
JOINTS = Phrases(
    "joint",
    ("{a} and {b}", "{a} with {b}", "{a} and also {b}", "{a}, {b}", "{a} plus {b}", "{a} & {b}", "{a} as well as {b}",
     "{a} together with {b}", "{a} along with {b}", "{a} + {b}", "both {a} and {b}", "{a} / {b}", "{a} and {b} too"),
)  # fmt: skip
BACKGROUND_NOUNS = {
    "meadow": "a meadow",
    "forest": "a forest",
    "beach": "a beach",
    "sea": "the sea bed",
    "desert": "a desert",
    "snow": "a snowy landscape",
    "mountains": "the mountains",
    "city": "a city",
    "night": "a night scene",
}
STYLE_NOUNS = {
    "pixel art": "a pixel art picture of",
    "sepia": "a sepia picture of",
    "black and white": "a black and white picture of",
    "watercolour": "a watercolour of",
    "pencil sketch": "a pencil sketch of",
}
OPEN_CATEGORIES = {
    "animal": ("an animal", "some animal", "an animal you like"),
    "bird": ("some bird", "a kind of bird", "any bird"),
    "sea animal": ("a sea animal", "something that swims", "a creature of the sea"),
    "plant": ("a plant", "some plant", "something that grows"),
    "food": ("something to eat", "some food", "something tasty"),
    "vehicle": ("a vehicle", "something to ride in", "some vehicle"),
    "building": ("a building", "some building", "a place to live in"),
    "clothing": ("something to wear", "a piece of clothing", "clothes"),
    "instrument": ("an instrument", "a musical instrument", "something that makes music"),
    "tool": ("a tool", "some tool", "something to work with"),
    "toy": ("a toy", "some toy", "something to play with"),
    "shape": ("a shape", "some shape", "a simple shape"),
}
SURPRISES = Phrases(
    "surprise",
    (
        "draw something", "surprise me", "draw anything you like", "paint something nice", "draw whatever you want",
        "show me what you can do", "just draw something", "give me a random picture", "draw something for me",
        "you choose", "make a picture", "paint anything",
    ),
)  # fmt: skip


def phrase(rng: random.Random, prompt: DrawingPrompt, split: Split = "train") -> str:
    """One user message that says this prompt: everything in it, nothing more."""
    template = COMMANDS.choose(rng, split)
    said = scene_words(rng, prompt, split, whole_picture=is_verb(template))
    return rough(rng, template.format(scene=said))


def open_request(rng: random.Random, split: Split = "train") -> tuple[str, Scene]:
    """A request that names a category or nothing at all, and one scene that answers it."""
    while True:
        if rng.random() < 0.35:
            text, kind = SURPRISES.choose(rng, split), rng.choice(KINDS)
        else:
            category = rng.choice(tuple(OPEN_CATEGORIES))
            kind = rng.choice([name for name in KINDS if OBJECTS[name].category == category])
            text = COMMANDS.choose(rng, split).format(scene=rng.choice(OPEN_CATEGORIES[category]))
        scene = complete(rng, DrawingPrompt((GroupSpec(kind),)), split)
        if scene is not None and not is_held_out(scene):
            return rough(rng, text), scene


def is_verb(template: str) -> bool:
    """True where "a watercolour of ..." can stand for the scene: not after "a picture of"."""
    return not any(word in template for word in ("picture", "image", "drawing", "illustration"))


def scene_words(rng: random.Random, prompt: DrawingPrompt, split: Split = "train", whole_picture: bool = True) -> str:
    """The prompt as a noun phrase: "two foxes on the left and a tree, at night"."""
    things = [thing_words(rng, spec) for spec in prompt.specs]
    words = _join(rng, prompt, things, split)
    background, style = prompt.background, prompt.style
    if background in BACKGROUND_NOUNS and rng.random() < 0.12:
        words = f"{BACKGROUND_NOUNS[background]} with {words}"
        background = None
    suffixes = []
    if style in STYLE_NOUNS and whole_picture and rng.random() < 0.35:
        words = f"{STYLE_NOUNS[style]} {words}"
        style = None
    if background:
        suffixes.append(rng.choice(BACKGROUNDS[background].phrases))
    if style:
        suffixes.append(rng.choice(STYLES[style].phrases))
    if len(suffixes) == 2 and rng.random() < 0.3:
        suffixes.reverse()
    comma = rng.random() < 0.4 or any(spec.place for spec in prompt.specs)
    return words + "".join(f"{',' if comma else ''} {suffix}" for suffix in suffixes)


def thing_words(rng: random.Random, spec: GroupSpec) -> str:
    """ "two big red cars in the middle"."""
    size = rng.choice(USER_SIZES[spec.size]) + " " if spec.size else ""
    colour = spec.colour + " " if spec.colour else ""
    words = counted(rng, spec.count, size + colour + user_noun(rng, spec.kind, spec.count))
    return f"{words} {rng.choice(USER_PLACES[spec.place])}" if spec.place else words


def counted(rng: random.Random, count: int, words: str) -> str:
    """`words` with a count in front, as people write counts: words, digits, "a couple of", or a missing article."""
    roll = rng.random()
    if count == 1:
        if sounds_plural(words) or roll < 0.05:
            return words
        return f"one {words}" if roll < 0.1 else f"1 {words}" if roll < 0.13 else f"{article(words)} {words}"
    if roll < 0.25:
        return f"{count} {words}"
    if roll < 0.4 and count == 2 and not words.startswith("pair"):
        return rng.choice(("a couple of", "a pair of")) + f" {words}"
    if roll < 0.32 and count == 3:
        return f"a few {words}"
    return f"{COUNT_WORDS[count]} {words}"


def _join(rng: random.Random, prompt: DrawingPrompt, things: list[str], split: Split) -> str:
    if prompt.relation:
        first, second = things[:2]
        return RELATIONS[prompt.relation].choose(rng, split).format(a=first, b=second)
    if len(things) == 2:
        return JOINTS.choose(rng, split).format(a=things[0], b=things[1])
    return listing(things, pick(rng, ("and", "and", "plus", "with")))
