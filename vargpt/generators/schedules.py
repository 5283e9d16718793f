"""What every next-scale generator derives from a layout: the block-causal mask, level ids, and 2-D positions.

In: an `ImageLayout`. Out: tensors over its L tokens, scales concatenated coarse to fine, row-major inside a scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vargpt.types import ImageLayout


def level_ids(layout: ImageLayout, device: torch.device | str = "cpu") -> Int[Tensor, " L"]:
    """The scale index of every token."""
    sizes = torch.tensor([h * w for h, w in layout.scales], device=device)
    return torch.repeat_interleave(torch.arange(layout.num_scales, device=device), sizes)


def block_causal_mask(layout: ImageLayout, device: torch.device | str = "cpu") -> Bool[Tensor, "L L"]:
    """True where a query (row) may attend a key: same scale or a coarser one (VAR, arXiv 2404.02905, section 3.2)."""
    levels = level_ids(layout, device)
    return levels[:, None] >= levels[None, :]


def positions_2d(layout: ImageLayout, grid: float, device: torch.device | str = "cpu") -> Float[Tensor, "L 2"]:
    """The (y, x) centre of every token in one page coordinate system shared by all scales.

    The longer side of the picture spans `grid` units, so a coarse token and the fine tokens under it lie at the same
    place, whatever the aspect. (Infinity instead rounds corner positions onto its 1M-pixel grid.)
    """
    longest = max(layout.height, layout.width)
    span_y, span_x = grid * layout.height / longest, grid * layout.width / longest
    positions = []
    for h, w in layout.scales:
        y = (torch.arange(h, device=device) + 0.5) * (span_y / h)
        x = (torch.arange(w, device=device) + 0.5) * (span_x / w)
        positions.append(torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(h * w, 2))
    return torch.cat(positions)


def grid_positions(height: int, width: int, grid: float, device: torch.device | str = "cpu") -> Float[Tensor, "l 2"]:
    """`positions_2d` of a single grid of tokens (source latents in the decoder memory)."""
    return positions_2d(ImageLayout(height, width, ((height, width),)), grid, device)


def corner_positions_2d(layout: ImageLayout, device: torch.device | str = "cpu") -> Float[Tensor, "L 2"]:
    """The (y, x) of every token, rounded (half to even) onto `layout.position_grid`, as Infinity's weights expect.

    Raises:
        ValueError: the layout names no grid.
    """
    if layout.position_grid is None:
        raise ValueError("these weights round positions onto a grid, but the layout has no position_grid")
    span_y, span_x = layout.position_grid
    positions = []
    for h, w in layout.scales:
        y = torch.round(torch.arange(h, device=device, dtype=torch.float64) * (span_y / h)).float()
        x = torch.round(torch.arange(w, device=device, dtype=torch.float64) * (span_x / w)).float()
        positions.append(torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(h * w, 2))
    return torch.cat(positions)


# Infinity's schedules by height / width (its "dynamic resolution" table); the first 7, 10, 12 or all 13 scales draw
# pictures of about 0.06, 0.25, 0.60 or 1 million pixels with cells of 16 pixels. Wide ones are the transpose.
_TALL_SCHEDULES: dict[float, str] = {
    1.0: "1x1 2x2 4x4 6x6 8x8 12x12 16x16 20x20 24x24 32x32 40x40 48x48 64x64",
    1.25: "1x1 2x2 3x3 5x4 10x8 15x12 20x16 25x20 30x24 35x28 45x36 55x44 70x56",
    1.333: "1x1 2x2 4x3 8x6 12x9 16x12 20x15 24x18 28x21 36x27 48x36 60x45 72x54",
    1.5: "1x1 2x2 3x2 6x4 9x6 15x10 21x14 27x18 33x22 39x26 48x32 63x42 78x52",
    1.75: "1x1 2x2 3x3 7x4 11x6 14x8 21x12 28x16 35x20 42x24 56x32 70x40 84x48",
    2.0: "1x1 2x2 4x2 6x3 10x5 16x8 22x11 30x15 38x19 46x23 60x30 74x37 90x45",
    2.5: "1x1 2x2 5x2 10x4 15x6 20x8 25x10 30x12 40x16 50x20 65x26 80x32 100x40",
    3.0: "1x1 2x2 6x2 9x3 15x5 21x7 27x9 36x12 45x15 54x18 72x24 90x30 111x37",
}
INFINITY_LENGTHS = {"0.06M": 7, "0.25M": 10, "0.60M": 12, "1M": 13}


def infinity_schedules(stride: int = 16, sizes: Sequence[str] = tuple(INFINITY_LENGTHS)) -> dict[str, list[list[int]]]:
    """Every published size as "HEIGHTxWIDTH" in pixels and its scales, for `VargptConfig.scale_schedules`."""
    schedules = {}
    for text in _TALL_SCHEDULES.values():
        tall = [[int(side) for side in scale.split("x")] for scale in text.split()]
        for scales in (tall, [[w, h] for h, w in tall]):
            for size in sizes:
                part = scales[: INFINITY_LENGTHS[size]]
                schedules[f"{part[-1][0] * stride}x{part[-1][1] * stride}"] = part
    return schedules
