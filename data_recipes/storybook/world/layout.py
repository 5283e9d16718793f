"""Where the things of a scene stand, and which scenes are possible.

Positions are a function of names alone. Lengths here are in units of a 64 px picture; `render.py` scales them.
"""

from __future__ import annotations

from collections.abc import Collection

from data_recipes.storybook.world.scene import MAX_COUNT, MAX_GROUPS, PLACES, SIZES, Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES

PICTURE_SIDE = 64
SIDE: dict[str, int] = dict(zip(SIZES, (16, 24, 32), strict=True))
CENTRE: dict[str, tuple[int, int]] = {place: (16 + 16 * (i % 3), 16 + 16 * (i // 3)) for i, place in enumerate(PLACES)}
MAX_STACK = 3  # things of one group beside other groups

_SPREADS: dict[int, tuple[tuple[int, int], ...]] = {  # in units of the spread, around the middle of the picture
    1: ((0, 0),),
    2: ((-1, 0), (1, 0)),
    3: ((0, -1), (-1, 1), (1, 1)),
    4: ((-1, -1), (1, -1), (-1, 1), (1, 1)),
    5: ((-1, -1), (1, -1), (0, 0), (-1, 1), (1, 1)),
}
_STACKS: dict[int, tuple[int, ...]] = {2: (-12, 12), 3: (-16, 0, 16)}

Slot = tuple[int, int, int, int]  # x0, y0, x1, y1 of the square that a thing is fitted into


def shown_colour(kind: str, colour: str | None) -> str | None:
    """The colour that is painted: a recolourable kind without an explicit one has its usual colour."""
    known = OBJECTS[kind]
    return (colour or known.colour) if known.recolourable else None


def centres(group: Group, alone: bool) -> tuple[tuple[int, int], ...]:
    """Middle of each thing of a group, in reading order; `alone` = the scene has no other group."""
    x, y = CENTRE[group.place]
    if group.count == 1:
        return ((x, y),)
    if alone:
        # Five medium things need a little more room for the one in the middle.
        spread = 20 if group.count == 5 and group.size == "medium" else 16
        return tuple((x + spread * dx, y + spread * dy) for dx, dy in _SPREADS[group.count])
    if group.place in ("left", "right"):
        return tuple((x, y + step) for step in _STACKS[group.count])
    return tuple((x + step, y) for step in _STACKS[group.count])


def slots(scene: Scene) -> list[list[Slot]]:
    """The squares of all things, per group."""
    alone = len(scene.groups) == 1
    result = []
    for group in scene.groups:
        half = SIDE[group.size] // 2
        result.append([(x - half, y - half, x + half, y + half) for x, y in centres(group, alone)])
    return result


def check(scene: Scene) -> None:
    """Accept a scene that can be drawn.

    Raises:
        ValueError: an unknown name, a count or place that the rules do not know, or things that would overlap.
    """
    _check_name("background", scene.background, BACKGROUNDS)
    _check_name("style", scene.style, STYLES)
    if not 1 <= len(scene.groups) <= MAX_GROUPS:
        raise ValueError(f"a scene has 1 to {MAX_GROUPS} groups, got {len(scene.groups)}")
    for group in scene.groups:
        _check_group(group, alone=len(scene.groups) == 1)
    looks = [(group.kind, shown_colour(group.kind, group.colour)) for group in scene.groups]
    if len(set(looks)) < len(looks):
        raise ValueError(
            f"two groups of one scene differ in kind or colour, got {looks}; raise the count of one instead"
        )
    _check_overlap(scene)


def is_possible(scene: Scene) -> bool:
    try:
        check(scene)
    except ValueError:
        return False
    return True


def _check_name(what: str, name: str, allowed: Collection[str]) -> None:
    if name not in allowed:
        raise ValueError(f"unknown {what} {name!r}; known are {', '.join(allowed)}")


def _check_group(group: Group, alone: bool) -> None:
    _check_name("kind", group.kind, OBJECTS)
    _check_name("size", group.size, SIZES)
    _check_name("place", group.place, PLACES)
    if group.colour is not None:
        _check_name("colour", group.colour, COLOURS)
        if not OBJECTS[group.kind].recolourable:
            raise ValueError(f"a {group.kind} has natural colours only, got {group.colour!r}; leave the colour out")
    if not 1 <= group.count <= MAX_COUNT:
        raise ValueError(f"a group has 1 to {MAX_COUNT} things, got {group.count}")
    if group.count > 1 and alone:
        if group.place != "center" or group.size == "large":
            raise ValueError(
                f"{group.count} things alone in a picture are small or medium, at the place 'center', "
                f"got {group.size} at {group.place!r}"
            )
    elif group.count > 1 and (
        group.count > MAX_STACK or group.size != "small" or group.place not in ("left", "right", "top", "bottom")
    ):
        raise ValueError(
            f"beside other groups, 2 to {MAX_STACK} things are small and at the left, right, top or bottom, "
            f"got {group.count} {group.size} at {group.place!r}"
        )


def _check_overlap(scene: Scene) -> None:
    placed = slots(scene)
    for i, first in enumerate(placed):
        for j in range(i):
            if any(_overlap(a, b) for a in first for b in placed[j]):
                a, b = scene.groups[j], scene.groups[i]
                raise ValueError(
                    f"the {a.size} {a.kind} at {a.place!r} and the {b.size} {b.kind} at {b.place!r} would overlap; "
                    "choose smaller sizes or places further apart"
                )


def _overlap(a: Slot, b: Slot) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
