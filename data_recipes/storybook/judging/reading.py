"""What the judge sees on a page (`Reading`), what may be asked of it (`Wish`), and whether the one meets the other."""

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
    """One thing found on a page. `center` is in px of a 64 px page; `score` is how well its drawing fits, 0-1."""

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
    """A page as the judge sees it; `background` and `style` are None where the page fits none."""

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
class WishedThing:
    """Things that should be on a page; what is None does not matter."""

    kind: str
    count: int | None = None  # exactly so many
    colour: str | None = None
    size: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Wish:
    """What a page should show. `relations` are (index of a thing, a name in RELATIONS, index of a thing)."""

    things: tuple[WishedThing, ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()
    background: str | None = None
    style: str | None = None
    nothing_else: bool = False


def wish_of(scene: Scene) -> Wish:
    """Everything a scene says: counts, painted colours, sizes, places, looks, and nothing else on the page."""
    things = (
        WishedThing(group.kind, group.count, shown_colour(group.kind, group.colour), group.size, group.place)
        for group in scene.groups
    )
    return Wish(tuple(things), (), scene.background, scene.style, nothing_else=True)


def aspects(reading: Reading, wanted: Scene | Wish) -> dict[str, bool]:
    """For each of ASPECTS, whether the page shows what is wanted; an aspect nobody asked for holds."""
    wish = wish_of(wanted) if isinstance(wanted, Scene) else wanted
    by_colour = not ({reading.style, wish.style} & set(COLOURLESS_STYLES))
    found = _match(reading, wish, by_colour)
    pairs = list(zip(wish.things, found, strict=True))
    return {
        "kinds": all(_of_kind(reading, thing.kind) for thing in wish.things),
        "counts": all(thing.count in (None, len(same)) for thing, same in pairs) if found else True,
        "colours": all(same for same in found),
        "places": all(thing.place is None or _is_at(same, thing.place) for thing, same in pairs),
        "sizes": all(thing.size is None or (same and {t.size for t in same} == {thing.size}) for thing, same in pairs),
        "relations": all(_relates(found[a], name, found[b]) for a, name, b in wish.relations),
        "nothing else": not wish.nothing_else
        or {id(t) for same in found for t in same} == set(map(id, reading.things)),
        "background": wish.background in (None, reading.background),
        "style": wish.style in (None, reading.style),
    }


def satisfies(reading: Reading, wanted: Scene | Wish, ask: Iterable[str] = ASPECTS) -> bool:
    """Whether all the aspects in `ask` hold.

    Raises:
        ValueError: an unknown aspect.
    """
    seen = aspects(reading, wanted)
    unknown = [name for name in ask if name not in seen]
    if unknown:
        raise ValueError(f"unknown aspects {unknown}; known are {', '.join(ASPECTS)}")
    return all(seen[name] for name in ask)


def middle(things: Iterable[Thing]) -> tuple[float, float]:
    """The mean of the centres, px at 64."""
    centres = [thing.center for thing in things]
    return sum(x for x, _ in centres) / len(centres), sum(y for _, y in centres) / len(centres)


def nearest_place(point: tuple[float, float]) -> str:
    return min(CENTRE, key=lambda place: (CENTRE[place][0] - point[0]) ** 2 + (CENTRE[place][1] - point[1]) ** 2)


def _match(reading: Reading, wish: Wish, by_colour: bool) -> list[list[Thing]]:
    """For every wished thing the things that are it; where two wishes differ in place only, the nearer one counts."""
    result: list[list[Thing]] = [[] for _ in wish.things]
    for seen in reading.things:
        fitting = [
            i
            for i, thing in enumerate(wish.things)
            if thing.kind == seen.kind and (not by_colour or thing.colour in (None, seen.colour))
        ]
        if fitting:
            # A coloured wish takes its own before one that leaves the colour open.
            best = min(fitting, key=lambda i: (wish.things[i].colour is None, _distance(wish.things[i], seen)))
            result[best].append(seen)
    return result


def _distance(thing: WishedThing, seen: Thing) -> float:
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
