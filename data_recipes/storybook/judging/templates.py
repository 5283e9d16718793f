"""The judge's templates: empty pictures in all looks, and every thing in every colour, size and style.

The wide search runs on pictures of half size (32 px), where a step is two pixels of the picture and a block of the
pixel art. With picture I, empty picture B, residual R = I - B and a thing painted as a T + (1 - a) B (a = alpha), the
gain of explaining a window by the thing is the sum over |R|^2 - |R - a (T - B)|^2. It splits into matrix products
(`Bank.gains`).

Shape legend: P positions, L looks (kind and colour), K kinds, D = 3 s s values of a window, s side of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from data_recipes.storybook.drawing.backgrounds import background
from data_recipes.storybook.drawing.render import sprite_of
from data_recipes.storybook.drawing.styles import apply_style
from data_recipes.storybook.world.layout import PICTURE_SIDE, SIDE, shown_colour
from data_recipes.storybook.world.scene import SIZES, Group
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES

_GREY = 190  # the picture on which things take on a style


@lru_cache(maxsize=1)
def looks() -> tuple[tuple[str, str | None], ...]:
    """All distinct (kind, painted colour)."""
    result: dict[tuple[str, str | None], None] = {}
    for kind in OBJECTS.values():
        result[kind.name, shown_colour(kind.name, None)] = None
        if kind.recolourable:
            result.update({(kind.name, colour): None for colour in COLOURS})
    return tuple(result)


def halved(picture: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 px: "h w c" -> float32 "h/2 w/2 c"."""
    picture = picture.astype(np.float32)
    return (picture[::2, ::2] + picture[1::2, ::2] + picture[::2, 1::2] + picture[1::2, 1::2]) / 4


@lru_cache(maxsize=1)
def empty_pictures() -> tuple[tuple[tuple[str, str], ...], np.ndarray]:
    """The names (background, style) of all empty pictures, and the pictures at half size, float32 "60 32 32 3"."""
    names = tuple((name, style) for name in BACKGROUNDS for style in STYLES)
    return names, np.stack([halved(empty_picture(*name)) for name in names])


@lru_cache(maxsize=128)
def empty_picture(name: str, style: str) -> np.ndarray:
    """A picture without things, uint8 "64 64 3"."""
    return apply_style(style, (background(name, PICTURE_SIDE) + 0.5).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class SizeBank:
    """All things in one size and style, at half resolution. `a T` of the module docstring is `painted_LD`."""

    painted_LD: Tensor
    alpha_painted_LD: Tensor
    energy_L: Tensor
    alpha_KS: Tensor
    alpha_squared_KS: Tensor
    kind_of_look: Tensor  # "L", rows of the alpha tables
    side: int  # of the window, half resolution


class Bank:
    """The things of one style in three sizes, and their gains on a picture."""

    def __init__(self, style: str) -> None:
        self.style = style
        self.sizes = tuple(_size_bank(style, size) for size in SIZES)
        self._constants: dict[str, tuple[Tensor, ...]] = {}

    def gains(self, picture: np.ndarray, name: str) -> list[Tensor]:
        """Per size, the gain "P L" of every thing at every position of a half-size picture on the background `name`."""
        empty = halved(empty_picture(name, self.style))
        residual = picture - empty
        cross = (residual * empty).sum(axis=-1, keepdims=True)
        result = []
        for bank, constant in zip(self.sizes, self._constant(name, empty), strict=True):
            overlap_PL = 2 * _windows(residual, bank.side) @ bank.painted_LD.T
            shadow_PK = 2 * _windows(cross, bank.side) @ bank.alpha_KS.T
            result.append(overlap_PL - shadow_PK[:, bank.kind_of_look] + constant)
        return result

    def _constant(self, name: str, empty: np.ndarray) -> tuple[Tensor, ...]:
        """The part of the gain that does not depend on the picture, per size, once per background."""
        if name not in self._constants:
            squares = (empty * empty).sum(axis=-1, keepdims=True)
            self._constants[name] = tuple(
                2 * _windows(empty, bank.side) @ bank.alpha_painted_LD.T
                - (_windows(squares, bank.side) @ bank.alpha_squared_KS.T)[:, bank.kind_of_look]
                - bank.energy_L
                for bank in self.sizes
            )
        return self._constants[name]


def _windows(picture: np.ndarray, side: int) -> Tensor:
    """All windows of a picture "32 32 c" as rows "P (s s c)"."""
    views = np.lib.stride_tricks.sliding_window_view(picture, (side, side), axis=(0, 1))  # "y x c s s"
    count = views.shape[0] * views.shape[1]
    return torch.from_numpy(np.ascontiguousarray(views.transpose(0, 1, 3, 4, 2)).reshape(count, -1))


def _size_bank(style: str, size: str) -> SizeBank:
    styled_grey = halved(apply_style(style, np.full((PICTURE_SIDE, PICTURE_SIDE, 3), _GREY, dtype=np.uint8)))
    painted, alphas = [], []
    for kind, colour in looks():
        alpha, picture = _on_grey(Group(kind, colour=colour, size=size))
        half_alpha = halved(alpha)
        painted.append(halved(apply_style(style, picture)) - (1 - half_alpha) * styled_grey)
        alphas.append(half_alpha)
    start, stop = (PICTURE_SIDE - SIDE[size]) // 4, (PICTURE_SIDE + SIDE[size]) // 4
    cut = (slice(None), slice(start, stop), slice(start, stop))
    painted_LD, alpha_LS = np.stack(painted)[cut], np.stack(alphas)[cut]
    kinds = list(dict.fromkeys(kind for kind, _ in looks()))
    first = [next(i for i, look in enumerate(looks()) if look[0] == kind) for kind in kinds]
    flat = painted_LD.reshape(len(painted_LD), -1)
    return SizeBank(
        painted_LD=torch.from_numpy(flat.copy()),
        alpha_painted_LD=torch.from_numpy((painted_LD * alpha_LS).reshape(len(flat), -1)),
        energy_L=torch.from_numpy((flat * flat).sum(axis=1)),
        alpha_KS=torch.from_numpy(alpha_LS[first].reshape(len(kinds), -1)),
        alpha_squared_KS=torch.from_numpy((alpha_LS[first] ** 2).reshape(len(kinds), -1)),
        kind_of_look=torch.tensor([kinds.index(kind) for kind, _ in looks()]),
        side=stop - start,
    )


def _on_grey(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Alpha "64 64 1" and picture "64 64 3" of one thing in the middle of a grey picture."""
    thing = sprite_of(group)
    height, width = thing.shape[:2]
    rows = slice(PICTURE_SIDE // 2 - height // 2, PICTURE_SIDE // 2 - height // 2 + height)
    columns = slice(PICTURE_SIDE // 2 - width // 2, PICTURE_SIDE // 2 - width // 2 + width)
    alpha = np.zeros((PICTURE_SIDE, PICTURE_SIDE, 1), dtype=np.float32)
    alpha[rows, columns] = thing[..., 3:]
    picture = np.full((PICTURE_SIDE, PICTURE_SIDE, 3), _GREY, dtype=np.float32) * (1 - alpha)
    picture[rows, columns] += thing[..., :3]
    return alpha, (picture + 0.5).astype(np.uint8)
