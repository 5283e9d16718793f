"""Whether a drawn page, an edit or an answer is right: the storybook's cases, renderer and judge as one object.

`Storybook` is what a benchmark is handed. A picture is scored by what the judge reads on it, an announcement ("A red
car on the left.") by the page that it determines, both by the same rules.
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
    Reading,
    Thing,
    Wish,
    WishedThing,
    aspects,
    wish_of,
)
from data_recipes.storybook.language import wishes
from data_recipes.storybook.language.captions import parse_canonical
from data_recipes.storybook.language.edits import Edit
from data_recipes.storybook.language.questions import Question
from data_recipes.storybook.world.layout import centres, is_possible, shown_colour
from data_recipes.storybook.world.scene import Scene

SAID = ("kinds", "counts", "colours", "places", "sizes", "relations", "background", "style")
MARGIN = 3  # px at 64 that styles, soft edges and the eye may take around what changes


class ReadsPages(Protocol):
    """What is needed of a `Judge`."""

    resolution: int

    def detect(self, images: Sequence[Image]) -> list[Reading]:
        """One reading per picture."""


class Storybook:
    """The held-out cases of the storybook world and the rules by which they are scored.

    Args:
        judge: reads pictures of `judge.resolution` px.
    """

    draw_categories = tuple(cases.DRAW_WISHES)
    headline = ("single_object", "two_objects", "counting", "colours", "position", "colour_attribution")

    def __init__(self, judge: ReadsPages) -> None:
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

    # -- pages and readings ----------------------------------------------------------------------------------------

    def picture(self, scene: Scene) -> Image:
        return render(scene, self.resolution)

    def read(self, images: Sequence[Image]) -> list[Reading]:
        return self.judge.detect(images)

    def read_sentence(self, text: str) -> Reading | None:
        """The page of a canonical sentence; None for other texts and for pages that cannot be."""
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
        return meets(reading, case.wish)

    def nothing_else(self, case: DrawCase, reading: Reading) -> bool:
        """No thing is there that was not said."""
        return meets(reading, case.wish, strict=True)

    def edit_is_right(self, case: Edit, reading: Reading) -> bool:
        """Exactly the things of the page after, in their colours and places, and its look; sizes if they were meant."""
        seen = aspects(reading, wish_of(case.after))
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
        """The page shows what was said so far and nothing else: what was removed must be gone."""
        return turn.wish is None or meets(reading, turn.wish, strict=True)


def meets(reading: Reading, wish: wishes.Wish, strict: bool = False) -> bool:
    """Whether a page shows what was said; `strict`: and nothing else."""
    wanted = _wanted(wish, strict)
    if wish.style is None and reading.style in COLOURLESS_STYLES and any(thing.colour for thing in wanted.things):
        return False  # a colour was said, and nobody asked for a style that hides it
    seen = aspects(reading, wanted)
    asked = (*SAID, "nothing else") if strict else SAID
    return all(seen[name] for name in asked) and (wish.relation != "next to" or _side_by_side(reading, wish))


def credit(reading: Reading, wish: wishes.Wish) -> float:
    """How much of what was said a page shows, 0 to 1: the share of its claims that hold. 1 only for `meets`, strictly.

    Finer than right or wrong, so that of two pages with mistakes the better one can be told.
    """
    if meets(reading, wish, strict=True):
        return 1.0
    wanted, marks = _wanted(wish, strict=True), [False]  # something is wrong, even if no claim by itself is
    for thing in wanted.things:
        seen = aspects(reading, Wish((thing,)))
        claims = {"counts": thing.count, "colours": thing.colour, "places": thing.place, "sizes": thing.size}
        marks += [seen["kinds"], *(seen["kinds"] and seen[name] for name, said in claims.items() if said is not None)]
    seen = aspects(reading, wanted)
    claims = {"relations": wish.relation, "background": wish.background, "style": wish.style}
    marks += [seen[name] for name, said in claims.items() if said is not None]
    marks.append({thing.kind for thing in reading.things} <= {thing.kind for thing in wanted.things})
    return sum(marks) / len(marks)


def _wanted(wish: wishes.Wish, strict: bool) -> Wish:
    """What was said, in the words of the judge."""
    return Wish(
        tuple(WishedThing(w.kind, w.count, _painted_colour(w), w.size, w.place) for w in wish.wants),
        ((0, wish.relation, 1),) if wish.relation in RELATIONS else (),
        wish.background,
        wish.style,
        nothing_else=strict,
    )


def _side_by_side(reading: Reading, wish: wishes.Wish) -> bool:
    """The first two things stand left and right of one another, at about one height."""
    pair = tuple(WishedThing(want.kind) for want in wish.wants[:2])
    holds = {name: aspects(reading, Wish(pair, ((0, name, 1),)))["relations"] for name in RELATIONS}
    return (holds["left of"] or holds["right of"]) and not (holds["above"] or holds["below"])


def _painted_colour(want: wishes.Want) -> str | None:
    """The colour to look for; "a red cherry" needs none, as a cherry has no other."""
    return shown_colour(want.kind, want.colour) if want.colour else None


def reading_of(scene: Scene) -> Reading:
    """What a faultless judge reads on the page of a possible scene."""
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
