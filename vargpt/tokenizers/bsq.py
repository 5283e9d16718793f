"""Images as bits, coarse to fine: multi-scale residual quantisation where every code is a corner of a hypercube.

Scale k gets the residual that the scales before it left (averaged down to its grid); each channel becomes one bit, its
sign; the code (+-1/sqrt(d) per channel, so of length one) is resampled to the final grid and subtracted. The sum of all
codes goes to the decoder. No codebook, no learned parameter.

Sources: Infinity (arXiv 2412.04431), section 3.2, and its published tokenizer for the order of operations; binary
spherical quantisation (arXiv 2406.07548) for the losses. Divergence: one straight-through step for the summed code
(as in VAR, arXiv 2404.02905) where the published one takes one per scale; the tokens are the same.

Shape legend: N images, d bits of a token = channels of a feature, h w the grid of a scale, H W the final grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import torch
from einops import rearrange
from torch.nn import functional as F

from vargpt.tokenizers.base import ImageTokenizer
from vargpt.tokenizers.bit_correction import BitFlip, CorrectedTokens, draw_flips
from vargpt.tokenizers.convnet import Decoder, Encoder, Style, to_channels_last
from vargpt.types import ImageLayout, ImageTokens

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from vargpt.config import VargptImageTokenizerConfig

UPSAMPLE_MODES = ("bilinear", "trilinear")  # a single picture has one frame: both are the same arithmetic


def bits_to_codes(bits: Bool[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """Bit 1 is +1/sqrt(d), bit 0 is -1/sqrt(d). Inverse: `codes_to_bits`."""
    return (bits.float() * 2 - 1) / bits.shape[-1] ** 0.5


def codes_to_bits(values: Float[Tensor, "... d"]) -> Bool[Tensor, "... d"]:
    """Strictly positive is 1; zero is 0. The published l2 normalisation comes first and changes no sign."""
    return values > 0


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


def bit_entropy(p: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Entropy in bits (0 .. 1) of a coin that shows 1 with probability p."""
    p = p.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log2() + (1 - p) * (1 - p).log2())


