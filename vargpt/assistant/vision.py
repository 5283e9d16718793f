"""Pictures into the language model: Qwen2-VL's ViT from transformers, and its patch layout in torch.

In: pixels "I 3 H W" in [-1, 1], or patches as transformers' image processor cuts them. Out: one feature per merged
patch, in the order of the placeholders.

Shape legend: I pictures, P patches of all pictures, M merged patches of all pictures, D LLM width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel


class FeatureNorm(nn.RMSNorm):
    """Brings the ViT's features to the loudness of words, which one weight per channel then learns."""

    def forward(self, features: Float[Tensor, "*cells D"]) -> Float[Tensor, "*cells D"]:
        """In the dtype of what comes in, also where that is computed in less than the weights have."""
        return F.rms_norm(features, self.normalized_shape, self.weight.to(features.dtype), self.eps)


class PagePositions(nn.Module):
    """What the place of a merged patch on its page adds to its feature.

    Qwen2-VL's ViT knows distances only, and its language model turns across a page by the slowest of its rotary
    frequencies: over the eight columns of a small page that is nearly nothing, and left looks like right. Added are
    learnt mixes of sines and cosines of the place as a share of the page, so that pages of any size have them; zero
    at first.
    """

    def __init__(self, width: int, num_waves: int = 4) -> None:
        super().__init__()
        self.num_waves = num_waves
        self.weight = nn.Parameter(torch.zeros(width, 4 * num_waves))

    def forward(self, grids: Sequence[tuple[int, int, int]], dtype: torch.dtype) -> Float[Tensor, "M D"]:
        """For pictures of these (frames, rows, columns) of merged patches, one after the other."""
        waves = torch.cat([self.waves(rows, columns).repeat(frames, 1) for frames, rows, columns in grids])
        return F.linear(waves.to(dtype), self.weight.to(dtype))

    def waves(self, rows: int, columns: int) -> Float[Tensor, "M W"]:
        """Half a turn, one, two, four across the page, downwards and to the right."""
        turns = 2.0 ** torch.arange(self.num_waves, device=self.weight.device) * math.pi
        down, right = (
            (torch.arange(count, device=self.weight.device)[:, None] + 0.5) / count * turns for count in (rows, columns)
        )
        places = torch.cat((down[:, None].expand(-1, columns, -1), right.expand(rows, -1, -1)), dim=-1).flatten(0, 1)
        return torch.cat((places.sin(), places.cos()), dim=-1)


def patchify(
    pixel_values: Float[Tensor, "I 3 H W"], config: Qwen2VLVisionConfig
) -> tuple[Float[Tensor, "P C"], Int[Tensor, "I 3"]]:
    """Cuts equal-sized pictures in [-1, 1] into patches, merge group by merge group, as Qwen2VLImageProcessor does.

    The processor's normalisation must be mean 0.5, std 0.5, which is what [-1, 1] means. H and W must be multiples of
    patch_size * spatial_merge_size.
    """
    patch, merge = int(config.patch_size), config.spatial_merge_size  # type: ignore[arg-type]
    height, width = pixel_values.shape[2] // patch, pixel_values.shape[3] // patch
    patches = rearrange(
        pixel_values,
        "I C (gh mh ph) (gw mw pw) -> (I gh gw mh mw) C 1 ph pw",
        ph=patch, pw=patch, mh=merge, mw=merge,
    )  # fmt: skip
    patches = patches.expand(-1, -1, int(config.temporal_patch_size), -1, -1).flatten(1)  # type: ignore[arg-type]
    grid = torch.tensor([[1, height, width]], device=pixel_values.device).expand(pixel_values.shape[0], -1)
    return patches, grid


def picture_features(
    vision: Qwen2VisionTransformerPretrainedModel, patches: Float[Tensor, "P C"], grid_thw: Int[Tensor, "I 3"]
) -> Float[Tensor, "M D"]:
    """The ViT's merged features of all pictures, concatenated in order."""
    output = vision(patches.to(vision.dtype), grid_thw=grid_thw)
    return output if isinstance(output, Tensor) else output.pooler_output
