"""Optimisers by name: AdamW for everything, or Muon for the matrices inside the layers and AdamW for the rest.

Muon (Jordan et al., 2024; torch.optim.Muon) makes all directions of a matrix' update equally long, so that what is
rarely asked for is learnt as well as what is asked for all the time. Its updates are scaled to the root mean square
that AdamW's have, so that one learning rate serves both (Moonlight, arXiv 2502.16982).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class Together:
    """Several optimisers behind the interface of one."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)


Optimizer = torch.optim.Optimizer | Together


def adamw(
    model: nn.Module, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float,
    betas: tuple[float, float],
) -> torch.optim.AdamW:  # fmt: skip
    """AdamW without decay on vectors (norms, biases) and embedding tables."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed = [p for p in parameters if p.ndim > 1 and id(p) not in embeddings]
    plain = [p for p in parameters if p.ndim <= 1 or id(p) in embeddings]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)


def muon(
    model: nn.Module, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float,
    betas: tuple[float, float],
) -> Together:  # fmt: skip
    """Muon for the linear layers inside stacks of layers; AdamW for embeddings, heads, projectors, norms, biases."""
    matrices = inner_matrices(model)
    inner = [p for p in parameters if id(p) in matrices]
    outer = [p for p in parameters if id(p) not in matrices]
    return Together(
        torch.optim.Muon(inner, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        adamw(model, outer, learning_rate, weight_decay, betas),
    )


def inner_matrices(model: nn.Module) -> set[int]:
    """Ids of the weights of linear layers inside a `ModuleList`."""
    return {
        id(linear.weight)
        for stack in model.modules()
        if isinstance(stack, nn.ModuleList)
        for linear in stack.modules()
        if isinstance(linear, nn.Linear)
    }
