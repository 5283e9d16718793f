"""Dense labels of a storybook picture: class numbers per cell, which pretrain the ViT before any language training.

Cells are the merged patches of the ViT: squares of 8 px on a picture of 64. A cell has the thing that covers most of
it, or none if no thing covers a quarter; every cell has the style and the background of the whole picture.
"""

from __future__ import annotations

import numpy as np

from data_recipes.storybook.drawing.render import boxes, sprite_of
from data_recipes.storybook.language.wording import COUNT_WORDS
from data_recipes.storybook.world.layout import shown_colour
from data_recipes.storybook.world.scene import MAX_COUNT, SIZES, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES

MIN_COVER = 0.25
# 0 is nothing in the first four, natural colours too in "colour"
CLASSES: dict[str, int] = {
    "kind": 1 + len(OBJECTS),
    "colour": 1 + len(COLOURS),
    "size": 1 + len(SIZES),
    "count": 1 + MAX_COUNT,
    "background": len(BACKGROUNDS),
    "style": len(STYLES),
}
# what our captions call each class; None where they say nothing
WORDS: dict[str, tuple[str | None, ...]] = {
    "kind": (None, *OBJECTS),
    "colour": (None, *COLOURS),
    "size": (None, *(None if size == "medium" else size for size in SIZES)),
    "count": (None, None, *COUNT_WORDS[2 : MAX_COUNT + 1]),
    "background": tuple(None if name == "plain" else name for name in BACKGROUNDS),
    "style": tuple(None if name == "storybook" else look.phrases[0] for name, look in STYLES.items()),
}
_NUMBER = {
    "kind": {name: 1 + i for i, name in enumerate(OBJECTS)},
    "colour": {name: 1 + i for i, name in enumerate(COLOURS)},
    "size": {name: 1 + i for i, name in enumerate(SIZES)},
    "background": {name: i for i, name in enumerate(BACKGROUNDS)},
    "style": {name: i for i, name in enumerate(STYLES)},
}


def cell_labels(scene: Scene, resolution: int = 64, cells: int = 8) -> dict[str, np.ndarray]:
    """For every name in CLASSES, class numbers int64 "cells cells".

    Raises:
        ValueError: an impossible scene, or a picture that does not fall into so many cells.
    """
    if resolution % cells:
        raise ValueError(f"a picture of {resolution} px does not fall into {cells} x {cells} cells")
    labels = {name: np.zeros((cells, cells), dtype=np.int64) for name in CLASSES}
    labels["background"][:] = _NUMBER["background"][scene.background]
    labels["style"][:] = _NUMBER["style"][scene.style]
    side = resolution // cells
    most = np.full((cells, cells), MIN_COVER)
    for group, things in zip(scene.groups, boxes(scene, resolution), strict=True):
        alpha = sprite_of(group, resolution)[..., 3]
        colour = shown_colour(group.kind, group.colour)
        for x0, y0, x1, y1 in things:
            mask = np.zeros((resolution, resolution))
            mask[y0:y1, x0:x1] = alpha
            cover = mask.reshape(cells, side, cells, side).mean(axis=(1, 3))
            shown = cover >= most
            most = np.maximum(most, cover)
            labels["kind"][shown] = _NUMBER["kind"][group.kind]
            labels["colour"][shown] = 0 if colour is None else _NUMBER["colour"][colour]
            labels["size"][shown] = _NUMBER["size"][group.size]
            labels["count"][shown] = group.count
    return labels