def entropy_loss(
    residuals: tuple[Float[Tensor, "N d h w"], ...], inv_temperature: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(mean entropy of a bit, entropy of the mean bit), both in [0, 1]: decided bits, all of them used.

    Training lowers the first and raises the second. Factorised over the bits (BSQ, section 3.3). The logit of a bit is
    4 * inv_temperature * z with z the residual, normalised so that its channels have a mean square of one.
    """
    decided, used = [], []
    for residual_Ndhw in residuals:
        z_Ndhw = F.normalize(residual_Ndhw, dim=1) * residual_Ndhw.shape[1] ** 0.5
        p_Ndhw = torch.sigmoid(4 * inv_temperature * z_Ndhw)
        decided.append(bit_entropy(p_Ndhw).mean())
        used.append(bit_entropy(p_Ndhw.mean(dim=(0, 2, 3))).mean())
    return torch.stack(decided).mean(), torch.stack(used).mean()


@dataclass(frozen=True)
class Reconstruction:
    """A training pass: the picture, and the quantiser's own losses (weighted by the config in `loss`)."""

    pixel_values: Float[Tensor, "N 3 H W"]
    tokens: ImageTokens
    loss: Float[Tensor, ""]
    commitment: Float[Tensor, ""]
    decided_entropy: Float[Tensor, ""]
    used_entropy: Float[Tensor, ""]


class MultiScaleBsqTokenizer(ImageTokenizer):
    """Encoder, sign quantiser, decoder. Any number of bits from 8 to 64, any schedule, any aspect ratio."""

    def __init__(self, config: VargptImageTokenizerConfig) -> None:
        super().__init__()
        if not 8 <= config.num_bits <= 64:
            raise ValueError(f"num_bits lies between 8 and 64, got {config.num_bits}")
        if config.upsample_mode not in UPSAMPLE_MODES:
            raise ValueError(f"upsample_mode is one of {UPSAMPLE_MODES}, got {config.upsample_mode!r}")
        self.config = config
        self.downsample_factor = config.downsample_factor
        self.patch = config.token_patch
        widths = (config.feature_channels, config.base_channels, config.channel_multipliers, config.num_res_blocks)
        options = (config.attention, config.patch_size, config.linear_path)
        self.encoder = Encoder(*widths, Style(config.norm_groups, config.encoder_kernel_size), *options)
        self.decoder = Decoder(*widths, Style(config.norm_groups), *options)
        self.to(memory_format=torch.channels_last)

    @property
    def code_dim(self) -> int:
        return self.config.num_bits

    @property
    def num_bits(self) -> int:
        return self.config.num_bits

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.conv_in.weight.dtype

    def forward(
        self,
        pixel_values: Float[Tensor, "N 3 H W"],
        layout: ImageLayout,
        stop_after: Int[Tensor, " N"] | None = None,
    ) -> Reconstruction:
        """A training pass: gradients go straight through the signs. `stop_after` trains previews (see `quantize`)."""
        features_NdHW = self.features(pixel_values, layout)
        quantized = quantize(features_NdHW, self.cells(layout), stop_after=stop_after)
        targets = self._tokens(layout, quantized.targets)
        codes_NdHW = features_NdHW + (quantized.summed - features_NdHW).detach()
        whole_NdHW = quantized.summed if stop_after is None else self._summed(targets.grids, layout)
        commitment = F.mse_loss(features_NdHW, whole_NdHW) * self.num_bits  # codes have length 1, so channels are small
        decided, used = entropy_loss(quantized.residuals, self.config.entropy_inv_temperature)
        return Reconstruction(
            pixel_values=self.decoder(to_channels_last(codes_NdHW.to(self.dtype))),
            tokens=targets,
            loss=self.config.commitment_weight * commitment + self.config.entropy_weight * (decided - used),
            commitment=commitment,
            decided_entropy=decided,
            used_entropy=used,
        )

    @overload
    def encode(self, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout, flip: None = None) -> ImageTokens: ...

    @overload
    def encode(self, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout, flip: BitFlip) -> CorrectedTokens: ...

    def encode(
        self, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout, flip: BitFlip | None = None
    ) -> ImageTokens | CorrectedTokens:
        """See `ImageTokenizer.encode`. Runs the network once; gradients are the caller's affair."""
        features_NdHW = self.features(pixel_values, layout)
        if flip is None:
            return self.tokens_of(features_NdHW, layout)
        flips = draw_flips(layout, len(features_NdHW), self.num_bits, flip, features_NdHW.device)
        return self.correct(features_NdHW, layout, flips)

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
        return fold(features_NdHW.permute(0, 2, 3, 1), self.patch)

    def tokens_of(self, features_NdHW: Float[Tensor, "N d h w"], layout: ImageLayout) -> ImageTokens:
        """The tokens of features that are there already."""
        return self._tokens(layout, quantize(features_NdHW, self.cells(layout)).targets)

    def correct(
        self,
        features_NdHW: Float[Tensor, "N d H W"],
        layout: ImageLayout,
        flips: tuple[Bool[Tensor, "N h w d"], ...],
    ) -> CorrectedTokens:
        """Quantises with the given bits turned over, each scale repairing what the ones before it spoilt."""
        flips = tuple(unfold(mask, self.patch) for mask in flips)
        quantized = quantize(features_NdHW, self.cells(layout), flips)
        return CorrectedTokens(self._tokens(layout, quantized.inputs), self._tokens(layout, quantized.targets))

    def cells(self, layout: ImageLayout) -> tuple[tuple[int, int], ...]:
        """The scales of a layout in cells of the quantiser."""
        return tuple((h * self.patch, w * self.patch) for h, w in layout.scales)

    def _tokens(self, layout: ImageLayout, grids: tuple[Bool[Tensor, "N H W d"], ...]) -> ImageTokens:
        return ImageTokens(layout, tuple(fold(grid, self.patch) for grid in grids))

    def decode(self, tokens: ImageTokens) -> Float[Tensor, "N 3 H W"]:
        codes_NdHW = self._summed(tokens.grids, tokens.layout)
        dtype = self.decoder.conv_in.weight.dtype  # may be less precise than the encoder, on which bits depend
        return self.decoder(to_channels_last(codes_NdHW.to(dtype))).clamp(-1, 1)

    def latents(self, tokens: ImageTokens) -> Float[Tensor, "N h w d"]:
        return fold(self._summed(tokens.grids, tokens.layout).permute(0, 2, 3, 1), self.patch)

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
        summed_NdHW = self._summed(tokens.grids[:k], tokens.layout)
        return fold(resample(summed_NdHW, self.cells(tokens.layout)[k]).permute(0, 2, 3, 1), self.patch)

    def scale_inputs(self, tokens: ImageTokens) -> tuple[Float[Tensor, "N h_k w_k d"], ...]:
        sums = self._running_sums(tokens.grids[: tokens.layout.num_scales - 1], tokens.layout)
        return tuple(
            fold(resample(summed_NdHW, scale).permute(0, 2, 3, 1), self.patch)
            for summed_NdHW, scale in zip(sums, self.cells(tokens.layout)[1:], strict=True)
        )

    def rest(
        self,
        latents: Float[Tensor, "N h w d"],
        layout: ImageLayout,
        grids: tuple[Bool[Tensor, "N h_k w_k d"], ...],
    ) -> Float[Tensor, "N h_k w_k d"]:
        """What a picture of these latents, of this or another size, holds beyond `grids`, at the scale after them."""
        cells = self.cells(layout)
        wanted_NdHW = resample(unfold(latents, self.patch).permute(0, 3, 1, 2), cells[-1])
        left_NdHW = wanted_NdHW - self._summed(grids, layout) if grids else wanted_NdHW
        return fold(average_down(left_NdHW, cells[len(grids)]).permute(0, 2, 3, 1), self.patch)

    def _summed(self, grids: tuple[Bool[Tensor, "N h w d"], ...], layout: ImageLayout) -> Float[Tensor, "N d H W"]:
        if not grids:
            raise ValueError("tokens without any grid are no picture; at least the first scale must be given")
        *_, summed_NdHW = self._running_sums(grids, layout)
        return summed_NdHW

    def _running_sums(
        self, grids: tuple[Bool[Tensor, "N h w d"], ...], layout: ImageLayout
    ) -> Iterator[Float[Tensor, "N d H W"]]:
        """The sum of codes at the final grid after each scale."""
        summed_NdHW: Tensor | float = 0.0
        for bits_Nhwd in grids:
            codes_NdHW = bits_to_codes(unfold(bits_Nhwd, self.patch)).permute(0, 3, 1, 2)
            summed_NdHW = summed_NdHW + resample(codes_NdHW, self.cells(layout)[-1])
            yield summed_NdHW
