"""A scene: the complete description of one storybook picture by a few names.

A scene is a background, a style and one to three groups of equal things, each group at its own place. Everything that
can be seen follows from these names alone (there is no hidden randomness), so that a caption can determine a picture
and a picture can be judged against a caption. `layout.py` says where the things stand and which scenes are possible.
"""

from __future__ import annotations

from dataclasses import dataclass

SIZES = ("small", "medium", "large")  # 16, 24 and 32 px on a picture of 64 px
PLACES = (
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
MAX_COUNT = 5
MAX_GROUPS = 3


@dataclass(frozen=True)
class Group:
    """`count` equal things around one place. `colour` is None for natural colours, as for kinds that have no others."""

    kind: str  # a name in world.OBJECTS
    count: int = 1
    colour: str | None = None  # a name in world.COLOURS
    size: str = "medium"
    place: str = "center"


@dataclass(frozen=True)
class Scene:
    """A picture: groups (no two of one kind and colour), a background (world.BACKGROUNDS), a style (world.STYLES)."""

    groups: tuple[Group, ...]
    background: str = "plain"
    style: str = "storybook"
