"""What a bitwise tokenizer learns besides rebuilding pictures: features near their codes, and decided bits, all used.

Source: binary spherical quantisation (arXiv 2406.07548) for the entropies. Divergence: one straight-through step for
the summed code (as in VAR, arXiv 2404.02905) where the published tokenizer takes one per scale; the tokens are equal.

Shape legend: N images, d bits of a token, h w the grid of a scale, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vargpt.tokenizers.bsq import SignTokenizer, quantize
from vargpt.tokenizers.convnet import to_channels_last
from vargpt.types import ImageLayout, ImageTokens


@dataclass(frozen=True, kw_only=True)
class BsqWeights:
    """How much each of the quantiser's own losses counts."""

    commitment: float = 0.25
    entropy: float = 0.1
    entropy_inv_temperature: float = 1.0


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
    """A training pass: the picture, and the quantiser's own losses (weighted in `loss`)."""

    pixel_values: Float[Tensor, "N 3 H W"]
    tokens: ImageTokens
    loss: Float[Tensor, ""]
    commitment: Float[Tensor, ""]
    decided_entropy: Float[Tensor, ""]
    used_entropy: Float[Tensor, ""]


def reconstruct(
    tokenizer: SignTokenizer,
    pixel_values: Float[Tensor, "N 3 H W"],
    layout: ImageLayout,
    weights: BsqWeights,
    stop_after: Int[Tensor, " N"] | None = None,
) -> Reconstruction:
    """A training pass: gradients go straight through the signs. `stop_after` trains previews (see `quantize`)."""
    features_NdHW = tokenizer.features(pixel_values, layout)
    quantized = quantize(features_NdHW, tokenizer.cells(layout), stop_after=stop_after)
    targets = tokenizer.folded_tokens(layout, quantized.targets)
    codes_NdHW = features_NdHW + (quantized.summed - features_NdHW).detach()
    whole_NdHW = quantized.summed if stop_after is None else tokenizer.summed(targets.grids, layout)
    # codes have length 1, so channels are small
    commitment = F.mse_loss(features_NdHW, whole_NdHW) * tokenizer.code_dim
    decided, used = entropy_loss(quantized.residuals, weights.entropy_inv_temperature)
    return Reconstruction(
        pixel_values=tokenizer.decoder(to_channels_last(codes_NdHW.to(tokenizer.dtype))),
        tokens=targets,
        loss=weights.commitment * commitment + weights.entropy * (decided - used),
        commitment=commitment,
        decided_entropy=decided,
        used_entropy=used,
    )
