"""In which numbers a training computes: bfloat16 over float32 weights where the machine gains by it, else float32."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import nn

from training.distributed import world_size
from vargpt.cpu import bfloat16_pays

Autocast = Literal["auto", "bf16", "none"]


def check_autocast(choice: str) -> None:
    """Raises ValueError for what is no `Autocast`."""
    if choice not in get_args(Autocast):
        raise ValueError(f"autocast is 'auto', 'bf16' or 'none', got {choice!r}")


def settled_autocast(choice: Autocast, device: torch.device, model: nn.Module | None = None) -> Literal["bf16", "none"]:
    """What "auto" comes to: "bf16" where it pays (`vargpt.cpu`), in all processes alike.

    Weights of `model` that are bfloat16 themselves decide, too: float32 inputs do not go with them.
    """
    if choice != "auto":
        return choice
    if model is not None and any(parameter.dtype == torch.bfloat16 for parameter in model.parameters()):
        return "bf16"
    pays = torch.tensor(float(bfloat16_pays(device)), device=device)
    if world_size() > 1:
        dist.broadcast(pays, 0)
    return "bf16" if bool(pays) else "none"


def words_for(autocast: Literal["bf16", "none"]) -> str:
    """For reports."""
    return "bfloat16 autocast" if autocast == "bf16" else "float32"
