"""Pictures into the language model: Qwen2-VL's ViT from transformers, and its patch layout in torch.

In: pixels "I 3 H W" in [-1, 1], or patches as transformers' image processor cuts them. Out: one feature per merged
patch, in the order of the placeholders.

Shape legend: I pictures, P patches of all pictures, M merged patches of all pictures, D LLM width.
"""

from __future__ import annotations

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
