"""The convolutional autoencoder around a quantiser: pixels <-> features on a coarser grid.

Each level after the first halves the grid. The structure is that of the VQGAN family (arXiv 2012.09841) in the form
that Infinity and FLUX publish, name by name: per level some residual blocks and a resampling step, two blocks in the
middle, no attention. `CellEncoder` and `CellDecoder` are our form: squares of pixels are folded into channels first,
which spares a small network the costly convolutions at full resolution, and a linear map of each cell stands beside
the network, so that a short training starts from a good linear code.

Shape legend: N images, C channels, H W rows and columns of whatever level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from vargpt.tokenizers.strips import affine_norm, doubled_conv, is_large, swish_conv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Style:
    """What all layers of one network share. `norm_groups` 0 normalises every cell by itself, over all its channels, so
    that no cell depends on what lies far away; `kernel_size` 1 keeps every cell to itself altogether.
    """

    norm_groups: int
    kernel_size: int = 3

    def norm(self, channels: int) -> nn.Module:
        return GroupNorm(self.norm_groups, channels, eps=1e-6) if self.norm_groups else CellNorm(channels)

    def conv(self, in_channels: int, out_channels: int) -> nn.Conv2d:
        return nn.Conv2d(in_channels, out_channels, self.kernel_size, padding=self.kernel_size // 2)


class GroupNorm(nn.GroupNorm):
    """Normalisation in groups of channels, equally precise in every memory layout.

    For channels-last data on a CPU, torch's own kernel takes the difference of two large sums: groups whose mean
    outweighs their spread come out wrong in the third digit, and the encoder's bits are signs of such numbers.
    """

    def forward(self, hidden_NCHW: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        if hidden_NCHW.device.type != "cpu" or hidden_NCHW.is_contiguous():
            return super().forward(hidden_NCHW)
        scale_NC11, shift_NC11 = affine_norm(hidden_NCHW, self, hidden_NCHW.shape[2])
        return torch.addcmul(shift_NC11, hidden_NCHW, scale_NC11).to(hidden_NCHW.dtype)


class CellNorm(nn.Module):
    """Layer normalisation over the channels of each cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, hidden_NCHW: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        hidden_NHWC = hidden_NCHW.permute(0, 2, 3, 1)
        return F.layer_norm(hidden_NHWC, self.weight.shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """norm, swish, conv, twice, beside a shortcut (1x1 where the width changes)."""

    def __init__(self, in_channels: int, out_channels: int, style: Style) -> None:
        super().__init__()
        self.norm1 = style.norm(in_channels)
        self.conv1 = style.conv(in_channels, out_channels)
        self.norm2 = style.norm(out_channels)
        self.conv2 = style.conv(out_channels, out_channels)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, hidden_NCHW: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D H W"]:
        if is_large(hidden_NCHW):
            residual_NCHW = swish_conv(hidden_NCHW, self.norm1, self.conv1)
            return swish_conv(residual_NCHW, self.norm2, self.conv2, self.shortcut(hidden_NCHW))
        reuse = not torch.is_grad_enabled()
        residual_NCHW = self.conv1(F.silu(self.norm1(hidden_NCHW), inplace=reuse))
        residual_NCHW = self.conv2(F.silu(self.norm2(residual_NCHW), inplace=reuse))
        shortcut_NCHW = self.shortcut(hidden_NCHW)
        return residual_NCHW.add_(shortcut_NCHW) if reuse else shortcut_NCHW + residual_NCHW


class Middle(nn.Module):
    """Two residual blocks on the coarsest grid."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.block1 = ResidualBlock(channels, channels, style)
        self.block2 = ResidualBlock(channels, channels, style)

    def forward(self, hidden_NCHW: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        return self.block2(self.block1(hidden_NCHW))


class Downsample(nn.Module):
    """Half the rows and columns. Pads right and below only, as the published weights expect; a network of kernel size
    1 takes each 2x2 square by itself.
    """

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.padding = (0, 0, 0, 0) if style.kernel_size == 1 else (0, 1, 0, 1)
        self.conv = nn.Conv2d(channels, channels, 2 if style.kernel_size == 1 else 3, stride=2)

    def forward(self, hidden_NCHW: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        return self.conv(F.pad(hidden_NCHW, self.padding))


class Upsample(nn.Module):
    """Twice the rows and columns: nearest neighbour, then a convolution (both in one when decoding)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_NChw: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C H W"]:
        if not torch.is_grad_enabled():
            return doubled_conv(hidden_NChw, self.conv)
        return self.conv(F.interpolate(hidden_NChw, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, and the step to the next one (none after the last level)."""

    def __init__(self, in_channels: int, channels: int, num_blocks: int, style: Style, resample: nn.Module) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * num_blocks
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, style) for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.resample = resample

    def forward(self, hidden_NCHW: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        for block in self.blocks:
            hidden_NCHW = block(hidden_NCHW)
        return self.resample(hidden_NCHW)


class Encoder(nn.Module):
    """Pixels in [-1, 1] to features: levels fine to coarse, `num_res_blocks` in each."""

    def __init__(
        self,
        feature_channels: int,
        base_channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        style: Style,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        widths = [base_channels * multiplier for multiplier in channel_multipliers]
        check_widths(widths, style.norm_groups)
        self.conv_in = style.conv(in_channels, base_channels)
        self.levels = nn.ModuleList(
            Level(before, width, num_res_blocks, style, nn.Identity() if last else Downsample(width, style))
            for before, width, last in zip([base_channels, *widths], widths, is_last(widths), strict=False)
        )
        self.middle = Middle(widths[-1], style)
        self.norm_out = style.norm(widths[-1])
        self.conv_out = style.conv(widths[-1], feature_channels)

    def forward(self, pixel_values: Float[Tensor, "N C H W"]) -> Float[Tensor, "N d h w"]:
        hidden_NCHW = self.conv_in(to_channels_last(pixel_values))
        for level in self.levels:
            hidden_NCHW = level(hidden_NCHW)
        hidden_NCHW = self.middle(hidden_NCHW)
        return self.conv_out(F.silu(self.norm_out(hidden_NCHW)))


class Decoder(nn.Module):
    """Summed codes to pixels (not clamped): levels coarse to fine, one block more per level than the encoder has."""

    def __init__(
        self,
        feature_channels: int,
        base_channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        style: Style,
        out_channels: int = 3,
    ) -> None:
        super().__init__()
        widths = [base_channels * multiplier for multiplier in reversed(channel_multipliers)]
        check_widths(widths, style.norm_groups)
        self.conv_in = nn.Conv2d(feature_channels, widths[0], 3, padding=1)
        self.middle = Middle(widths[0], style)
        self.levels = nn.ModuleList(
            Level(before, width, num_res_blocks + 1, style, nn.Identity() if last else Upsample(width))
            for before, width, last in zip([widths[0], *widths], widths, is_last(widths), strict=False)
        )
        self.norm_out = style.norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, features_NdHW: Float[Tensor, "N d H W"]) -> Float[Tensor, "N C H W"]:
        hidden_NCHW = self.middle(self.conv_in(features_NdHW))
        for level in self.levels:
            hidden_NCHW = level(hidden_NCHW)
        if is_large(hidden_NCHW):
            return swish_conv(hidden_NCHW, self.norm_out, self.conv_out)
        return self.conv_out(F.silu(self.norm_out(hidden_NCHW)))


CELLWISE = Style(norm_groups=0, kernel_size=1)  # every cell by itself
CELL_NORM = Style(norm_groups=0)


class CellEncoder(Encoder):
    """Features of each cell from its own pixels: the network on squares of pixels, beside a linear map of them."""

    def __init__(
        self,
        feature_channels: int,
        base_channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        patch_size: int,
    ) -> None:
        sizes = (feature_channels, base_channels, channel_multipliers, num_res_blocks)
        super().__init__(*sizes, CELLWISE, 3 * patch_size**2)
        self.patch_size, self.cell = patch_size, patch_size * 2 ** (len(channel_multipliers) - 1)
        self.linear = nn.Conv2d(3 * self.cell**2, feature_channels, 1)

    def forward(self, pixel_values: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N d h w"]:
        features_NdHW = super().forward(F.pixel_unshuffle(pixel_values, self.patch_size))
        return features_NdHW + self.linear(to_channels_last(F.pixel_unshuffle(pixel_values, self.cell)))


class CellDecoder(Decoder):
    """Pixels from codes: a network that looks at neighbours, beside a linear map of each cell."""

    def __init__(
        self,
        feature_channels: int,
        base_channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        patch_size: int,
    ) -> None:
        sizes = (feature_channels, base_channels, channel_multipliers, num_res_blocks)
        super().__init__(*sizes, CELL_NORM, 3 * patch_size**2)
        self.patch_size, self.cell = patch_size, patch_size * 2 ** (len(channel_multipliers) - 1)
        self.linear = nn.Conv2d(feature_channels, 3 * self.cell**2, 1)

    def forward(self, features_NdHW: Float[Tensor, "N d H W"]) -> Float[Tensor, "N 3 H W"]:
        pixels_NCHW = F.pixel_shuffle(super().forward(features_NdHW), self.patch_size)
        return pixels_NCHW + F.pixel_shuffle(self.linear(features_NdHW), self.cell)


def is_last(items: Sequence[int]) -> list[bool]:
    return [index == len(items) - 1 for index in range(len(items))]


def check_widths(widths: Sequence[int], norm_groups: int) -> None:
    """Whether every level can be normalised in groups.

    Raises:
        ValueError: when a width is no multiple of `norm_groups`.
    """
    if not widths or (norm_groups and any(width % norm_groups for width in widths)):
        raise ValueError(
            f"every level needs a width that is a multiple of norm_groups={norm_groups}, got {list(widths)}; "
            "change base_channels, channel_multipliers or norm_groups"
        )


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def to_channels_last(pixel_values: torch.Tensor) -> torch.Tensor:
    """The same values, laid out so that convolutions on a CPU are about twice as fast."""
    return pixel_values.contiguous(memory_format=torch.channels_last)
