"""English grammar of the storybook: articles, counts, plurals, places, references; and typing errors of users."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from data_recipes.storybook.world.scene import Group, Scene
from data_recipes.storybook.world.vocabulary import OBJECTS

COUNT_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
               "eleven", "twelve", "thirteen", "fourteen", "fifteen")  # fmt: skip
PLACE_PHRASES = {
    "top left": "at the top left",
    "top": "at the top",
    "top right": "at the top right",
    "left": "on the left",
    "center": "in the center",
    "right": "on the right",
    "bottom left": "at the bottom left",
    "bottom": "at the bottom",
    "bottom right": "at the bottom right",
}
USER_PLACES = {
    "top left": ("at the top left", "in the top left corner", "in the top left", "in the upper left corner"),
    "top": ("at the top", "on top", "at the top of the page", "up top"),
    "top right": ("at the top right", "in the top right corner", "in the top right", "in the upper right corner"),
    "left": ("on the left", "on the left side", "at the left", "to the left", "on the left hand side"),
    "center": ("in the center", "in the middle", "in the centre", "at the center", "in the very middle"),
    "right": ("on the right", "on the right side", "at the right", "to the right", "on the right hand side"),
    "bottom left": ("at the bottom left", "in the bottom left corner", "in the bottom left",
                    "in the lower left corner"),
    "bottom": ("at the bottom", "down at the bottom", "at the bottom of the page", "at the very bottom"),
    "bottom right": (
        "at the bottom right",
        "in the bottom right corner",
        "in the bottom right",
        "in the lower right corner",
    ),
}  # fmt: skip
USER_SIZES = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge"), "medium": ("medium",)}


@cache
def article(word: str) -> str:
    """ "a" or "an", by sound as far as spelling tells it."""
    lowered = word.lower()
    if lowered.startswith(("uni", "eu", "use", "one")):
        return "a"
    return "an" if lowered[0] in "aeiou" or lowered.startswith("hour") else "a"


@cache
def pluralise(word: str) -> str:
    """A regular English plural, for synonyms; kinds carry their own plural."""
    if " of " in word:
        head, rest = word.split(" of ", 1)
        return f"{pluralise(head)} of {rest}"
    if sounds_plural(word):
        return word
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def sounds_plural(word: str) -> bool:
    """ "jeans", "grapes": a word that takes no "a"."""
    return word.endswith("s") and not word.endswith(("ss", "us", "is")) and " of " not in word


def noun(kind: str, count: int) -> str:
    return OBJECTS[kind].name if count == 1 else OBJECTS[kind].plural


def user_noun(rng: random.Random, kind: str, count: int, synonym_share: float = 0.15) -> str:
    """The kind's name, or now and then a synonym."""
    synonyms = OBJECTS[kind].synonyms
    if synonyms and rng.random() < synonym_share:
        word = pick(rng, synonyms)
        return word if count == 1 else pluralise(word)
    return noun(kind, count)


def pick(rng: random.Random, options: Sequence[str]) -> str:
    return options[int(rng.random() * len(options))]


def with_count(count: int, words: str) -> str:
    """ "a red car", "two red cars": `words` already agree with the count."""
    return f"{article(words)} {words}" if count == 1 else f"{COUNT_WORDS[count]} {words}"


def adjectives(group: Group) -> str:
    """Size and colour before the noun, with a space after; empty for a medium thing in its natural colour."""
    size = "" if group.size == "medium" else group.size + " "
    return size + (f"{group.colour} " if group.colour else "")


def looks(group: Group) -> str:
    """ "a small red car", "three foxes": a group without its place."""
    return with_count(group.count, adjectives(group) + noun(group.kind, group.count))


def definite(scene: Scene, group: Group) -> str:
    """ "the fox", or "the red car" where the scene holds cars of another colour too."""
    twins = sum(other.kind == group.kind for other in scene.groups) > 1
    colour = f"{group.colour} " if twins and group.colour else ""
    return f"the {colour}{noun(group.kind, group.count)}"


def user_definite(rng: random.Random, scene: Scene, group: Group) -> str:
    """How people refer to a group: mostly `definite`, at times with the colour or by a synonym."""
    twins = sum(other.kind == group.kind for other in scene.groups) > 1
    colour = f"{group.colour} " if group.colour and (twins or rng.random() < 0.25) else ""
    return f"the {colour}{user_noun(rng, group.kind, group.count)}"


def visible_colour(group: Group) -> str | None:
    """The colour word for what is seen, or None where no single word fits."""
    return group.colour or OBJECTS[group.kind].colour


def be(count: int) -> str:
    return "is" if count == 1 else "are"


def pronoun(group: Group) -> str:
    return "it" if group.count == 1 else "them"


def listing(items: Sequence[str], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def rough(rng: random.Random, text: str) -> str:
    """What a person types instead of the neat sentence: letter case, final punctuation and typing errors vary."""
    if not any(letter.isalnum() for letter in text):
        return text
    end = text[-1] if text[-1] in ".?!" else ""
    body = text[:-1] if end else text
    body = body.lower() if rng.random() < 0.4 else capitalised(body)
    roll = rng.random()
    if end == "?":
        end = "?" if roll < 0.7 else ""
    else:
        end = "." if roll < 0.35 else "!" if roll < 0.4 else ""
    if "colour" in body and rng.random() < 0.3:
        body = body.replace("colour", "color")
    if rng.random() < 0.03:
        body = with_typo(rng, body)
    return body + end


def with_typo(rng: random.Random, text: str) -> str:
    """One word of five letters or more with two letters swapped, one dropped or one doubled."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if not long:
        return text
    index = long[int(rng.random() * len(long))]
    word = words[index]
    at = rng.randrange(1, len(word) - 1)
    words[index] = pick(
        rng,
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        ),
    )
    return " ".join(words)
