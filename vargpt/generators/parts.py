"""The transformer block that draws: self-attention with 2-D rotary positions, cross-attention, MLP, AdaLN.

In: image tokens and a memory of conditions. Out: image tokens of the same shape. After VAR (arXiv 2404.02905) and
Infinity (arXiv 2412.04431): shared AdaLN, QK l2-normalisation with a learned temperature per head, rotary pairs split
between height and width.

Shape legend: N rows (guidance branches folded in), L tokens, S memory positions, H heads, E channels per head, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

INITIAL_GATE = 0.5  # of self-attention and MLP; VAR starts near 0 and trains for far longer
NORM_EPS = 1e-12  # below this, a query or key of self-attention counts as zero
Rotary = tuple[Tensor, Tensor]  # cos, sin, each "L E/2"


def rotary_2d(positions: Float[Tensor, "L 2"], head_dim: int, base: float) -> Rotary:
    """cos and sin of axial rotary positions: the first half of the pairs turns with y, the second with x."""
    if head_dim % 4:
        raise ValueError(f"2-D rotary positions need a head width divisible by 4, got {head_dim}")
    pairs = head_dim // 4
    frequencies = base ** (-torch.arange(pairs, device=positions.device, dtype=torch.float32) / pairs)
    angles = rearrange(positions.float()[..., None] * frequencies, "L yx pair -> L (yx pair)")
    return angles.cos(), angles.sin()


def rotate(x_NLHE: Float[Tensor, "N L H E"], rotary: Rotary) -> Float[Tensor, "N L H E"]:
    """Turns interleaved channel pairs by the angles of their position; float32 at least.

    On a CPU a pair is multiplied as one complex number: the same arithmetic in one pass instead of eight over every
    other number.
    """
    x_NLHE = x_NLHE.to(torch.promote_types(x_NLHE.dtype, torch.float32))
    cos, sin = (part.to(x_NLHE.dtype)[:, None] for part in rotary)
    pairs = x_NLHE.unflatten(-1, (-1, 2))
    if x_NLHE.device.type == "cpu" and not torch.compiler.is_compiling():  # which fuses passes, but no complex ones
        turned = torch.view_as_complex(pairs.contiguous()) * torch.complex(cos, sin)
        return torch.view_as_real(turned).flatten(-2)
    even, odd = pairs.unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


@dataclass
class LayerCache:
    """Keys and values of one layer while an image is drawn: its own earlier scales, and the memory's, computed once.

    The first scale makes room for all `num_tokens` of the image, so that later ones copy nothing but themselves.
    """

    num_tokens: int
    length: int = 0
    key: Tensor | None = None
    value: Tensor | None = None
    memory_key: Tensor | None = None
    memory_value: Tensor | None = None

    def extend(self, key: Float[Tensor, "N H l E"], value: Float[Tensor, "N H l E"]) -> tuple[Tensor, Tensor]:
        """Keys and values of all scales so far, these included: "N H L E" each."""
        if self.key is None or self.value is None:
            shape = (*key.shape[:2], self.num_tokens, key.shape[3])
            self.key, self.value = key.new_empty(shape), value.new_empty(shape)
        span = slice(self.length, self.length + key.shape[2])
        self.key[:, :, span], self.value[:, :, span] = key, value
        self.length = span.stop
        return self.key[:, :, : self.length], self.value[:, :, : self.length]


@dataclass
class DrawCache:
    """One `LayerCache` per layer."""

    layers: list[LayerCache] = field(default_factory=list)


class SelfAttention(nn.Module):
    """Attention among image tokens; q and k are l2-normalised, with one learned temperature per head."""

    MAX_LOG_SCALE = math.log(100.0)
    attend = staticmethod(F.scaled_dot_product_attention)  # training may put another kernel of this signature here

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)
        self.log_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(4.0)))

    def forward(self, x: Tensor, rotary: Rotary, mask: Bool[Tensor, "L S"] | None, cache: LayerCache | None) -> Tensor:
        qkv = rearrange(self.qkv(x), "N L (parts E) -> N L parts E", parts=3 * self.num_heads)
        qk, v = qkv.split((2 * self.num_heads, self.num_heads), dim=2)
        scale = self.log_scale.flatten().clamp(max=self.MAX_LOG_SCALE).exp()
        scale = torch.cat((scale, torch.ones_like(scale)))[:, None]
        norm = qk.norm(dim=-1, keepdim=True, dtype=torch.promote_types(qk.dtype, torch.float32))
        qk = rotate(qk * (scale / norm.clamp(min=NORM_EPS)), rotary).to(v.dtype)
        q, k = (part.transpose(1, 2) for part in qk.chunk(2, dim=2))
        v = v.transpose(1, 2)
        if cache is not None:
            k, v = cache.extend(k, v)
        out = self.attend(q, k, v, attn_mask=mask, scale=1.0)
        return self.proj(rearrange(out, "N H L E -> N L (H E)"))


class CrossAttention(nn.Module):
    """Attention from image tokens to the memory."""

    attend = staticmethod(F.scaled_dot_product_attention)

    def __init__(self, hidden_size: int, memory_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(memory_size, 2 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def memory_key_value(self, memory: Tensor, cache: LayerCache | None) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory, computed once per image."""
        if cache is not None and cache.memory_key is not None and cache.memory_value is not None:
            return cache.memory_key, cache.memory_value
        k, v = rearrange(self.key_value(memory), "N S (two H E) -> two N H S E", two=2, H=self.num_heads)
        k = self.normalized_key(k, v.dtype)
        if cache is not None:
            cache.memory_key, cache.memory_value = k, v
        return k, v

    def normalized_key(self, k: Float[Tensor, "N H S E"], dtype: torch.dtype) -> Float[Tensor, "N H S E"]:
        return k

    def scaled_query(
        self, q: Float[Tensor, "N H L E"], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "N H L E"], float | None]:
        """The query, and what its products with keys are multiplied by (None = 1 / sqrt(E))."""
        return q, None

    def forward(self, x: Tensor, memory: Tensor, mask: Bool[Tensor, "N 1 1 S"], cache: LayerCache | None) -> Tensor:
        q = rearrange(self.query(x), "N L (H E) -> N H L E", H=self.num_heads)
        k, v = self.memory_key_value(memory, cache)
        q, scale = self.scaled_query(q, v.dtype)
        out = self.attend(q, k, v, attn_mask=mask, scale=scale)
        return self.proj(rearrange(out, "N H L E -> N L (H E)"))


