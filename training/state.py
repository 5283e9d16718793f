"""What a run must remember to continue exactly: weights, optimiser, averaged weights, step and random states."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.distributed import whole
from training.optimizers import Optimizer, Together

logger = logging.getLogger(__name__)


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


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    ema: AveragedWeights | None,
    step: int,
    save_frozen: bool = True,
) -> None:
    """Everything needed to continue, written beside `path` and then renamed: a crash leaves the old state whole.

    Without `save_frozen`, what does not learn is left out; it must then be there already when the run goes on.
    """
    state = {
        "model": model.state_dict() if save_frozen else learning_values(model),
        "only_learning": not save_frozen,
        "optimizer": optimizer.state_dict(),
        "ema": None if ema is None else ema.values,
        "step": step,
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy_rng": np.random.get_state(),
        "python_rng": random.getstate(),
    }
    beside = path.with_suffix(".tmp")
    torch.save(state, beside)
    os.replace(beside, path)


def load_state(path: Path, model: nn.Module, optimizer: Optimizer, ema: AveragedWeights | None) -> int:
    """The step to continue at: 0 when there is no state yet.

    Raises:
        ValueError: the state is of another kind of optimiser, or of other parameters.
    """
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=False)  # our own file: it holds RNG states of numpy
    if isinstance(optimizer, Together) != ("optimizers" in state["optimizer"]):
        raise ValueError(
            f"{path} was saved with another optimiser; set the same `optimizer` as before, or begin in another folder"
        )
    if state.get("only_learning"):
        if set(state["model"]) != set(learning_values(model)):
            raise ValueError(f"{path} was saved by a run in which other parameters learnt; begin in another folder")
        load_parameters(model, state["model"])
    else:
        model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if ema is not None and state["ema"] is not None:
        ema.values = {name: value.to(ema.values[name].device) for name, value in state["ema"].items()}
    torch.set_rng_state(state["torch_rng"])
    if state["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    np.random.set_state(state["numpy_rng"])
    random.setstate(state["python_rng"])
    logger.info("continuing at step %d from %s", state["step"], path.name)
    return state["step"]
