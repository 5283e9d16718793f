"""Images as bits, coarse to fine: multi-scale residual quantisation where every code is a corner of a hypercube.

Each channel of a residual becomes one bit, its sign; the code (+-1/sqrt(d) per channel, so of length one) is resampled
to the final grid and subtracted. The sum of all codes goes to the decoder. No codebook, no learned parameter.

Sources: Infinity (arXiv 2412.04431), section 3.2, and its published tokenizer for the order of operations; binary
spherical quantisation (arXiv 2406.07548).

Shape legend: N images, d bits of a token = channels of a feature, h w the grid of a scale, H W the final grid.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from vargpt.config import BsqTokenizerConfig, InfinityTokenizerConfig
from vargpt.tokenizers.bit_correction import CorrectedTokens
from vargpt.tokenizers.convnet import CellDecoder, CellEncoder, Decoder, Encoder, Style, to_channels_last
from vargpt.tokenizers.multiscale import MultiScaleTokenizer, average_down, fold, resample, unfold
from vargpt.types import Bits, ImageLayout, ImageTokens

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


def bits_to_codes(bits: Bool[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """Bit 1 is +1/sqrt(d), bit 0 is -1/sqrt(d). Inverse: `codes_to_bits`."""
    return (bits.float() * 2 - 1) / bits.shape[-1] ** 0.5


def codes_to_bits(values: Float[Tensor, "... d"]) -> Bool[Tensor, "... d"]:
    """Strictly positive is 1; zero is 0. The published l2 normalisation comes first and changes no sign."""
    return values > 0


@dataclass(frozen=True)
class Quantized:
    """What the quantiser found. Bits are bool "N h w d" per scale; residuals are what the signs were taken of.

    `summed` is the sum of the codes at the final grid: of all scales, or of the first `stop_after` of each image.
    """

    targets: tuple[Bool[Tensor, "N h w d"], ...]
    inputs: tuple[Bool[Tensor, "N h w d"], ...]  # the targets, with flips
    residuals: tuple[Float[Tensor, "N d h w"], ...]
    summed: Float[Tensor, "N d H W"]


def quantize(
    features_NdHW: Float[Tensor, "N d H W"],
    scales: tuple[tuple[int, int], ...],
    flips: tuple[Bool[Tensor, "N h w d"], ...] | None = None,
    stop_after: Int[Tensor, " N"] | None = None,
) -> Quantized:
    """Signs of the residual, coarse to fine; the last scale is the grid of the features and is not resampled.

    Args:
        features_NdHW: what the encoder says, any size of numbers. Computed in float32 whatever comes in.
        scales: (height, width) per scale, coarse to fine.
        flips: bits to turn over before their code is subtracted, one mask per scale.
        stop_after: number of scales (1 .. all) that count in `summed`, per image.
    """
    features_NdHW = features_NdHW.float()
    summed_NdHW = torch.zeros_like(features_NdHW)
    shown_NdHW = summed_NdHW
    left_NdHW = features_NdHW  # code by code, in the published order: near a sign's edge, rounding decides
    targets, inputs, residuals = [], [], []
    for k, scale in enumerate(scales):
        residual_Ndhw = average_down(left_NdHW, scale)
        target_Nhwd = codes_to_bits(residual_Ndhw).permute(0, 2, 3, 1)
        input_Nhwd = target_Nhwd if flips is None else target_Nhwd ^ flips[k]
        code_NdHW = resample(bits_to_codes(input_Nhwd).permute(0, 3, 1, 2), scales[-1])
        summed_NdHW = summed_NdHW + code_NdHW
        left_NdHW = left_NdHW - code_NdHW
        if stop_after is not None:
            shown_NdHW = shown_NdHW + code_NdHW * (stop_after > k)[:, None, None, None]
        targets.append(target_Nhwd)
        inputs.append(input_Nhwd)
        residuals.append(residual_Ndhw)
    summed_NdHW = summed_NdHW if stop_after is None else shown_NdHW
    return Quantized(tuple(targets), tuple(inputs), tuple(residuals), summed_NdHW)


class SignTokenizer(MultiScaleTokenizer):
    """Encoder, sign quantiser, decoder: any number of bits from 8 to 64, any schedule, any aspect ratio.

    A subclass makes the two networks.
    """

    def __init__(self, config: BsqTokenizerConfig | InfinityTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.downsample_factor = config.downsample_factor
        self.encoder, self.decoder = self.make_networks()
        self.to(memory_format=torch.channels_last)

    @abstractmethod
    def make_networks(self) -> tuple[nn.Module, nn.Module]:
        """Pixels to features, and summed codes to pixels."""

    @property
    def space(self) -> Bits:
        return Bits(self.config.num_bits)

    @property
    def code_dim(self) -> int:
        return self.config.num_bits

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.conv_in.weight.dtype

    def encode(self, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout) -> ImageTokens:
        """See `ImageTokenizer.encode`. Runs the network once; gradients are the caller's affair."""
        return self.tokens_of(self.features(pixel_values, layout), layout)

    def features(self, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout) -> Float[Tensor, "N d h w"]:
        """What the encoder says about each cell of the final grid, before any sign is taken (float32)."""
        self.check_layout(layout)
        if tuple(pixel_values.shape[-2:]) != (layout.height, layout.width):
            raise ValueError(
                f"pictures of {tuple(pixel_values.shape[-2:])} pixels do not belong to a layout of "
                f"{(layout.height, layout.width)}; resize them first"
            )
        return self.encoder(to_channels_last(pixel_values.to(self.dtype))).float()

    def unrounded(self, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout) -> Float[Tensor, "N h w d"]:
        """`latents` as they would be with endlessly many scales: what an edit repeats its source from.

        The bits of a scale are signs of what the scales before it left over, and rounding hides just that.
        """
        return self.folded(self.features(pixel_values, layout))

    def folded(self, features_NdHW: Float[Tensor, "N d H W"]) -> Float[Tensor, "N h w d"]:
        """Features in the order of latents."""
        return fold(features_NdHW.permute(0, 2, 3, 1), self.token_patch)

    def tokens_of(self, features_NdHW: Float[Tensor, "N d h w"], layout: ImageLayout) -> ImageTokens:
        """The tokens of features that are there already."""
        return self.folded_tokens(layout, quantize(features_NdHW, self.cells(layout)).targets)

    def correct(
        self,
        features_NdHW: Float[Tensor, "N d H W"],
        layout: ImageLayout,
        flips: tuple[Bool[Tensor, "N h w d"], ...],
    ) -> CorrectedTokens:
        """Quantises with the given bits turned over, each scale repairing what the ones before it spoilt."""
        flips = tuple(unfold(mask, self.token_patch) for mask in flips)
        quantized = quantize(features_NdHW, self.cells(layout), flips)
        return CorrectedTokens(
            self.folded_tokens(layout, quantized.inputs), self.folded_tokens(layout, quantized.targets)
        )

    def codes(self, grid: Bool[Tensor, "N h w d"]) -> Float[Tensor, "N H W d"]:
        return bits_to_codes(unfold(grid, self.token_patch))

    def folded_tokens(self, layout: ImageLayout, grids: tuple[Bool[Tensor, "N H W d"], ...]) -> ImageTokens:
        """What was found in cells, as tokens."""
        return ImageTokens(layout, tuple(fold(grid, self.token_patch) for grid in grids))

    def decode(self, tokens: ImageTokens) -> Float[Tensor, "N 3 H W"]:
        codes_NdHW = self.summed(tokens.grids, tokens.layout)
        dtype = self.decoder.conv_in.weight.dtype  # may be less precise than the encoder, on which bits depend
        return self.decoder(to_channels_last(codes_NdHW.to(dtype))).clamp(-1, 1)


class BsqTokenizer(SignTokenizer):
    """Ours: the bits of a cell depend on that cell and the coarser bits alone, and a linear map of it stands beside."""

    config: BsqTokenizerConfig

    def make_networks(self) -> tuple[nn.Module, nn.Module]:
        config = self.config
        sizes = (config.num_bits, config.base_channels, config.channel_multipliers, config.num_res_blocks)
        return CellEncoder(*sizes, config.patch_size), CellDecoder(*sizes, config.patch_size)


class InfinityTokenizer(SignTokenizer):
    """Infinity's: convolutions of 3x3 and group normalisation; a token may stand for several cells."""

    config: InfinityTokenizerConfig

    def make_networks(self) -> tuple[nn.Module, nn.Module]:
        config, style = self.config, Style(self.config.norm_groups)
        self.token_patch = config.token_patch
        sizes = (config.feature_channels, config.base_channels, config.channel_multipliers, config.num_res_blocks)
        return Encoder(*sizes, style), Decoder(*sizes, style)
