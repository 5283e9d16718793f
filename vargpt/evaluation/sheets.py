"""Pictures for the eye: contact sheets with the request below each picture and whether it was counted as right."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PER_SHEET = 24
COLUMNS = 4
SIDE = 160  # px of one picture on the sheet
LINES, LINE = 3, 14
RIGHT, WRONG, PAPER, INK = (20, 130, 60), (190, 30, 40), (255, 255, 255), (30, 30, 30)


class Gallery:
    """Keeps the first cases of every category and writes one PNG for each.

    Args:
        folder: made if needed; `<category>.png` in it are written anew.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tiles: dict[str, list[Image.Image]] = defaultdict(list)

    def add(self, category: str, images: Sequence[Image.Image | None], text: str, right: bool) -> None:
        """One case: its pictures side by side (None = none was drawn) and what was said. Ignored on a full sheet."""
        if len(self._tiles[category]) < PER_SHEET:
            self._tiles[category].append(_tile(images, text, right))

    def save(self) -> list[Path]:
        """Writes all sheets and returns their paths."""
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for category, tiles in self._tiles.items():
            path = self.folder / f"{category}.png"
            _sheet(tiles).save(path)
            paths.append(path)
        return paths


def _tile(images: Sequence[Image.Image | None], text: str, right: bool) -> Image.Image:
    width, colour = SIDE * len(images), RIGHT if right else WRONG
    tile = Image.new("RGB", (width + 8, SIDE + LINES * LINE + LINE + 8), PAPER)
    pen, font = ImageDraw.Draw(tile), ImageFont.load_default(size=LINE - 3)
    for number, image in enumerate(images):
        left = 4 + number * SIDE
        if image is None:
            pen.text((left + 8, SIDE // 2), "no picture", fill=WRONG, font=font)
        else:
            tile.paste(image.convert("RGB").resize((SIDE - 2, SIDE - 2), Image.Resampling.NEAREST), (left + 1, 5))
    pen.rectangle((1, 1, width + 6, SIDE + 5), outline=colour, width=3)
    lines = textwrap.wrap(text, width=width // 6)[:LINES]
    pen.text((6, SIDE + 8), "\n".join(lines), fill=INK, font=font, spacing=2)
    pen.text((6, SIDE + 8 + LINES * LINE), "right" if right else "wrong", fill=colour, font=font)
    return tile


def _sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    columns = min(len(tiles), COLUMNS)
    width, height = max(tile.width for tile in tiles), tiles[0].height
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), PAPER)
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * width, number // columns * height))
    return sheet
