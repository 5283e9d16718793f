"""Held-out evaluation cases: what is said to the model, and what must then be true. Equal seeds give equal cases.

Every case that allows it shows a combination that training never saw; half of the wordings are new as well.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from data_recipes.storybook.language.drawing_requests import phrase
from data_recipes.storybook.language.edits import WEIGHTS, Edit, sample_edit
from data_recipes.storybook.language.questions import MAKERS, Question, ask
from data_recipes.storybook.language.wishes import (
    ARTISTIC,
    COLOUR_NAMES,
    KINDS,
    RELATION_PLACES,
    SCENIC,
    Want,
    Wish,
    complete,
    sample_page,
)
from data_recipes.storybook.splits import held_out_parts
from data_recipes.storybook.world.scene import PLACES, Scene
from data_recipes.storybook.world.vocabulary import OBJECTS

DrawCategory = Literal[
    "single_object", "two_objects", "counting", "colours", "position", "colour_attribution", "background", "style"
]
RECOLOURABLE = tuple(kind for kind in KINDS if OBJECTS[kind].recolourable)


@dataclass(frozen=True)
class DrawCase:
    """A request; the drawn page must meet `wish` (`wish.is_met_in_any_order(scene)`). `scene` is one page that does."""

    category: str
    request: str
    wish: Wish
    scene: Scene


@dataclass(frozen=True)
class AskCase:
    """A question on an uploaded picture of `scene`, to be judged by `answers.answer_is_right(case.question, text)`."""

    scene: Scene
    question: Question


def _rng(name: str, seed: int, index: int) -> random.Random:
    return random.Random(f"case-{name}-{seed}-{index}")


def draw_cases(category: DrawCategory, n: int, seed: int = 0) -> list[DrawCase]:
    """`n` requests of one category.

    Raises:
        ValueError: the category is unknown.
    """
    if category not in DRAW_WISHES:
        raise ValueError(f"unknown category {category!r}; known are {', '.join(DRAW_WISHES)}")
    return [_draw_case(category, _rng(category, seed, index)) for index in range(n)]


def practice_cases(n: int, seed: int = 0) -> list[DrawCase]:
    """`n` requests of all categories in turn, in wordings and combinations of training: to practise on, not to measure.

    Case `i` is the same for every `n`.
    """
    names = tuple(DRAW_WISHES)
    return [_practice_case(names[index % len(names)], _rng("practice", seed, index)) for index in range(n)]


def _practice_case(category: str, rng: random.Random) -> DrawCase:
    while True:
        wish = DRAW_WISHES[category][0](rng)
        scene = complete(rng, wish, "train", surprise=False)
        if scene is not None:
            return DrawCase(category, phrase(rng, wish, "train"), wish, scene)


def _draw_case(category: str, rng: random.Random) -> DrawCase:
    make, part = DRAW_WISHES[category]
    while True:
        wish = make(rng)
        scene = complete(rng, wish, "heldout", surprise=False)
        if scene is not None and (part is None or part in held_out_parts(scene)):
            return DrawCase(category, phrase(rng, wish, "heldout"), wish, scene)


def _single(rng: random.Random) -> Wish:
    return Wish((Want(rng.choice(KINDS)),))


def _two(rng: random.Random) -> Wish:
    first, second = rng.sample(KINDS, 2)
    return Wish((Want(first), Want(second)))


def _counting(rng: random.Random) -> Wish:
    return Wish((Want(rng.choice(KINDS), rng.choice((2, 3, 4, 5))),))


def _colours(rng: random.Random) -> Wish:
    return Wish((Want(rng.choice(RECOLOURABLE), colour=rng.choice(COLOUR_NAMES)),))


def _position(rng: random.Random) -> Wish:
    first, second = rng.sample(KINDS, 2)
    if rng.random() < 0.5:
        relation = rng.choice([relation for relation in RELATION_PLACES if relation != "next to"])
        return Wish((Want(first), Want(second)), relation=relation)
    here, there = rng.sample(PLACES, 2)
    return Wish((Want(first, place=here), Want(second, place=there)))


def _colour_attribution(rng: random.Random) -> Wish:
    (first, second), (colour, other) = rng.sample(RECOLOURABLE, 2), rng.sample(COLOUR_NAMES, 2)
    return Wish((Want(first, colour=colour), Want(second, colour=other)))


def _background(rng: random.Random) -> Wish:
    return Wish((Want(rng.choice(KINDS)),), background=rng.choice(SCENIC))


def _style(rng: random.Random) -> Wish:
    return Wish((Want(rng.choice(KINDS)),), style=rng.choice(ARTISTIC))


DRAW_WISHES: dict[str, tuple[Callable[[random.Random], Wish], str | None]] = {
    "single_object": (_single, None),
    "two_objects": (_two, "pair"),
    "counting": (_counting, None),
    "colours": (_colours, "colour"),
    "position": (_position, "pair"),
    "colour_attribution": (_colour_attribution, "colour"),
    "background": (_background, "background"),
    "style": (_style, None),
}


def held_out_page(rng: random.Random, num_groups: int | None = None) -> Scene:
    """An uploaded page with something that training never shows."""
    while True:
        scene = sample_page(rng, "heldout", num_groups)
        if held_out_parts(scene):
            return scene


def ask_cases(n: int, seed: int = 0) -> list[AskCase]:
    """`n` questions on held-out pages, the kinds of questions in turn."""
    kinds = tuple(MAKERS)
    cases: list[AskCase] = []
    while len(cases) < n:
        index, wanted = len(cases), kinds[len(cases) % len(kinds)]
        rng = _rng("ask", seed, index)
        question = None
        while question is None or question.kind not in (wanted, "more" if wanted == "comparison" else wanted):
            scene = held_out_page(rng, 2 if wanted in ("comparison", "bigger", "neighbour") else None)
            question = ask(rng, scene, "heldout", wanted)
        cases.append(AskCase(scene, question))
    return cases


def edit_cases(n: int, seed: int = 0) -> list[Edit]:
    """`n` changes of held-out pages, the kinds of changes in turn."""
    kinds = tuple(WEIGHTS)
    cases: list[Edit] = []
    for index in range(n):
        rng, edit = _rng("edit", seed, index), None
        while edit is None:
            edit = sample_edit(rng, held_out_page(rng), "heldout", kinds[index % len(kinds)])
        cases.append(edit)
    return cases


def without_surprise(rng: random.Random, num_wants: int) -> tuple[Wish, Scene]:
    """A simple wish, held out where there are two things, and its default page."""
    category = "two_objects" if num_wants == 2 else rng.choice(("single_object", "counting", "colours", "background"))
    case = _draw_case(category, rng)
    wish = replace(case.wish, style=rng.choice(ARTISTIC)) if rng.random() < 0.15 else case.wish
    return wish, replace(case.scene, style=wish.style or "storybook")
