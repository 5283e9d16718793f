"""Infinity's next-scale generator (arXiv 2412.04431), which VARGPT-v1.1 (arXiv 2504.02949) draws with, too.

In: an `ImageContext` whose memory are text states. Out: bits, scale by scale (`bitwise.py`). The memory is normalised
and projected; AdaLN and the start follow from an attentive pool over it. The null is a sequence: as many of its states
as the memory has stand in for it, all of them at most (published code fails beyond).

Shape legend: G branches, N images, S memory positions, P positions that are pooled, C width, D memory width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vargpt.config import InfinityConfig
from vargpt.generators.bitwise import BitwiseGenerator, Memory, Scales
from vargpt.generators.parts import CrossAttention, Rotary, rotary_2d
from vargpt.generators.schedules import corner_positions_2d
from vargpt.types import Branch, ImageLayout

POOL_HEAD_WIDTH = 128  # of the memory: its width over this is the number of heads


class AttentivePool(nn.Module):
    """From a sequence of text states to one vector: one learned query per head attends, the heads are projected."""

    attend = staticmethod(F.scaled_dot_product_attention)

    def __init__(self, memory_size: int, hidden_size: int) -> None:
        super().__init__()
        self.num_heads = max(1, memory_size // POOL_HEAD_WIDTH)
        if hidden_size % self.num_heads:
            raise ValueError(f"{self.num_heads} pooling heads do not divide a width of {hidden_size}")
        self.query = nn.Parameter(torch.randn(self.num_heads, hidden_size // self.num_heads) * 0.02)
        self.key_value = nn.Linear(memory_size, 2 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, states: Float[Tensor, "N S D"], mask: Bool[Tensor, "N S"]) -> Float[Tensor, "N C"]:
        k, v = rearrange(self.key_value(states), "N S (two H E) -> two N H S E", two=2, H=self.num_heads)
        q = self.query[None, :, None].to(k.dtype).expand(len(k), -1, -1, -1)
        out = self.attend(q, k, v, attn_mask=mask[:, None, None])
        return self.proj(rearrange(out, "N H 1 E -> N (H E)"))


class InfinityGenerator(BitwiseGenerator):
    """Draws from text states alone."""

    special_settings: ClassVar[frozenset[str]] = frozenset({"guidance_layer"})
    config: InfinityConfig

    def make_conditioning(self) -> None:
        width, memory_size = self.config.hidden_size, self.config.memory_size
        self.memory_norm = nn.RMSNorm(memory_size, eps=self.config.norm_eps)
        self.memory_proj = nn.Sequential(nn.Linear(memory_size, width), nn.GELU("tanh"), nn.Linear(width, width))
        self.pool = AttentivePool(memory_size, width)
        null = torch.randn(self.config.null_length, memory_size) * self.config.initializer_range
        self.null_memory = nn.Parameter(null)

    def make_cross_attention(self) -> CrossAttention:
        return CrossAttention(self.config.hidden_size, self.config.hidden_size, self.config.num_heads)

    # -- what an image is drawn from -------------------------------------------------------------------------------

    def projected(self, states: Float[Tensor, "GN S D"]) -> Float[Tensor, "GN S K"]:
        """The memory as cross-attention sees it."""
        return self.memory_proj(self.memory_norm(states))

    def pooled(self, states: Float[Tensor, "N P D"], mask: Bool[Tensor, "N P"] | None = None) -> Float[Tensor, "N C"]:
        """The AdaLN condition, and what joins the start."""
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if mask is None else mask
        return self.pool(self.memory_norm(states), mask)

    def pooled_states(self, branch: Branch, num_images: int) -> Float[Tensor, "N 1 D"]:
        """What the condition of a branch that names it is pooled from: that, or the first state of the null."""
        null = self.null_memory[:1].expand(num_images, 1, -1)
        if branch.pooled is None:
            return null
        if branch.pooled_mask is None:
            return branch.pooled
        return torch.where(branch.pooled_mask[:, None, None], branch.pooled, null)

    def memory(self, branches: Sequence[Branch], num_images: int) -> Memory:
        longest = max((b.memory.shape[1] for b in branches if b.memory is not None), default=self.config.null_length)
        lengths = self._lengths(branches, num_images)
        states, masks, conditions = [], [], []
        for branch in branches:
            state, mask = self._states(branch.memory, branch.memory_mask, lengths)
            if any(other.pooled is not None for other in branches):
                conditions.append(self.pooled(self.pooled_states(branch, num_images)))
            else:
                conditions.append(self.pooled(state, mask))
            pad = longest - state.shape[1]
            states.append(F.pad(state, (0, 0, 0, pad)))
            masks.append(F.pad(mask, (0, pad)))
        keys = self.projected(torch.cat(states))
        return Memory(keys, torch.cat(masks)[:, None, None], None, torch.cat(conditions))

    def _lengths(self, branches: Sequence[Branch], num_images: int) -> Int[Tensor, " N"]:
        """How many states of the null each image gets: as many as its conditional memory has."""
        first = next((b for b in branches if b.memory is not None), None)
        if first is None or first.memory is None:
            return torch.full((num_images,), self.config.null_length, device=self.null_memory.device)
        if first.null_lengths is not None:
            return first.null_lengths
        if first.memory_mask is None:
            return torch.full((num_images,), first.memory.shape[1], device=self.null_memory.device)
        return first.memory_mask.sum(1)

    def _states(
        self, states: Tensor | None, mask: Tensor | None, lengths: Int[Tensor, " N"]
    ) -> tuple[Float[Tensor, "N S D"], Bool[Tensor, "N S"]]:
        """A branch's own states; the null for a branch without, and for rows that may attend nothing."""
        length = int(lengths.clamp(max=self.config.null_length).max())
        null = self.null_memory[:length].expand(len(lengths), -1, -1)
        null_mask = torch.arange(length, device=null.device) < lengths[:, None]
        if states is None:
            return null, null_mask
        if mask is None:
            return states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        empty = ~mask.any(1)
        if not bool(empty.any()):
            return states, mask
        size = max(length, states.shape[1])
        null, null_mask = F.pad(null, (0, 0, 0, size - length)), F.pad(null_mask, (0, size - length))
        null_mask[:, :1] = True
        states, mask = F.pad(states, (0, 0, 0, size - states.shape[1])), F.pad(mask, (0, size - mask.shape[1]))
        return torch.where(empty[:, None, None], null.to(states.dtype), states), torch.where(
            empty[:, None], null_mask, mask
        )

    # -- the transformer -------------------------------------------------------------------------------------------

    def condition(self, first_slot: Tensor | None, memory: Memory) -> Float[Tensor, "GN C"]:
        assert memory.condition is not None, "it follows from the memory"
        return memory.condition

    def rotary(self, layout: ImageLayout) -> Rotary:
        positions = corner_positions_2d(layout, self.device)
        return rotary_2d(positions, self.config.hidden_size // self.config.num_heads, self.config.rope_base)

    def embed(
        self, slots: Tensor | None, inputs: Tensor, levels: Tensor, rotary: Rotary, memory: Memory, scales: Scales
    ) -> Float[Tensor, "GN l C"]:
        """Where a language model passes the tokens on, its word is all that enters: codes have gone through it."""
        entering = inputs if slots is None else F.pad(slots, (0, 0, 0, inputs.shape[1] - slots.shape[1]))
        return self.level_embed(levels)[None] + entering
