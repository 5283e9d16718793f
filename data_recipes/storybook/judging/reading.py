"""What the judge recognised in a picture (`Reading`), what it should show (`Expectation`), and how the two compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from data_recipes.storybook.world.layout import CENTRE, shown_colour
from data_recipes.storybook.world.scene import Group, Scene

COLOURLESS_STYLES = ("sepia", "black and white")
ASPECTS = ("kinds", "counts", "colours", "places", "sizes", "relations", "nothing else", "background", "style")
_FAR = 6.0  # px at 64 by which centres must differ to be left of, above ...

RELATIONS: dict[str, Callable[[tuple[float, float], tuple[float, float]], bool]] = {
    "left of": lambda a, b: a[0] < b[0] - _FAR,
    "right of": lambda a, b: a[0] > b[0] + _FAR,
    "above": lambda a, b: a[1] < b[1] - _FAR,
    "below": lambda a, b: a[1] > b[1] + _FAR,
}


@dataclass(frozen=True)
class Thing:
    """One thing found on a picture. `center` is in px of a 64 px picture; `score` is how well its drawing fits, 0-1."""

    kind: str
    colour: str | None  # the painted colour (`layout.shown_colour`); meaningless in COLOURLESS_STYLES
    size: str
    center: tuple[float, float]
    score: float

    @property
    def place(self) -> str:
        """The nearest place name."""
        return nearest_place(self.center)


@dataclass(frozen=True)
class Reading:
    """A picture as the judge sees it; `background` and `style` are None where the picture fits none."""

    things: tuple[Thing, ...]
    background: str | None
    style: str | None

    def groups(self) -> tuple[Group, ...]:
        """Things of one kind and colour as groups, in the order they were found."""
        looks = dict.fromkeys((thing.kind, thing.colour) for thing in self.things)
        result = []
        for kind, colour in looks:
            same = [thing for thing in self.things if (thing.kind, thing.colour) == (kind, colour)]
            result.append(Group(kind, len(same), colour, same[0].size, nearest_place(middle(same))))
        return tuple(result)


@dataclass(frozen=True)
class ExpectedThing:
    """Equal things that a picture should show; None = any."""

    kind: str
    count: int | None = None  # exactly so many
    colour: str | None = None
    size: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Expectation:
    """What a picture should show. `relations` are (index of a thing, a name in RELATIONS, index of a thing)."""

    things: tuple[ExpectedThing, ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()
    background: str | None = None
    style: str | None = None
    nothing_else: bool = False


def expectation_of(scene: Scene) -> Expectation:
    """Everything a scene says: counts, painted colours, sizes, places, looks, and nothing else on the picture."""
    things = (
        ExpectedThing(group.kind, group.count, shown_colour(group.kind, group.colour), group.size, group.place)
        for group in scene.groups
    )
    return Expectation(tuple(things), (), scene.background, scene.style, nothing_else=True)


def aspects(reading: Reading, wanted: Scene | Expectation) -> dict[str, bool]:
    """For each of ASPECTS, whether the picture shows what is wanted; an aspect that was not asked for holds."""
    expected = expectation_of(wanted) if isinstance(wanted, Scene) else wanted
    by_colour = not ({reading.style, expected.style} & set(COLOURLESS_STYLES))
    found = _match(reading, expected, by_colour)
    pairs = list(zip(expected.things, found, strict=True))
    return {
        "kinds": all(_of_kind(reading, thing.kind) for thing in expected.things),
        "counts": all(thing.count in (None, len(same)) for thing, same in pairs) if found else True,
        "colours": all(same for same in found),
        "places": all(thing.place is None or _is_at(same, thing.place) for thing, same in pairs),
        "sizes": all(thing.size is None or (same and {t.size for t in same} == {thing.size}) for thing, same in pairs),
        "relations": all(_relates(found[a], name, found[b]) for a, name, b in expected.relations),
        "nothing else": not expected.nothing_else
        or {id(t) for same in found for t in same} == set(map(id, reading.things)),
        "background": expected.background in (None, reading.background),
        "style": expected.style in (None, reading.style),
    }


def middle(things: Iterable[Thing]) -> tuple[float, float]:
    """The mean of the centres, px at 64."""
    centres = [thing.center for thing in things]
    return sum(x for x, _ in centres) / len(centres), sum(y for _, y in centres) / len(centres)


def nearest_place(point: tuple[float, float]) -> str:
    return min(CENTRE, key=lambda place: (CENTRE[place][0] - point[0]) ** 2 + (CENTRE[place][1] - point[1]) ** 2)


def _match(reading: Reading, expected: Expectation, by_colour: bool) -> list[list[Thing]]:
    """For every expected thing the things that match it; of two that differ in place only, the nearer one counts."""
    result: list[list[Thing]] = [[] for _ in expected.things]
    for seen in reading.things:
        fitting = [
            i
            for i, thing in enumerate(expected.things)
            if thing.kind == seen.kind and (not by_colour or thing.colour in (None, seen.colour))
        ]
        if fitting:
            # An expected colour takes its own before one that leaves the colour open.
            best = min(fitting, key=lambda i: (expected.things[i].colour is None, _distance(expected.things[i], seen)))
            result[best].append(seen)
    return result


def _distance(thing: ExpectedThing, seen: Thing) -> float:
    if thing.place is None:
        return 0.0
    x, y = CENTRE[thing.place]
    return abs(x - seen.center[0]) + abs(y - seen.center[1])


def _of_kind(reading: Reading, kind: str) -> bool:
    return any(thing.kind == kind for thing in reading.things)


def _is_at(things: list[Thing], place: str) -> bool:
    return bool(things) and nearest_place(middle(things)) == place


def _relates(first: list[Thing], relation: str, second: list[Thing]) -> bool:
    if relation not in RELATIONS:
        raise ValueError(f"unknown relation {relation!r}; known are {', '.join(RELATIONS)}")
    return bool(first) and bool(second) and RELATIONS[relation](middle(first), middle(second))
