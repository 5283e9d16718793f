"""The ten backgrounds: flat bands and a few simple forms, pale enough that things stand out."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 4
_Colour = tuple[int, int, int]


class _Canvas:
    """Pillow's pen with lengths in units of a 64 px picture."""

    def __init__(self, resolution: int, colour: _Colour) -> None:
        side = resolution * SUPERSAMPLING
        self.scale = side / 64
        self.picture = Image.new("RGB", (side, side), colour)
        self.draw = ImageDraw.Draw(self.picture)

    def area(self, points: list[tuple[float, float]], colour: _Colour) -> None:
        self.draw.polygon([(x * self.scale, y * self.scale) for x, y in points], fill=colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: _Colour) -> None:
        s = self.scale
        self.draw.rectangle((x0 * s, y0 * s, x1 * s - 1, y1 * s - 1), fill=colour)

    def oval(self, x0: float, y0: float, x1: float, y1: float, colour: _Colour) -> None:
        s = self.scale
        self.draw.ellipse((x0 * s, y0 * s, x1 * s - 1, y1 * s - 1), fill=colour)

    def wave(self, level: float, height: float, length: float, shift: float, colour: _Colour) -> None:
        """Everything below a sine curve."""
        curve = [(x, level + height * math.sin(2 * math.pi * (x - shift) / length)) for x in range(0, 66)]
        self.area([*curve, (66, 66), (-2, 66)], colour)


def _plain(canvas: _Canvas) -> None:
    canvas.box(0, 0, 64, 64, (240, 232, 214))


def _meadow(canvas: _Canvas) -> None:
    canvas.box(0, 0, 64, 64, (176, 216, 240))
    canvas.wave(34, 3, 64, 10, (158, 206, 120))
    canvas.wave(46, 3, 80, 44, (136, 192, 98))


def _forest(canvas: _Canvas) -> None:
    canvas.box(0, 0, 64, 64, (190, 212, 186))
    for i, x in enumerate(range(2, 68, 10)):
        top = 2 if i % 2 else 9
        canvas.area([(x, top), (x + 8, 44), (x - 8, 44)], (128, 166, 134) if i % 2 else (142, 178, 146))
    canvas.wave(42, 1, 40, 0, (104, 136, 88))


def _beach(canvas: _Canvas) -> None:
    canvas.box(0, 0, 64, 64, (196, 230, 246))
    canvas.box(0, 22, 64, 40, (92, 178, 208))
    canvas.wave(38, 2, 32, 6, (238, 248, 248))
    canvas.wave(40, 2, 32, 6, (238, 216, 160))


def _sea(canvas: _Canvas) -> None:
    for i in range(8):
        canvas.box(0, i * 8, 64, i * 8 + 8, (88 - 6 * i, 176 - 10 * i, 208 - 8 * i))
    canvas.wave(57, 2, 50, 20, (196, 182, 138))
    for x, y, r in ((6, 30, 2), (10, 20, 1.5), (57, 36, 2), (54, 14, 1.5), (30, 6, 1.5)):
        canvas.oval(x - r, y - r, x + r, y + r, (150, 212, 230))


def _desert(canvas: _Canvas) -> None:
    canvas.box(0, 0, 64, 64, (250, 226, 178))
    canvas.wave(36, 5, 70, 20, (228, 178, 112))
    canvas.wave(50, 4, 60, 50, (214, 158, 92))


def _snow(canvas: _Canvas) -> None:
    canvas.box(0, 0, 64, 64, (176, 194, 216))
    canvas.wave(38, 3, 64, 40, (226, 234, 244))
    canvas.wave(52, 3, 70, 10, (210, 221, 236))
    for i in range(20):
        x, y = (i * 37 + i * i * 5 + 5) % 64, (i * 19 + 3) % 36
        canvas.oval(x - 1, y - 1, x + 1, y + 1, (240, 246, 252))


def _mountains(canvas: _Canvas) -> None:
    canvas.box(0, 0, 64, 64, (206, 226, 240))
    for x, top, half, colour in ((14, 12, 26, (152, 158, 182)), (48, 8, 28, (136, 144, 172))):
        slope = (52 - top) / half
        canvas.area([(x, top), (x + half, 52), (x - half, 52)], colour)
        canvas.area([(x, top), (x + 10 / slope, top + 10), (x, top + 7), (x - 10 / slope, top + 10)], (240, 244, 250))
    canvas.wave(50, 1.5, 50, 0, (142, 172, 124))


def _city(canvas: _Canvas) -> None:
    canvas.box(0, 0, 64, 64, (224, 214, 220))
    for x0, x1, top in ((0, 9, 20), (9, 17, 8), (17, 27, 26), (27, 36, 14), (36, 46, 24), (46, 55, 6), (55, 64, 18)):
        canvas.box(x0, top, x1, 54, (180, 172, 190) if x0 % 2 else (166, 160, 180))
        for wx in range(x0 + 2, x1 - 2, 3):
            for wy in range(top + 3, 50, 6):
                canvas.box(wx, wy, wx + 1.5, wy + 2.5, (222, 208, 172))
    canvas.box(0, 52, 64, 64, (138, 138, 148))
    canvas.box(0, 57, 64, 58.5, (206, 206, 206))


def _night(canvas: _Canvas) -> None:
    canvas.box(0, 0, 64, 64, (34, 42, 84))
    for i in range(22):
        x, y = (i * 29 + i * i * 3 + 6) % 64, (i * 13 + 4) % 46
        canvas.box(x, y, x + 1, y + 1, (240, 236, 190))
    canvas.wave(50, 3, 64, 30, (30, 62, 70))


_PAINTERS = {
    "plain": _plain,
    "meadow": _meadow,
    "forest": _forest,
    "beach": _beach,
    "sea": _sea,
    "desert": _desert,
    "snow": _snow,
    "mountains": _mountains,
    "city": _city,
    "night": _night,
}


@lru_cache(maxsize=64)
def background(name: str, resolution: int) -> np.ndarray:
    """The empty picture as float32 "resolution resolution 3", 0-255, read-only."""
    canvas = _Canvas(resolution, (255, 255, 255))
    _PAINTERS[name](canvas)
    painted = np.asarray(canvas.picture.resize((resolution, resolution), Image.Resampling.BOX), dtype=np.float32)
    painted.setflags(write=False)
    return painted
