"""Things as sprites: fitted to their size, recoloured, with a rim that sets them off from any background.

A sprite is a float32 array "h w 4", colour premultiplied (0-255), alpha 0-1 in the last channel.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from data_recipes.storybook.drawing import atlas
from data_recipes.storybook.drawing.shapes import OUTLINES, draw_shape
from data_recipes.storybook.world.vocabulary import COLOURS

LIGHT_RIM = (255, 253, 246)
DARK_RIM = (92, 92, 112)
DARK_RIM_FROM = 205  # mean luma of a thing too light for a light rim
_ALL_OVER = frozenset({"puzzle piece", "sweet"})  # of many hues, but recoloured as a whole
RIM_STRENGTH = 0.85
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@lru_cache(maxsize=16384)
def sprite(kind: str, colour: str | None, side: int, rim: int = 1) -> np.ndarray:
    """A thing whose larger dimension, with the rim, is `side` px; `colour` None = as in the atlas."""
    picture = _source(kind, colour)
    scale = max(side - 2 * rim, 1) / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    fitted = picture.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS, reducing_gap=None)
    padded = Image.new("RGBa", (width + 2 * rim, height + 2 * rim))
    padded.paste(fitted, (rim, rim))
    painted = np.asarray(padded, dtype=np.float32)
    painted = np.concatenate([painted[..., :3], painted[..., 3:] / 255.0], axis=-1)
    result = _over_rim(painted, padded.getchannel("a"), rim) if rim else painted
    result.setflags(write=False)
    return result


def _over_rim(painted: np.ndarray, alpha: Image.Image, rim: int) -> np.ndarray:
    """The sprite on top of its own shadow in the rim colour, grown by `rim` px."""
    grown = alpha
    for _ in range(rim):
        grown = grown.filter(ImageFilter.MaxFilter(3))
    grown = ImageChops.lighter(alpha, grown)
    rim_alpha = np.asarray(grown, dtype=np.float32)[..., None] / 255.0 * RIM_STRENGTH
    mean_luma = float((painted[..., :3] @ _LUMA).sum() / painted[..., 3].sum())
    rim_colour = DARK_RIM if mean_luma >= DARK_RIM_FROM else LIGHT_RIM
    under = np.concatenate([np.array(rim_colour, dtype=np.float32) * rim_alpha, rim_alpha], axis=-1)
    return painted + under * (1.0 - painted[..., 3:])


@lru_cache(maxsize=4096)
def _source(kind: str, colour: str | None) -> Image.Image:
    """The full-size RGBA drawing in its colour."""
    if kind in OUTLINES:
        drawn = draw_shape(kind, COLOURS[colour or "red"], atlas.CELL)
        return drawn.crop(drawn.getchannel("A").getbbox())
    drawing = atlas.drawing(kind)
    return drawing if colour is None else recolour(drawing, colour, all_over=kind in _ALL_OVER)


def recolour(drawing: Image.Image, colour: str, all_over: bool = False) -> Image.Image:
    """Give the parts in the main hue (or all, where little is saturated) the colour; shading and other hues stay."""
    rgba = np.asarray(drawing, dtype=np.float32)
    rgb, alpha = rgba[..., :3], rgba[..., 3]
    weight = np.ones_like(alpha) if all_over else _main_hue_weight(drawing, alpha)
    luma = rgb @ _LUMA
    mass = weight * alpha
    shade = luma / max(float((luma * mass).sum() / mass.sum()), 1.0)
    target = np.array(COLOURS[colour], dtype=np.float32)
    # Black and white keep their meaning only if light and dark parts stay close to them.
    contrast, lift = {"black": (0.8, 0.25), "white": (0.65, 1.0)}.get(colour, (0.8, 0.5))
    shade = (1.0 + (shade - 1.0) * contrast)[..., None]
    dark = target * np.clip(shade, 0.0, 1.0)
    light = (255.0 - target) * np.clip(shade - 1.0, 0.0, 1.0) * lift
    mixed = rgb + (dark + light - rgb) * weight[..., None]
    return Image.fromarray(np.concatenate([mixed, alpha[..., None]], axis=-1).clip(0, 255).astype(np.uint8), "RGBA")


def _main_hue_weight(drawing: Image.Image, alpha: np.ndarray) -> np.ndarray:
    """How much each pixel takes the new colour, 0-1 "h w"."""
    hsv = np.asarray(drawing.convert("RGB").convert("HSV"), dtype=np.float32)
    hue, saturation, value = hsv[..., 0] * (360 / 256), hsv[..., 1] / 255, hsv[..., 2] / 255
    vivid = (alpha > 128) & (saturation > 0.35) & (value > 0.25)
    if vivid.sum() < 0.25 * (alpha > 128).sum():
        return np.ones_like(alpha)
    histogram = np.bincount((hue[vivid] // 15).astype(int), weights=saturation[vivid] * value[vivid], minlength=24)
    smooth = histogram + 0.7 * (np.roll(histogram, 1) + np.roll(histogram, -1))
    main = smooth.argmax() * 15 + 7.5
    distance = np.abs((hue - main + 180) % 360 - 180)
    near = np.clip((66.0 - distance) / 12.0, 0.0, 1.0)
    return near * np.clip((saturation - 0.12) / 0.2, 0.0, 1.0)
