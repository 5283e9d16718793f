"""Whether a drawn picture, an edit or an answer is right: the storybook's cases, renderer and judge as one object.

`Storybook` is what a benchmark is handed. A picture is scored by what the judge reads on it, an announcement ("A red
car on the left.") by the picture that it determines, both by the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL.Image import Image

from data_recipes.storybook.drawing.render import boxes, render
from data_recipes.storybook.judging import answer_check, cases, conversation_cases
from data_recipes.storybook.judging.cases import AskCase, DrawCase
from data_recipes.storybook.judging.conversation_cases import DialogueCase, DialogueTurn, RouteCase
from data_recipes.storybook.judging.reading import (
    COLOURLESS_STYLES,
    RELATIONS,
    Expectation,
    ExpectedThing,
    Reading,
    Thing,
    aspects,
    expectation_of,
)
from data_recipes.storybook.language.captions import parse_canonical
from data_recipes.storybook.language.drawing_prompts import DrawingPrompt, GroupSpec
from data_recipes.storybook.language.edits import Edit
from data_recipes.storybook.language.questions import Question
from data_recipes.storybook.world.layout import centres, is_possible, shown_colour
from data_recipes.storybook.world.scene import Scene

SAID = ("kinds", "counts", "colours", "places", "sizes", "relations", "background", "style")
MARGIN = 3  # px at 64 that styles, soft edges and the eye may take around what changes


class PictureReader(Protocol):
    """The part of `Judge` that scoring uses, so that tests can replace it."""

    resolution: int

    def detect(self, images: Sequence[Image]) -> list[Reading]:
        """One reading per picture."""


class Storybook:
    """The held-out cases of the storybook world and the rules by which they are scored.

    Args:
        judge: reads pictures of `judge.resolution` px.
    """

    draw_categories: tuple[str, ...] = tuple(cases.DRAW_PROMPTS)
    headline: tuple[str, ...] = (
        "single_object",
        "two_objects",
        "counting",
        "colours",
        "position",
        "colour_attribution",
    )

    def __init__(self, judge: PictureReader) -> None:
        self.judge = judge
        self.resolution = judge.resolution

    # -- cases -----------------------------------------------------------------------------------------------------

    def draw_cases(self, category: str, n: int, seed: int) -> list[DrawCase]:
        return cases.draw_cases(category, n, seed)  # type: ignore[arg-type]

    def ask_cases(self, n: int, seed: int) -> list[AskCase]:
        return cases.ask_cases(n, seed)

    def edit_cases(self, n: int, seed: int) -> list[Edit]:
        return cases.edit_cases(n, seed)

    def route_cases(self, n: int, seed: int) -> list[RouteCase]:
        return conversation_cases.route_cases(n, seed, self.resolution)

    def dialogue_cases(self, n: int, seed: int) -> list[DialogueCase]:
        return conversation_cases.dialogue_cases(n, seed)

    # -- pictures and readings ----------------------------------------------------------------------------------------

    def picture(self, scene: Scene) -> Image:
        return render(scene, self.resolution)

    def read(self, images: Sequence[Image]) -> list[Reading]:
        return self.judge.detect(images)

    def read_sentence(self, text: str) -> Reading | None:
        """The picture of a canonical sentence; None for other texts and for pictures that cannot be."""
        try:
            scene = parse_canonical(text)
        except ValueError:
            return None
        return reading_of(scene) if is_possible(scene) else None

    def agrees(self, reading: Reading, announced: Reading) -> bool:
        """Kinds, counts, colours, places, sizes and looks are as announced, and nothing else is there."""
        scene = Scene(announced.groups(), announced.background or "plain", announced.style or "storybook")
        return all(aspects(reading, scene).values())

    # -- scores ----------------------------------------------------------------------------------------------------

    def draw_is_right(self, case: DrawCase, reading: Reading) -> bool:
        """All that was said is there: kinds in exact numbers, and colours, places and looks where they were said."""
        return meets(reading, case.prompt)

    def nothing_else(self, case: DrawCase, reading: Reading) -> bool:
        """No thing is there that was not said."""
        return meets(reading, case.prompt, strict=True)

    def edit_is_right(self, case: Edit, reading: Reading) -> bool:
        """Exactly the things after the edit, in their colours and places, and look; sizes only for a resize."""
        seen = aspects(reading, expectation_of(case.after))
        return all(holds for name, holds in seen.items() if name != "sizes" or case.kind == "resize")

    def edited_region(self, case: Edit) -> np.ndarray | None:
        """The boxes of what comes, goes or changes, with a margin; None where background or style change."""
        before, after = case.before, case.after
        if (before.background, before.style) != (after.background, after.style):
            return None
        region = np.zeros((self.resolution, self.resolution), dtype=bool)
        margin = round(MARGIN * self.resolution / 64)
        for x0, y0, x1, y1, *_ in _painted(before, self.resolution) ^ _painted(after, self.resolution):
            region[max(y0 - margin, 0) : y1 + margin, max(x0 - margin, 0) : x1 + margin] = True
        return region

    def answer_is_right(self, question: Question, text: str) -> bool:
        return answer_check.answer_is_right(question, text)

    def turn_is_right(self, turn: DialogueTurn, reading: Reading) -> bool:
        """The picture shows what was said so far and nothing else: what was removed must be gone."""
        return turn.prompt is None or meets(reading, turn.prompt, strict=True)


def meets(reading: Reading, prompt: DrawingPrompt, strict: bool = False) -> bool:
    """Whether a picture shows what was said; `strict`: and nothing else."""
    wanted = _wanted(prompt, strict)
    if prompt.style is None and reading.style in COLOURLESS_STYLES and any(thing.colour for thing in wanted.things):
        return False  # a colour was said, and nobody asked for a style that hides it
    seen = aspects(reading, wanted)
    asked = (*SAID, "nothing else") if strict else SAID
    return all(seen[name] for name in asked) and (prompt.relation != "next to" or _side_by_side(reading, prompt))


def credit(reading: Reading, prompt: DrawingPrompt) -> float:
    """The share of the prompt's claims that a picture fulfils, 0 to 1; 1 only where `meets` holds with `strict`.

    Finer than right or wrong, so that two pictures with mistakes can be ranked.
    """
    if meets(reading, prompt, strict=True):
        return 1.0
    wanted, marks = _wanted(prompt, strict=True), [False]  # something is wrong, even if no claim by itself is
    for thing in wanted.things:
        seen = aspects(reading, Expectation((thing,)))
        claims = {"counts": thing.count, "colours": thing.colour, "places": thing.place, "sizes": thing.size}
        marks += [seen["kinds"], *(seen["kinds"] and seen[name] for name, said in claims.items() if said is not None)]
    seen = aspects(reading, wanted)
    claims = {"relations": prompt.relation, "background": prompt.background, "style": prompt.style}
    marks += [seen[name] for name, said in claims.items() if said is not None]
    marks.append({thing.kind for thing in reading.things} <= {thing.kind for thing in wanted.things})
    return sum(marks) / len(marks)


def _wanted(prompt: DrawingPrompt, strict: bool) -> Expectation:
    """What was said, in the words of the judge."""
    return Expectation(
        tuple(ExpectedThing(w.kind, w.count, _painted_colour(w), w.size, w.place) for w in prompt.specs),
        ((0, prompt.relation, 1),) if prompt.relation in RELATIONS else (),
        prompt.background,
        prompt.style,
        nothing_else=strict,
    )


def _side_by_side(reading: Reading, prompt: DrawingPrompt) -> bool:
    """The first two things stand left and right of one another, at about one height."""
    pair = tuple(ExpectedThing(spec.kind) for spec in prompt.specs[:2])
    holds = {name: aspects(reading, Expectation(pair, ((0, name, 1),)))["relations"] for name in RELATIONS}
    return (holds["left of"] or holds["right of"]) and not (holds["above"] or holds["below"])


def _painted_colour(spec: GroupSpec) -> str | None:
    """The colour to look for; "a red cherry" needs none, as a cherry has no other."""
    return shown_colour(spec.kind, spec.colour) if spec.colour else None


def reading_of(scene: Scene) -> Reading:
    """The reading of a judge that makes no mistakes; the scene must be possible."""
    alone = len(scene.groups) == 1
    things = [
        Thing(group.kind, shown_colour(group.kind, group.colour), group.size, (float(x), float(y)), 1.0)
        for group in scene.groups
        for x, y in centres(group, alone)
    ]
    return Reading(tuple(things), scene.background, scene.style)


def _painted(scene: Scene, resolution: int) -> set[tuple]:
    """Every thing as (x0, y0, x1, y1, kind, colour)."""
    return {
        (*box, group.kind, shown_colour(group.kind, group.colour))
        for group, group_boxes in zip(scene.groups, boxes(scene, resolution), strict=True)
        for box in group_boxes
    }
