"""Scene in, picture out. Positions and looks follow from names alone: equal scenes give equal pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_recipes.storybook.drawing.backgrounds import background
from data_recipes.storybook.drawing.sprites import sprite
from data_recipes.storybook.drawing.styles import apply_style
from data_recipes.storybook.world.layout import PICTURE_SIDE, SIDE, check, shown_colour, slots
from data_recipes.storybook.world.scene import Group, Scene

__all__ = ["Box", "boxes", "check", "paint", "render", "sprite_of"]

Box = tuple[int, int, int, int]


def render(scene: Scene, resolution: int = 64) -> Image.Image:
    """The RGB picture of a scene, `resolution` x `resolution` px.

    Raises:
        ValueError: the scene is impossible (see `check`) or the resolution is not a positive multiple of 32.
    """
    check(scene)
    return Image.fromarray(apply_style(scene.style, paint(scene, resolution)))


def boxes(scene: Scene, resolution: int = 64) -> list[list[Box]]:
    """Where each thing is painted, rim included: per group, per thing, x0, y0, x1, y1 in px (end exclusive).

    Raises:
        ValueError: as `render`.
    """
    check(scene)
    return _boxes(scene, _checked(resolution))


def paint(scene: Scene, resolution: int = 64) -> np.ndarray:
    """The picture before its style, uint8 "resolution resolution 3"; the scene is taken as possible.

    Raises:
        ValueError: the resolution is not a positive multiple of 32.
    """
    canvas = background(scene.background, _checked(resolution)).copy()
    for group, things in zip(scene.groups, _boxes(scene, resolution), strict=True):
        painted = sprite_of(group, resolution)
        for x0, y0, x1, y1 in things:
            window = canvas[y0:y1, x0:x1]
            window *= 1.0 - painted[..., 3:]
            window += painted[..., :3]
    return (canvas + 0.5).clip(0, 255).astype(np.uint8)


def sprite_of(group: Group, resolution: int = 64) -> np.ndarray:
    """One thing of the group as it is painted (see `sprites.sprite`)."""
    scale = resolution / PICTURE_SIDE
    return sprite(
        group.kind, shown_colour(group.kind, group.colour), round(SIDE[group.size] * scale), max(1, round(scale))
    )


def _boxes(scene: Scene, resolution: int) -> list[list[Box]]:
    result = []
    for group, group_slots in zip(scene.groups, slots(scene), strict=True):
        height, width = sprite_of(group, resolution).shape[:2]
        result.append([_fitted(slot, height, width, resolution / PICTURE_SIDE) for slot in group_slots])
    return result


def _fitted(slot: tuple[int, int, int, int], height: int, width: int, scale: float) -> Box:
    """A box of the given size in the middle of the slot."""
    x0 = round((slot[0] + slot[2]) / 2 * scale) - width // 2
    y0 = round((slot[1] + slot[3]) / 2 * scale) - height // 2
    return x0, y0, x0 + width, y0 + height


def _checked(resolution: int) -> int:
    if resolution < 32 or resolution % 32:
        raise ValueError(f"the resolution is a multiple of 32 px, got {resolution}")
    return resolution
