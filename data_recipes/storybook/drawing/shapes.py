"""Plain shapes and the ball, drawn by code: a flat colour with a darker edge."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

SUPERSAMPLING = 4
_ARROW = [(0.02, 0.35), (0.5, 0.35), (0.5, 0.08), (0.98, 0.5), (0.5, 0.92), (0.5, 0.65), (0.02, 0.65)]
_CROSS = [(0.35, 0), (0.65, 0), (0.65, 0.35), (1, 0.35), (1, 0.65), (0.65, 0.65)]
_CROSS += [(1 - x, 1 - y) for x, y in _CROSS]


def _around(corners: int, inner: float = 1.0) -> list[tuple[float, float]]:
    """Corners on a circle, the first at the top; every second one at the radius `inner`."""
    angles = [(2 * math.pi * i / corners, inner if i % 2 else 1.0) for i in range(corners)]
    return [(0.5 + 0.5 * r * math.sin(a), 0.5 - 0.5 * r * math.cos(a)) for a, r in angles]


def _heart() -> list[tuple[float, float]]:
    angles = [2 * math.pi * i / 80 for i in range(80)]
    xs = [16 * math.sin(a) ** 3 for a in angles]
    ys = [13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a) for a in angles]
    return [(0.5 + x / 33, 0.46 - y / 33) for x, y in zip(xs, ys, strict=True)]


OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": _around(72),
    "ball": _around(72),
    "ring": _around(72),
    "square": [(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)],
    "triangle": [(0.5, 0.04), (1, 0.94), (0, 0.94)],
    "star": _around(10, inner=0.42),
    "heart": _heart(),
    "diamond": [(0.5, 0), (0.85, 0.5), (0.5, 1), (0.15, 0.5)],
    "hexagon": _around(6),
    "cross": _CROSS,
    "arrow": _ARROW,
}


def draw_shape(name: str, colour: tuple[int, int, int], side: int) -> Image.Image:
    """An RGBA picture of `side` x `side` px, the shape touching its borders.

    Raises:
        KeyError: not a name in OUTLINES.
    """
    big = side * SUPERSAMPLING
    picture = Image.new("RGBA", (big, big), (*_edge(colour), 0))
    draw = ImageDraw.Draw(picture)
    edge = round(big * 0.05)
    inner = big - 2 * edge  # the edge line is drawn on the outline, half of it outside
    points = [(edge + x * inner, edge + y * inner) for x, y in OUTLINES[name]]
    draw.polygon(points, fill=(*colour, 255))
    if name == "ball":
        _draw_gores(draw, big, colour)
    if name == "ring":
        hole = [(big / 2 + (x - 0.5) * inner * 0.5, big / 2 + (y - 0.5) * inner * 0.5) for x, y in OUTLINES[name]]
        draw.polygon(hole, fill=(*_edge(colour), 0))
        draw.line([*hole, hole[0], hole[1]], fill=(*_edge(colour), 255), width=edge, joint="curve")
    draw.line([*points, points[0], points[1]], fill=(*_edge(colour), 255), width=2 * edge, joint="curve")
    return picture.resize((side, side), Image.Resampling.BOX)


def _draw_gores(draw: ImageDraw.ImageDraw, big: int, colour: tuple[int, int, int]) -> None:
    """Stripes of a beach ball: white gores, or grey ones where the ball itself is white."""
    other = (160, 165, 175) if min(colour) > 200 else (252, 252, 252)
    edge = round(big * 0.05)
    for start in (20, 140, 260):
        draw.pieslice((edge, edge, big - edge, big - edge), start, start + 60, fill=(*other, 255))
    low, high = big * 0.4, big * 0.6
    draw.ellipse((low, low, high, high), fill=(*_edge(colour), 255))


def _edge(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """A darker tone of the colour, and a lighter one of black, so that the edge shows."""
    if max(colour) < 80:
        return (95, 95, 105)
    red, green, blue = (round(value * 0.6) for value in colour)
    return (red, green, blue)
