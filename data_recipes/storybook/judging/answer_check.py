"""Whether a free answer is right: it must hold the key, said in any usual way, and nothing against it."""

from __future__ import annotations

import re

from data_recipes.storybook.language.questions import COUNT_KINDS, YES_NO_KINDS, Question
from data_recipes.storybook.language.wording import COUNT_WORDS
from data_recipes.storybook.world.vocabulary import COLOURS

_VERTICAL = {"top": "top", "upper": "top", "above": "top", "bottom": "bottom", "lower": "bottom", "below": "bottom"}
_NEGATIONS = ("no", "not", "none", "nothing", "neither", "isn't", "aren't", "don't", "doesn't", "can't", "nope")


def answer_is_right(case: Question, text: str) -> bool:
    """True if `text` answers the question: numbers as words or digits, centre = center = middle, any phrasing."""
    words = _words(text)
    if not words:
        return False
    if case.kind in YES_NO_KINDS and case.key[0] in ("yes", "no"):
        return _says_yes(words) == (case.key[0] == "yes")
    if case.kind in COUNT_KINDS:
        return _first_number(words) == COUNT_WORDS.index(case.key[0])
    if case.kind == "position":
        return _place(words) == case.key[0]
    if case.kind == "colour":
        return {word for word in words if word in COLOURS} == {case.key[0]}
    if case.kind == "size":
        return _size(words) == case.key[0]
    if case.kind == "bigger" and case.key[0] != "same":
        return _holds(_words(_verdict(text)), case.key[0]) and "same" not in words
    return any(_holds(words, key) for key in case.key)


def _says_yes(words: list[str]) -> bool:
    if "yes" in words[:2] or "yep" in words[:2]:
        return True
    return not any(word in _NEGATIONS for word in words)


def _verdict(text: str) -> str:
    """What is said to be bigger: a size told on the way to that does not count, and what comes after "than" neither."""
    clauses = re.split(r"[.,:;!?]|\bso\b|\band\b|\bbut\b", text.lower())
    verdicts = [clause for clause in clauses if re.search(r"\b(bigger|larger)\b", clause)]
    if not verdicts:
        return text if len(text.split()) <= 3 else ""
    return verdicts[-1].split(" than ")[0]


def _first_number(words: list[str]) -> int | None:
    for word in words:
        if word.isdigit():
            return int(word)
        if word in ("none", "zero"):
            return 0
        if word in COUNT_WORDS:
            return COUNT_WORDS.index(word)
    return 1 if "a" in words or "an" in words else None


def _place(words: list[str]) -> str | None:
    words = [word for word, after in zip(words, [*words[1:], ""], strict=True) if not after.startswith("hat")]
    vertical = {_VERTICAL[word] for word in words if word in _VERTICAL}
    horizontal = {word for word in words if word in ("left", "right")}
    if len(vertical) > 1 or len(horizontal) > 1:
        return None
    if vertical or horizontal:
        return " ".join([*vertical, *horizontal])
    return "center" if {"center", "centre", "middle"} & set(words) else None


def _size(words: list[str]) -> str | None:
    said = {"little": "small", "tiny": "small", "big": "large", "huge": "large", "normal": "medium"}
    sizes = {said.get(word, word) for word in words} & {"small", "medium", "large"}
    return sizes.pop() if len(sizes) == 1 else None


def _holds(words: list[str], key: str) -> bool:
    """Whether the words of the key stand in the text one after the other."""
    wanted = _words(key)
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words) - len(wanted) + 1))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+|\d+", text.lower())
