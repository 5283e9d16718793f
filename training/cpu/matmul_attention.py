"""Attention as two matrix products for training on a CPU: 1.5 to 3 times quicker there than the fused kernel.

PyTorch's fused CPU kernel has a slow backward pass for short sequences and narrow heads, which is all that small models
have. The result is the same up to rounding. In: a model. Out: the same model with its attention swapped, in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.models.qwen2_vl.modeling_qwen2_vl import VisionAttention

from vargpt.assistant.model import VARGPT
from vargpt.generators.parts import CrossAttention, SelfAttention

NAME = "matrix_products"
MASKED = -1e4  # far below any logit, and finite in bfloat16


def matmul_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """`scaled_dot_product_attention` for boolean masks (True = attend), "N H L E" in and out."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast(q.device.type, enabled=False):  # autocast would compute the softmax in float32
        weights = torch.matmul(q if scale == 1.0 else q * scale, k.transpose(-1, -2))
        return torch.matmul(masked(weights, attn_mask).softmax(-1), v)


def masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Attention logits, far down where the boolean mask is False."""
    if mask is None:
        return logits
    return logits + torch.zeros_like(mask, dtype=logits.dtype).masked_fill_(~mask, MASKED)


def transformers_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The same behind transformers' interface: "B H L E" in, "B L H E" out.

    The heads that share keys and values are folded into the rows of one larger product. What rotary positions leave in
    float32 is brought to the precision of the values first: in bfloat16 the products take a fraction of the time.
    """
    batch, heads, length, width = query.shape
    shared, keys = key.shape[1], key.shape[2]
    scaling = kwargs.get("scaling") or width**-0.5
    query, key = query.to(value.dtype), key.to(value.dtype)
    with torch.autocast(query.device.type, enabled=False):
        folded = (query * scaling).reshape(batch, shared, heads // shared * length, width)
        weights = torch.matmul(folded, key.transpose(-1, -2)).view(batch, heads, length, keys)
        weights = masked(weights, attention_mask).softmax(-1).view(batch, shared, -1, keys)
        out = torch.matmul(weights, value).view(batch, heads, length, width)
    return out.transpose(1, 2).contiguous(), None


class QuickVisionAttention(VisionAttention):
    """The ViT's attention for pictures of equal size: all of them in one product instead of one after the other."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        max_seqlen: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Patches of all pictures "P D" in and out. `cu_seqlens` only tells how many pictures there are."""
        assert position_embeddings is not None
        pictures = len(cu_seqlens) - 1
        qkv = self.qkv(hidden_states).view(len(hidden_states), 3, self.num_heads, self.head_dim)
        cos, sin = (part[:, None, None].to(qkv.dtype) for part in position_embeddings)
        qk = qkv[:, :2]
        first, second = qk.chunk(2, dim=-1)
        qk = qk * cos + torch.cat((-second, first), dim=-1) * sin
        q, k = qk.unflatten(0, (pictures, -1)).permute(2, 0, 3, 1, 4)
        v = qkv[:, 2].unflatten(0, (pictures, -1)).transpose(1, 2)
        out = matmul_attention(q, k, v, scale=None)
        return self.proj(out.transpose(1, 2).reshape(hidden_states.shape))


def use_matmul_attention(model: VARGPT) -> VARGPT:
    """Swaps the attention of every organ, in place. Input pictures are all of one size from then on."""
    AttentionInterface.register(NAME, transformers_attention)
    model.language_model.config._attn_implementation = NAME
    for module in model.modules():
        if isinstance(module, SelfAttention | CrossAttention):
            module.attend = matmul_attention  # type: ignore[method-assign,assignment]
        elif type(module) is VisionAttention:
            module.__class__ = QuickVisionAttention  # the same weights under the same names
    return model
