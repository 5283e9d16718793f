"""Repeating the source of an edit, cell by cell.

An edit leaves most of a page as it was. A network that sees the source only as one more input must learn an exact
subtraction for every bit of it; here the subtraction is done, and what is learnt is where to repeat and where to
repaint, as a pointer network learns where to copy (arXiv 1506.03134).

Shape legend: R rows (branches and images), l tokens, C width, d bits.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import initialization as init

GAIN = 10.0  # nats per unit of the gate
FIRST_GATE = 0.2  # repeating is likelier than not before anything is learnt


class SourceCopy(nn.Module):
    """Adds to the log-odds of every bit what the source would have there, as much as a gate for each token says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 1)

    @torch.no_grad()
    def init_gate(self) -> None:
        init.zeros_(self.gate.weight)
        init.constant_(self.gate.bias, FIRST_GATE)

    def forward(self, states: Float[Tensor, "R l C"], rest: Float[Tensor, "R l d"]) -> Float[Tensor, "R l d"]:
        """Log-odds in nats; `rest` is what the source holds beyond the scales drawn so far (`TokenCodec.rest`).

        Bits whose rest is near zero are told weakly, for their signs turn with the slightest change.
        """
        usual = rest.abs().mean(-1, keepdim=True).clamp(min=1e-6)
        return GAIN * self.gate(states) * (2 * rest / usual).clamp(-1, 1).to(states.dtype)