class NormalizedCrossAttention(CrossAttention):
    """The same with l2-normalised queries and keys and a learned temperature per head, as in `SelfAttention`.

    Without, attention over a few dozen similar memory states stays uniform for long in a small model.
    """

    def __init__(self, hidden_size: int, memory_size: int, num_heads: int) -> None:
        super().__init__(hidden_size, memory_size, num_heads)
        self.log_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(8.0)))

    def normalized_key(self, k: Float[Tensor, "N H S E"], dtype: torch.dtype) -> Float[Tensor, "N H S E"]:
        return F.normalize(k, dim=-1).to(dtype)

    def scaled_query(
        self, q: Float[Tensor, "N H L E"], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "N H L E"], float | None]:
        temperature = self.log_scale.clamp(max=SelfAttention.MAX_LOG_SCALE).exp()
        return (F.normalize(q, dim=-1) * temperature.to(q.dtype)).to(dtype), 1.0


class Block(GradientCheckpointingLayer):
    """One layer. AdaLN parameters = what all layers share (from the condition) + this layer's own offset.

    Its activations can be computed again in the backward pass (`VARGPT.gradient_checkpointing_enable`).
    """

    def __init__(
        self, hidden_size: int, num_heads: int, mlp_size: int, cross_attention: CrossAttention, eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size, eps=eps, elementwise_affine=False)
        self.attention = SelfAttention(hidden_size, num_heads)
        self.norm_cross = nn.LayerNorm(hidden_size, eps=eps)
        self.cross_attention = cross_attention
        self.norm2 = nn.LayerNorm(hidden_size, eps=eps, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(hidden_size, mlp_size), nn.GELU("tanh"), nn.Linear(mlp_size, hidden_size))
        offsets = torch.randn(6, hidden_size) / hidden_size**0.5
        offsets[:2] += INITIAL_GATE
        self.modulation = nn.Parameter(offsets)

    def forward(
        self,
        x: Float[Tensor, "N L D"],
        shared_modulation: Float[Tensor, "N 6 D"],
        memory: Float[Tensor, "N S M"],
        memory_mask: Bool[Tensor, "N 1 1 S"],
        rotary: Rotary,
        mask: Bool[Tensor, "L K"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "N L D"]:
        """`mask` is needed in training only: with a cache, the keys are exactly the scales that may be seen."""
        modulation = (shared_modulation + self.modulation).to(x.dtype)
        gate1, gate2, scale1, scale2, shift1, shift2 = (part[:, None] for part in modulation.unbind(1))
        x = torch.addcmul(x, gate1, self.attention(modulated(self.norm1(x), scale1, shift1), rotary, mask, cache))
        x = x + self.cross_attention(self.norm_cross(x), memory, memory_mask, cache)
        return torch.addcmul(x, gate2, self.mlp(modulated(self.norm2(x), scale2, shift2)))


def modulated(x: Float[Tensor, "N L D"], scale: Float[Tensor, "N 1 D"], shift: Float[Tensor, "N 1 D"]) -> Tensor:
    """AdaLN, in one pass over the tokens."""
    return torch.addcmul(shift, x, 1 + scale)
