"""From a sequence of text states to one vector: the attentive pool of Infinity (arXiv 2412.04431), published form.

Shape legend: N rows, S memory positions, D memory width, C generator width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vargpt.generators.parts import rounded

POOL_HEAD_WIDTH = 128  # of the memory: its width over this is the number of heads


class AttentivePool(nn.Module):
    """One learned query per head attends to the memory; the heads together are projected."""

    def __init__(self, memory_size: int, hidden_size: int, rounded: bool = False) -> None:
        super().__init__()
        self.rounded = rounded
        self.num_heads = max(1, memory_size // POOL_HEAD_WIDTH)
        if hidden_size % self.num_heads:
            raise ValueError(f"{self.num_heads} pooling heads do not divide a width of {hidden_size}")
        self.query = nn.Parameter(torch.randn(self.num_heads, hidden_size // self.num_heads) * 0.02)
        self.key_value = nn.Linear(memory_size, 2 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, states: Float[Tensor, "N S D"], mask: Bool[Tensor, "N S"]) -> Float[Tensor, "N C"]:
        k, v = rearrange(self.key_value(states), "N S (two H E) -> two N H S E", two=2, H=self.num_heads)
        q = self.query[None, :, None].to(k.dtype).expand(len(k), -1, -1, -1)
        if self.rounded:
            q, k, v = (rounded(part) for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        out = rounded(out) if self.rounded else out
        return self.proj(rearrange(out, "N H 1 E -> N (H E)"))
