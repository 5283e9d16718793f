"""The convolutional autoencoder around a quantiser: pixels <-> features on a coarser grid.

Each level after the first halves the grid; a `patch_size` above 1 first folds squares of pixels into channels, which
spares a small network the costly convolutions at full resolution. A `linear_path` beside the network maps each cell's
pixels to its features and back, so that a short training starts from a good linear code.

The structure is that of the VQGAN family (arXiv 2012.09841) in the form that Infinity and FLUX publish: per level some
residual blocks and a resampling step, two blocks and optional attention in the middle, no attention elsewhere.
Published weights (`patch_size` 1, no linear path) map onto it name by name.

Shape legend: N images, C channels, H W rows and columns of whatever level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from torch import Tensor


class ResidualBlock(nn.Module):
    """norm, swish, conv, twice, beside a shortcut (1x1 where the width changes)."""

    def __init__(self, in_channels: int, out_channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, norm_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, norm_groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, hidden_NCHW: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D H W"]:
        residual_NCHW = self.conv1(F.silu(self.norm1(hidden_NCHW)))
        residual_NCHW = self.conv2(F.silu(self.norm2(residual_NCHW)))
        return self.shortcut(hidden_NCHW) + residual_NCHW


class GridAttention(nn.Module):
    """One head of attention between all cells of a grid, added to the input."""

    def __init__(self, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, norm_groups)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, hidden_NCHW: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        normed_NCHW = self.norm(hidden_NCHW)
        query, key, value = (
            conv(normed_NCHW).flatten(2).transpose(1, 2) for conv in (self.query, self.key, self.value)
        )
        mixed_NLC = F.scaled_dot_product_attention(query, key, value)
        return hidden_NCHW + self.out(mixed_NLC.transpose(1, 2).unflatten(2, hidden_NCHW.shape[2:]))


class Middle(nn.Module):
    """Two residual blocks on the coarsest grid, with attention between them if wanted."""

    def __init__(self, channels: int, norm_groups: int, attention: bool) -> None:
        super().__init__()
        self.block1 = ResidualBlock(channels, channels, norm_groups)
        self.attention = GridAttention(channels, norm_groups) if attention else nn.Identity()
        self.block2 = ResidualBlock(channels, channels, norm_groups)

    def forward(self, hidden_NCHW: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        return self.block2(self.attention(self.block1(hidden_NCHW)))


class Downsample(nn.Module):
    """Half the rows and columns. Pads right and below only, as the published weights expect."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, hidden_NCHW: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        return self.conv(F.pad(hidden_NCHW, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the rows and columns: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_NCHW: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C H W"]:
        return self.conv(F.interpolate(hidden_NCHW, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, and the step to the next one (none after the last level)."""

    def __init__(self, in_channels: int, channels: int, num_blocks: int, norm_groups: int, resample: nn.Module) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * num_blocks
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, norm_groups) for before, after in zip(widths[:-1], widths[1:], strict=True)
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
        norm_groups: int,
        attention: bool = False,
        patch_size: int = 1,
        linear_path: bool = False,
    ) -> None:
        super().__init__()
        widths = [base_channels * multiplier for multiplier in channel_multipliers]
        check_widths(widths, norm_groups)
        self.patch_size = patch_size
        self.cell = patch_size * 2 ** (len(widths) - 1)
        self.linear = nn.Conv2d(3 * self.cell**2, feature_channels, 1) if linear_path else None
        self.conv_in = nn.Conv2d(3 * patch_size**2, base_channels, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(before, width, num_res_blocks, norm_groups, nn.Identity() if last else Downsample(width))
            for before, width, last in zip([base_channels, *widths], widths, is_last(widths), strict=False)
        )
        self.middle = Middle(widths[-1], norm_groups, attention)
        self.norm_out = group_norm(widths[-1], norm_groups)
        self.conv_out = nn.Conv2d(widths[-1], feature_channels, 3, padding=1)

    def forward(self, pixel_values: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N d h w"]:
        patches_NCHW = pixel_values if self.patch_size == 1 else F.pixel_unshuffle(pixel_values, self.patch_size)
        hidden_NCHW = self.conv_in(to_channels_last(patches_NCHW))
        for level in self.levels:
            hidden_NCHW = level(hidden_NCHW)
        hidden_NCHW = self.middle(hidden_NCHW)
        features_NCHW = self.conv_out(F.silu(self.norm_out(hidden_NCHW)))
        if self.linear is None:
            return features_NCHW
        return features_NCHW + self.linear(to_channels_last(F.pixel_unshuffle(pixel_values, self.cell)))


class Decoder(nn.Module):
    """Summed codes to pixels (not clamped): levels coarse to fine, one block more per level than the encoder has."""

    def __init__(
        self,
        feature_channels: int,
        base_channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        norm_groups: int,
        attention: bool = False,
        patch_size: int = 1,
        linear_path: bool = False,
    ) -> None:
        super().__init__()
        widths = [base_channels * multiplier for multiplier in reversed(channel_multipliers)]
        check_widths(widths, norm_groups)
        self.conv_in = nn.Conv2d(feature_channels, widths[0], 3, padding=1)
        self.middle = Middle(widths[0], norm_groups, attention)
        self.levels = nn.ModuleList(
            Level(before, width, num_res_blocks + 1, norm_groups, nn.Identity() if last else Upsample(width))
            for before, width, last in zip([widths[0], *widths], widths, is_last(widths), strict=False)
        )
        self.norm_out = group_norm(widths[-1], norm_groups)
        self.patch_size = patch_size
        self.cell = patch_size * 2 ** (len(widths) - 1)
        self.linear = nn.Conv2d(feature_channels, 3 * self.cell**2, 1) if linear_path else None
        self.conv_out = nn.Conv2d(widths[-1], 3 * patch_size**2, 3, padding=1)

    def forward(self, features_NdHW: Float[Tensor, "N d h w"]) -> Float[Tensor, "N 3 H W"]:
        hidden_NCHW = self.middle(self.conv_in(features_NdHW))
        for level in self.levels:
            hidden_NCHW = level(hidden_NCHW)
        pixels_NCHW = self.conv_out(F.silu(self.norm_out(hidden_NCHW)))
        pixels_NCHW = pixels_NCHW if self.patch_size == 1 else F.pixel_shuffle(pixels_NCHW, self.patch_size)
        if self.linear is None:
            return pixels_NCHW
        return pixels_NCHW + F.pixel_shuffle(self.linear(features_NdHW), self.cell)


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


def is_last(items: Sequence[int]) -> list[bool]:
    return [index == len(items) - 1 for index in range(len(items))]


def check_widths(widths: Sequence[int], norm_groups: int) -> None:
    """Whether every level can be normalised in groups.

    Raises:
        ValueError: when a width is no multiple of `norm_groups`.
    """
    if not widths or any(width % norm_groups for width in widths):
        raise ValueError(
            f"every level needs a width that is a multiple of norm_groups={norm_groups}, got {list(widths)}; "
            "change base_channels, channel_multipliers or norm_groups"
        )


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def to_channels_last(pixel_values: torch.Tensor) -> torch.Tensor:
    """The same values, laid out so that convolutions on a CPU are about twice as fast."""
    return pixel_values.contiguous(memory_format=torch.channels_last)
