"""An exponential moving average of the parameters that learn, and copying named values into a model.

Not `torch.optim.swa_utils.AveragedModel`: that copies the whole model, weights that never learn included, and averages
from the first step with the full decay.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from training.distributed import whole


class AveragedWeights:
    """Float32 copies of the trained parameters, moved towards them after each step; young averages forget faster."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {
            name: parameter.detach().float().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average after optimiser step `step` (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            if name in self.values:
                self.values[name].lerp_(parameter.detach().float(), 1 - decay)

    def put_together(self) -> AveragedWeights:
        """The same with whole tensors in main memory, when they were spread over processes, which all call it."""
        values = {name: whole(value).cpu() for name, value in self.values.items()}
        together = copy.copy(self)
        together.values = values
        return together

    @contextlib.contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """The model with averaged weights inside the block, its own afterwards."""
        own = {name: parameter.detach().clone() for name, parameter in model.named_parameters() if name in self.values}
        load_parameters(model, self.values)
        try:
            yield
        finally:
            load_parameters(model, own)


@torch.no_grad()
def load_parameters(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Copies named values into the parameters of that name; other parameters keep theirs."""
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.copy_(values[name])


def learning_values(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that learn, by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
