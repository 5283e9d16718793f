"""The drawings of things with a glyph: one picture of 64 px cells, kept beside this file (see ATLAS_LICENSE).

Cell i, in reading order, belongs to the i-th thing with a glyph of the list stored beside the picture.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from PIL import Image

CELL = 64
COLUMNS = 16
ATLAS_PATH = Path(__file__).with_name("atlas.png")
INDEX_PATH = Path(__file__).with_name("atlas.json")


@cache
def names() -> tuple[str, ...]:
    """The names of the cells in reading order."""
    return tuple(json.loads(INDEX_PATH.read_text(encoding="utf-8")))


@cache
def _sheet() -> Image.Image:
    with Image.open(ATLAS_PATH) as picture:
        return picture.convert("RGBA")


def drawing(name: str) -> Image.Image:
    """The RGBA drawing of a thing, trimmed to what is painted.

    Raises:
        ValueError: the atlas has no such thing; it must be built again after the vocabulary has changed.
    """
    if name not in names():
        raise ValueError(f"the atlas has no drawing of {name!r}; run build_atlas.py after changing the vocabulary")
    row, column = divmod(names().index(name), COLUMNS)
    cell = _sheet().crop((column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL))
    return cell.crop(cell.getchannel("A").getbbox())
