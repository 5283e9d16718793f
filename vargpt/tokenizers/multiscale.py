"""The residual pyramid of every multi-scale tokenizer: codes of all scales, resampled to the final grid and summed.

Scale k gets the residual that the scales before it left, averaged down to its grid. What a code is, a subclass says.
After VAR (arXiv 2404.02905, section 3.2) and Infinity (arXiv 2412.04431, section 3.2).

Shape legend: N images, d channels of the code of a token, h w the grid of a scale, H W the final grid.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from vargpt.tokenizers.base import ImageTokenizer
from vargpt.types import ImageLayout, ImageTokens

if TYPE_CHECKING:
    from jaxtyping import Float


def average_down(values_NdHW: Float[Tensor, "N d H W"], scale: tuple[int, int]) -> Float[Tensor, "N d h w"]:
    """How a residual reaches a coarser grid: the mean of the area of each cell."""
    return values_NdHW if tuple(values_NdHW.shape[-2:]) == scale else F.interpolate(values_NdHW, scale, mode="area")


def resample(values_NdHW: Float[Tensor, "N d H W"], scale: tuple[int, int]) -> Float[Tensor, "N d h w"]:
    """How codes reach any other grid: linear between cell centres, without smoothing even when going down."""
    if tuple(values_NdHW.shape[-2:]) == scale:
        return values_NdHW
    return F.interpolate(values_NdHW, scale, mode="bilinear", align_corners=False)


def fold(values_NHWd: Tensor, patch: int) -> Tensor:
    """Squares of cells into the channels of one token, channel by channel: "N hp wp d" to "N h w dpp"."""
    if patch == 1:
        return values_NHWd
    return rearrange(values_NHWd, "N (h y) (w x) d -> N h w (d y x)", y=patch, x=patch)


def unfold(values_NhwD: Tensor, patch: int) -> Tensor:
    """The inverse of `fold`."""
    if patch == 1:
        return values_NhwD
    return rearrange(values_NhwD, "N h w (d y x) -> N (h y) (w x) d", y=patch, x=patch)


class MultiScaleTokenizer(ImageTokenizer):
    """An `EditCodec`: what next-scale generators and edits ask, from the codes of the scales alone.

    `token_patch` is how many cells of the pyramid a token spans, along one axis.
    """

    token_patch: int = 1

    @abstractmethod
    def codes(self, grid: Tensor) -> Float[Tensor, "N h w d"]:
        """The codes of one scale, in cells of the pyramid."""

    @abstractmethod
    def unrounded(self, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout) -> Float[Tensor, "N h w d"]:
        """`latents` of images as they would be with endlessly many scales: what an edit repeats its source from."""

    def cells(self, layout: ImageLayout) -> tuple[tuple[int, int], ...]:
        """The scales of a layout in cells of the pyramid."""
        return tuple((h * self.token_patch, w * self.token_patch) for h, w in layout.scales)

    def latents(self, tokens: ImageTokens) -> Float[Tensor, "N h w d"]:
        """What the decoder sees: the codes of all given grids, summed at the final scale."""
        return fold(self.summed(tokens.grids, tokens.layout).permute(0, 2, 3, 1), self.token_patch)

    def next_input(self, tokens: ImageTokens, k: int) -> Float[Tensor, "N h_k w_k d"]:
        """The codes of the scales before k, summed at the final grid and resampled linearly to scale k.

        Raises:
            ValueError: when k is no later scale of the schedule, or grids before k are missing.
        """
        if not 1 <= k < tokens.layout.num_scales or len(tokens.grids) < k:
            raise ValueError(
                f"scale {k} has no input: a schedule of {tokens.layout.num_scales} scales has inputs for 1 to "
                f"{tokens.layout.num_scales - 1}, and {len(tokens.grids)} grids are given"
            )
        summed_NdHW = self.summed(tokens.grids[:k], tokens.layout)
        return fold(resample(summed_NdHW, self.cells(tokens.layout)[k]).permute(0, 2, 3, 1), self.token_patch)

    def scale_inputs(self, tokens: ImageTokens) -> tuple[Float[Tensor, "N h_k w_k d"], ...]:
        sums = self.running_sums(tokens.grids[: tokens.layout.num_scales - 1], tokens.layout)
        return tuple(
            fold(resample(summed_NdHW, scale).permute(0, 2, 3, 1), self.token_patch)
            for summed_NdHW, scale in zip(sums, self.cells(tokens.layout)[1:], strict=True)
        )

    def residual(
        self,
        latents: Float[Tensor, "N h w d"],
        layout: ImageLayout,
        grids: tuple[Tensor, ...],
    ) -> Float[Tensor, "N h_k w_k d"]:
        """What a picture of these latents, of this or another size, holds beyond `grids`, at the scale after them."""
        cells = self.cells(layout)
        wanted_NdHW = resample(unfold(latents, self.token_patch).permute(0, 3, 1, 2), cells[-1])
        left_NdHW = wanted_NdHW - self.summed(grids, layout) if grids else wanted_NdHW
        return fold(average_down(left_NdHW, cells[len(grids)]).permute(0, 2, 3, 1), self.token_patch)

    def summed(self, grids: tuple[Tensor, ...], layout: ImageLayout) -> Float[Tensor, "N d H W"]:
        if not grids:
            raise ValueError("tokens without any grid are no picture; at least the first scale must be given")
        *_, summed_NdHW = self.running_sums(grids, layout)
        return summed_NdHW

    def running_sums(self, grids: tuple[Tensor, ...], layout: ImageLayout) -> Iterator[Float[Tensor, "N d H W"]]:
        """The sum of codes at the final grid after each scale."""
        summed_NdHW: Tensor | float = 0.0
        for grid in grids:
            summed_NdHW = summed_NdHW + resample(self.codes(grid).permute(0, 3, 1, 2), self.cells(layout)[-1])
            yield summed_NdHW
