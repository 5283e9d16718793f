"""What every next-scale generator derives from a layout: the block-causal mask, level ids, and 2-D positions.

In: an `ImageLayout`. Out: tensors over its L tokens, scales concatenated coarse to fine, row-major inside a scale.
"""

from __future__ import annotations

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
