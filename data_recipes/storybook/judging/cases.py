"""Held-out evaluation cases: what is said to the model, and what must then be true. Equal seeds give equal cases.

Every case that allows it shows a combination that training never saw; half of the wordings are new as well.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from data_recipes.storybook.language.drawing_prompts import (
    ARTISTIC,
    COLOUR_NAMES,
    KINDS,
    RELATION_PLACES,
    SCENIC,
    DrawingPrompt,
    GroupSpec,
    complete,
    sample_upload,
)
from data_recipes.storybook.language.drawing_requests import phrase
from data_recipes.storybook.language.edits import WEIGHTS, Edit, sample_edit
from data_recipes.storybook.language.questions import MAKERS, Question, ask
from data_recipes.storybook.splits import held_out_parts
from data_recipes.storybook.world.scene import PLACES, Scene
from data_recipes.storybook.world.vocabulary import OBJECTS

DrawCategory = Literal[
    "single_object", "two_objects", "counting", "colours", "position", "colour_attribution", "background", "style"
]
RECOLOURABLE = tuple(kind for kind in KINDS if OBJECTS[kind].recolourable)


@dataclass(frozen=True)
class DrawCase:
    """A request, the prompt that the drawn picture must meet, and one scene that meets it."""

    category: str
    request: str
    prompt: DrawingPrompt
    scene: Scene


@dataclass(frozen=True)
class AskCase:
    """A question on an uploaded picture of `scene`; `answer_check.answer_is_right` judges the answer."""

    scene: Scene
    question: Question


def _rng(name: str, seed: int, index: int) -> random.Random:
    return random.Random(f"case-{name}-{seed}-{index}")


def draw_cases(category: DrawCategory, n: int, seed: int = 0) -> list[DrawCase]:
    """`n` requests of one category.

    Raises:
        ValueError: the category is unknown.
    """
    if category not in DRAW_PROMPTS:
        raise ValueError(f"unknown category {category!r}; known are {', '.join(DRAW_PROMPTS)}")
    return [_draw_case(category, _rng(category, seed, index)) for index in range(n)]


def practice_cases(n: int, seed: int = 0) -> list[DrawCase]:
    """`n` requests of all categories in turn, in wordings and combinations of training: to practise on, not to measure.

    Case `i` is the same for every `n`.
    """
    names = tuple(DRAW_PROMPTS)
    return [_practice_case(names[index % len(names)], _rng("practice", seed, index)) for index in range(n)]


def _practice_case(category: str, rng: random.Random) -> DrawCase:
    while True:
        prompt = DRAW_PROMPTS[category][0](rng)
        scene = complete(rng, prompt, "train", surprise=False)
        if scene is not None:
            return DrawCase(category, phrase(rng, prompt, "train"), prompt, scene)


def _draw_case(category: str, rng: random.Random) -> DrawCase:
    make, part = DRAW_PROMPTS[category]
    while True:
        prompt = make(rng)
        scene = complete(rng, prompt, "heldout", surprise=False)
        if scene is not None and (part is None or part in held_out_parts(scene)):
            return DrawCase(category, phrase(rng, prompt, "heldout"), prompt, scene)


def _single(rng: random.Random) -> DrawingPrompt:
    return DrawingPrompt((GroupSpec(rng.choice(KINDS)),))


def _two(rng: random.Random) -> DrawingPrompt:
    first, second = rng.sample(KINDS, 2)
    return DrawingPrompt((GroupSpec(first), GroupSpec(second)))


def _counting(rng: random.Random) -> DrawingPrompt:
    return DrawingPrompt((GroupSpec(rng.choice(KINDS), rng.choice((2, 3, 4, 5))),))


def _colours(rng: random.Random) -> DrawingPrompt:
    return DrawingPrompt((GroupSpec(rng.choice(RECOLOURABLE), colour=rng.choice(COLOUR_NAMES)),))


def _position(rng: random.Random) -> DrawingPrompt:
    first, second = rng.sample(KINDS, 2)
    if rng.random() < 0.5:
        relation = rng.choice([relation for relation in RELATION_PLACES if relation != "next to"])
        return DrawingPrompt((GroupSpec(first), GroupSpec(second)), relation=relation)
    here, there = rng.sample(PLACES, 2)
    return DrawingPrompt((GroupSpec(first, place=here), GroupSpec(second, place=there)))


def _colour_attribution(rng: random.Random) -> DrawingPrompt:
    (first, second), (colour, other) = rng.sample(RECOLOURABLE, 2), rng.sample(COLOUR_NAMES, 2)
    return DrawingPrompt((GroupSpec(first, colour=colour), GroupSpec(second, colour=other)))


def _background(rng: random.Random) -> DrawingPrompt:
    return DrawingPrompt((GroupSpec(rng.choice(KINDS)),), background=rng.choice(SCENIC))


def _style(rng: random.Random) -> DrawingPrompt:
    return DrawingPrompt((GroupSpec(rng.choice(KINDS)),), style=rng.choice(ARTISTIC))


DRAW_PROMPTS: dict[str, tuple[Callable[[random.Random], DrawingPrompt], str | None]] = {
    "single_object": (_single, None),
    "two_objects": (_two, "pair"),
    "counting": (_counting, None),
    "colours": (_colours, "colour"),
    "position": (_position, "pair"),
    "colour_attribution": (_colour_attribution, "colour"),
    "background": (_background, "background"),
    "style": (_style, None),
}


def held_out_scene(rng: random.Random, num_groups: int | None = None) -> Scene:
    """An uploaded picture with something that training never shows."""
    while True:
        scene = sample_upload(rng, "heldout", num_groups)
        if held_out_parts(scene):
            return scene


def ask_cases(n: int, seed: int = 0) -> list[AskCase]:
    """`n` questions on held-out pictures, the kinds of questions in turn."""
    kinds = tuple(MAKERS)
    cases: list[AskCase] = []
    while len(cases) < n:
        index, wanted = len(cases), kinds[len(cases) % len(kinds)]
        rng = _rng("ask", seed, index)
        question = None
        while question is None or question.kind not in (wanted, "more" if wanted == "comparison" else wanted):
            scene = held_out_scene(rng, 2 if wanted in ("comparison", "bigger", "neighbour") else None)
            question = ask(rng, scene, "heldout", wanted)
        cases.append(AskCase(scene, question))
    return cases


def edit_cases(n: int, seed: int = 0) -> list[Edit]:
    """`n` changes of held-out pictures, the kinds of changes in turn."""
    kinds = tuple(WEIGHTS)
    cases: list[Edit] = []
    for index in range(n):
        rng, edit = _rng("edit", seed, index), None
        while edit is None:
            edit = sample_edit(rng, held_out_scene(rng), "heldout", kinds[index % len(kinds)])
        cases.append(edit)
    return cases


def without_surprise(rng: random.Random, num_groups: int) -> tuple[DrawingPrompt, Scene]:
    """A simple prompt, held out where there are two things, and its default picture."""
    category = "two_objects" if num_groups == 2 else rng.choice(("single_object", "counting", "colours", "background"))
    case = _draw_case(category, rng)
    prompt = replace(case.prompt, style=rng.choice(ARTISTIC)) if rng.random() < 0.15 else case.prompt
    return prompt, replace(case.scene, style=prompt.style or "storybook")
