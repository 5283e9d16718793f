"""Build atlas.png from the Noto Color Emoji font:
`python -m data_recipes.storybook.drawing.build_atlas NotoColorEmoji.ttf`.

The font (Debian: fonts-noto-color-emoji) is needed by this script only.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from data_recipes.storybook.drawing.atlas import ATLAS_PATH, CELL, COLUMNS, INDEX_PATH
from data_recipes.storybook.world.vocabulary import OBJECTS

STRIKE = 109  # the one bitmap size in the font
CANVAS = 192


def draw_glyph(font: ImageFont.FreeTypeFont, glyph: str) -> Image.Image:
    """The glyph, trimmed and fitted into a cell (RGBA).

    Raises:
        ValueError: the font draws nothing for this glyph.
    """
    canvas = Image.new("RGBA", (CANVAS, CANVAS))
    ImageDraw.Draw(canvas).text((16, 16), glyph, font=font, embedded_color=True)
    box = canvas.getchannel("A").point(lambda alpha: 255 * (alpha > 24)).getbbox()
    if box is None:
        raise ValueError(f"the font has no drawing of {glyph!r}; a newer font or another glyph is needed")
    drawing = canvas.crop(box)
    scale = CELL / max(drawing.size)
    width, height = (max(1, round(length * scale)) for length in drawing.size)
    # Premultiplied, else the transparent surroundings darken the edge.
    fitted = drawing.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(fitted, ((CELL - width) // 2, (CELL - height) // 2))
    return cell


def build(font_path: Path) -> None:
    """Write the picture and the list of its names beside this file."""
    font = ImageFont.truetype(str(font_path), STRIKE)
    kinds = [kind for kind in OBJECTS.values() if kind.glyph]
    rows = -(-len(kinds) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for i, kind in enumerate(kinds):
        row, column = divmod(i, COLUMNS)
        sheet.paste(draw_glyph(font, kind.glyph or ""), (column * CELL, row * CELL))
    sheet.save(ATLAS_PATH, optimize=True)
    INDEX_PATH.write_text(json.dumps([kind.name for kind in kinds], indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("font", type=Path, help="NotoColorEmoji.ttf with colour bitmaps")
    build(parser.parse_args().font)
