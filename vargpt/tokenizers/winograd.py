"""3x3 convolutions with fewer multiplications, for decoding in float32 on a CPU.

In: a convolution of padding 1. Out: a layer that computes the same from sums that are formed once for all filters.

- `WinogradConv`: four neighbouring results of a filter of three take twelve products, or six: minimal filtering
  F(4, 3), as used for convolutions by Lavin and Gray (arXiv 1509.09308). It goes along rows alone: sums are memory
  traffic, which a second direction would more than double, and kernels of three rows by one column are oneDNN's own.
- `DoubledConv`, for a picture whose rows and columns are doubled first: the results of one cell take 36 products, 16 on
  the small grid (`strips.doubled_conv`), or 9. A filter (a, b, c) sees (x, y, y) or (y, y, z): the results are
  (a + b + c) y, and beside that a or c times the difference of y from its neighbour. So in both directions.

Rounding errors are about three times those of the plain convolution (3e-5 against 1e-5 for results of size one).

Shape legend: N images, C D channels, H W rows and columns, T = W / 4 tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from vargpt.packing import PackedConv, PackedLinear

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

TILE = 4  # results of one tile, from six neighbours
NARROWEST = 128  # channels; below, forming sums takes about as long as the products that are spared
# Filters of three, transformed: for the points 0, 1, -1, 2, -2 and infinity.
FILTER = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
)  # fmt: skip


# Filters of three on a doubled line: for the difference from the cell before, the cell, the difference to the next.
DOUBLED = ((-1, 0, 0), (1, 1, 1), (0, 0, 1))
DOUBLED_BYTES = 2 * 2**20  # of the cells that go at once


class WinogradConv(nn.Module):
    """What a 3x3 convolution of padding 1 and stride 1 computes; its weights take twice the memory and are fixed."""

    kernel_size = (3, 3)

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.out_channels = conv.out_channels
        transform = torch.tensor(FILTER, dtype=torch.float64)
        kernels_6DCy = torch.einsum("kx,dcyx->kdcy", transform, conv.weight.detach().double()).to(conv.weight.dtype)
        biases = (None, conv.bias, None, None, None, None)  # the second product is in all four results, as it is
        self.convs = nn.ModuleList(
            PackedConv(kernel_DCy[..., None], bias) for kernel_DCy, bias in zip(kernels_6DCy, biases, strict=True)
        )

    def forward(self, hidden_NCHW: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D H W"]:
        num_images, _, height, width = hidden_NCHW.shape
        padded_NHWC = F.pad(hidden_NCHW.permute(0, 2, 3, 1), (0, 0, 1, padded_width(width) - width - 1, 1, 1))
        out_NDHW = torch.empty(
            (num_images, self.out_channels, height, width),
            dtype=hidden_NCHW.dtype,
            device=hidden_NCHW.device,
            memory_format=torch.channels_last,
        )
        self.into(out_NDHW, padded_NHWC)
        return out_NDHW

    def into(self, out_NDHW: Float[Tensor, "N D H W"], padded_NHWC: Float[Tensor, "N h w C"]) -> None:
        """Writes the results for rows between one more above and below (h = H + 2), and columns between one of zeros
        on the left and some on the right (w = `padded_width(W)`).
        """
        inputs = sums_of_inputs(padded_NHWC)
        products = [conv(sums.permute(0, 3, 1, 2)) for conv, sums in zip(self.convs, inputs, strict=True)]
        width, whole = out_NDHW.shape[-1], products[0].shape[-1] * TILE
        if width == whole:
            results_of(products, out_NDHW)
            return
        wider = out_NDHW.new_empty((*out_NDHW.shape[:3], whole))
        results_of(products, wider)
        out_NDHW.copy_(wider[..., :width])


def padded_width(width: int) -> int:
    """Columns of whole tiles, and one before and one after them."""
    return -(-width // TILE) * TILE + 2


def sums_of_inputs(padded_NHWC: Float[Tensor, "N h w C"]) -> list[Float[Tensor, "N h T C"]]:
    """What the six products of every tile take, from its six inputs."""
    tiles = padded_NHWC.shape[2] // TILE
    d0, d1, d2, d3, d4, d5 = (padded_NHWC[:, :, first : first + TILE * (tiles - 1) + 1 : TILE] for first in range(6))
    even, odd = torch.sub(d4, d2, alpha=4), torch.sub(d3, d1, alpha=4)
    zero, one, minus_one = torch.sub(even, d2).add_(d0, alpha=4), even + odd, even.sub_(odd)
    even, odd = d4 - d2, torch.sub(d3, d1, out=odd)
    two, minus_two = torch.add(even, odd, alpha=2), even.sub_(odd, alpha=2)
    infinity = torch.sub(d5, d3, alpha=5).add_(d1, alpha=4)
    return [zero, one, minus_one, two, minus_two, infinity]


def results_of(products_NDHT: list[Tensor], out_NDHW: Float[Tensor, "N D H W"]) -> None:
    """Four results of every tile from its six products, whose memory is used up."""
    zero, one, minus_one, two, minus_two, infinity = products_NDHT
    even, far_even = one + minus_one, two + minus_two
    odd, far_odd = one.sub_(minus_one), two.sub_(minus_two)
    torch.add(zero.add_(even), far_even, out=out_NDHW[..., 0::TILE])
    torch.add(odd, far_odd, alpha=2, out=out_NDHW[..., 1::TILE])
    torch.add(even, far_even, alpha=4, out=out_NDHW[..., 2::TILE])
    torch.add(infinity.add_(odd), far_odd, alpha=8, out=out_NDHW[..., 3::TILE])


def is_worthwhile(conv: nn.Conv2d) -> bool:
    """Whether a layer gains by it."""
    return (
        conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.padding == (1, 1)
        and conv.groups == 1
        and min(conv.in_channels, conv.out_channels) >= NARROWEST
    )


class DoubledConv(nn.Module):
    """What a 3x3 convolution of padding 1 makes of a picture with every row and column doubled."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.out_channels = conv.out_channels
        transform = torch.tensor(DOUBLED, dtype=torch.float64)
        kernels_33DC = torch.einsum("kr,lc,oirc->kloi", transform, transform, conv.weight.detach().double())

        def products(places: Sequence[tuple[int, int]], bias: Tensor | None = None) -> PackedLinear:
            weight = torch.cat([kernels_33DC[place] for place in places]).to(conv.weight.dtype)
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
            linear.weight = nn.Parameter(weight)
            linear.bias = None if bias is None else nn.Parameter(bias.detach().clone())
            return PackedLinear(linear)

        self.of_cells = products([(1, 1)], conv.bias)
        self.of_columns = products([(1, 0), (1, 2)])  # differences between them: for even results, and for odd ones
        self.of_rows = products([(0, 1), (2, 1)])
        self.of_both = products([(0, 0), (0, 2), (2, 0), (2, 2)])

    def forward(self, hidden_NChw: Float[Tensor, "N C h w"]) -> Float[Tensor, "N D H W"]:
        num_images, channels, height, width = hidden_NChw.shape
        out_NDHW = torch.empty(
            (num_images, self.out_channels, 2 * height, 2 * width),
            dtype=hidden_NChw.dtype,
            device=hidden_NChw.device,
            memory_format=torch.channels_last,
        )
        padded_NhwC = F.pad(hidden_NChw.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        rows = max(1, DOUBLED_BYTES // (num_images * width * channels * hidden_NChw.element_size()))
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            part = out_NDHW[:, :, 2 * top : 2 * bottom].permute(0, 2, 3, 1)
            self.into(part, padded_NhwC[:, top : bottom + 2])
        return out_NDHW

    def into(self, out_NHWD: Float[Tensor, "N H W D"], padded_NhwC: Float[Tensor, "N h w C"]) -> None:
        """Writes the results of the cells between one more on every side."""
        columns, rows = padded_NhwC.diff(dim=2), padded_NhwC[:, :, 1:-1].diff(dim=1)
        cells = self.of_cells(padded_NhwC[:, 1:-1, 1:-1].contiguous())
        even_columns, odd_columns = self.of_columns(columns[:, 1:-1].contiguous()).chunk(2, dim=-1)
        from_above, from_below = self.of_rows(rows).chunk(2, dim=-1)
        corners = self.of_both(columns.diff(dim=1)).chunk(4, dim=-1)
        even, odd = cells + even_columns[:, :, :-1], cells.add_(odd_columns[:, :, 1:])
        for y, of_rows in enumerate((from_above[:, :-1], from_below[:, 1:])):
            for x, of_columns in enumerate((even, odd)):
                corner = corners[2 * y + x]
                corner = corner[:, 1:] if y else corner[:, :-1]
                corner = corner[:, :, 1:] if x else corner[:, :, :-1]
                part = out_NHWD[:, y::2, x::2]
                torch.add(of_columns, of_rows, out=part)
                part.add_(corner)
