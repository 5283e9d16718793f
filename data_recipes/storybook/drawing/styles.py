"""The six styles, each a function of the finished picture: uint8 "h w 3" in, uint8 "h w 3" out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def apply_style(style: str, picture: np.ndarray) -> np.ndarray:
    """The picture in a style of world.STYLES; "storybook" leaves it as it is."""
    return _STYLES[style](picture)


def _storybook(picture: np.ndarray) -> np.ndarray:
    return picture


def _pixel_art(picture: np.ndarray) -> np.ndarray:
    """Blocks of 2 x 2 px (at 64) in few, strong tones."""
    block = max(2, picture.shape[0] // 32)
    rows, columns = picture.shape[0] // block, picture.shape[1] // block
    small = picture.reshape(rows, block, columns, block, 3).mean(axis=(1, 3), dtype=np.float32)
    strong = (small - 128.0) * 1.2 + 128.0
    few = np.clip(np.round(strong / 42.5) * 42.5, 0, 255).astype(np.uint8)
    return few.repeat(block, axis=0).repeat(block, axis=1)


def _sepia(picture: np.ndarray) -> np.ndarray:
    luma = (picture.astype(np.float32) @ _LUMA)[..., None] / 255.0
    dark, light = np.array([52, 32, 14], dtype=np.float32), np.array([250, 226, 178], dtype=np.float32)
    return (dark + (light - dark) * luma).astype(np.uint8)


def _black_and_white(picture: np.ndarray) -> np.ndarray:
    luma = np.clip((picture.astype(np.float32) @ _LUMA - 128.0) * 1.1 + 128.0, 0, 255)
    return luma.astype(np.uint8)[..., None].repeat(3, axis=-1)


def _watercolour(picture: np.ndarray) -> np.ndarray:
    """Soft, washed-out colours that run into the white of a grainy paper."""
    wet = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(picture.shape[0] / 80))
    pale, paper = np.asarray(wet, dtype=np.float32), _paper(picture.shape[0])
    return np.clip((255.0 - (255.0 - pale) * 0.8 * paper[..., None]), 0, 255).astype(np.uint8)


@lru_cache(maxsize=8)
def _paper(side: int) -> np.ndarray:
    """How much paint the paper takes, about 0.8-1.2, and none at its rough border; float32 "side side"."""
    rng = np.random.default_rng(7)
    coarse = Image.fromarray(rng.normal(size=(16, 16)).astype(np.float32)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = np.asarray(coarse, dtype=np.float32) * 0.1
    position = (np.arange(side, dtype=np.float32) + 0.5) / side * 64
    margin = np.minimum(position, 64 - position)
    edge = np.minimum(margin[:, None], margin[None, :]) + grain * 12
    return ((1.0 + grain) * np.clip(edge / 3.0, 0.0, 1.0)).astype(np.float32)


def _pencil_sketch(picture: np.ndarray) -> np.ndarray:
    """Dark strokes along the edges and a light crayon tint, on white paper."""
    colour = picture.astype(np.float32)
    luma = colour @ _LUMA
    padded = np.pad(luma, 1, mode="edge")
    across = padded[1:-1, 2:] - padded[1:-1, :-2]
    down = padded[2:, 1:-1] - padded[:-2, 1:-1]
    stroke = np.clip((np.hypot(across, down) - 12.0) / 130.0, 0.0, 1.0) ** 0.7
    tint = 255.0 - (255.0 - colour) * 0.5
    return (tint * (1.0 - 0.85 * stroke[..., None])).astype(np.uint8)


_STYLES = {
    "storybook": _storybook,
    "pixel art": _pixel_art,
    "sepia": _sepia,
    "black and white": _black_and_white,
    "watercolour": _watercolour,
    "pencil sketch": _pencil_sketch,
}
