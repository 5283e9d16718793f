"""Checkpoints that any number of processes write and any other number reads: `checkpoints/step_N` in a run.

In and out go the weights, the averaged weights and the optimiser, by the names of the parameters, in the format of
`torch.distributed.checkpoint`: each process writes its part, sharded weights included. Nothing random is kept, since
all that training draws is keyed by sample or step. A checkpoint is written beside its place and then renamed, and only
then does the one before it go: a process killed at any moment leaves a whole one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader

from training.averaged_weights import AveragedWeights, learning_values
from training.distributed import is_main, wait_for_all, world_size
from training.optimizers import Optimizer, Together

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
ABOUT = "about.json"
TENSORS = "tensors"
NAME = re.compile(r"step_(\d+)")
UNFINISHED = ".unfinished"


def checkpoint_of(run_dir: Path) -> Path | None:
    """The last finished checkpoint of a run."""
    folder = run_dir / FOLDER
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return max(found, key=step_of, default=None)


def step_of(path: Path) -> int:
    match = NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def stored_tensors(path: Path) -> dict[str, Any]:
    """What is known of every tensor of a checkpoint, by "model/NAME", "ema/NAME" and "optimizer/FIELD/NAME"."""
    found = FileSystemReader(path).read_metadata().state_dict_metadata
    return {name.removeprefix(f"{TENSORS}."): about for name, about in found.items()}


def save_checkpoint(
    run_dir: Path,
    model: nn.Module,
    optimizer: Optimizer,
    ema: AveragedWeights | None,
    step: int,
    save_frozen: bool = True,
) -> None:
    """Writes the checkpoint of a step and removes the ones before it. All processes call it together.

    Without `save_frozen`, what does not learn is left out; it must then be there already when the run goes on.
    """
    place = run_dir / FOLDER / f"step_{step:07d}"
    beside = place.with_name(place.name + UNFINISHED)
    if is_main():
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True, exist_ok=True)
    wait_for_all()
    if not place.exists():
        tensors = weights_of(model, save_frozen) | averages_of(ema) | optimizer_tensors(model, optimizer)
        with quiet_alone():
            dcp.save({TENSORS: tensors}, checkpoint_id=beside, no_dist=world_size() == 1)
    wait_for_all()
    if is_main():
        finish(place, beside, {"step": step, "optimizer": kind_of(optimizer), "save_frozen": save_frozen})
    wait_for_all()


def finish(place: Path, beside: Path, about: dict[str, Any]) -> None:
    """Gives a written checkpoint its name and removes all others."""
    if not place.exists():
        (beside / ABOUT).write_text(json.dumps(about), encoding="utf-8")
        os.replace(beside, place)
    for path in place.parent.iterdir():
        if path != place and (NAME.fullmatch(path.name) or path.name.endswith(UNFINISHED)):
            shutil.rmtree(path, ignore_errors=True)


def load_checkpoint(run_dir: Path, model: nn.Module, optimizer: Optimizer, ema: AveragedWeights | None) -> int:
    """The step to continue at, with everything as it was then; 0 when there is no checkpoint yet.

    Raises:
        ValueError: the checkpoint is of another kind of optimiser, or of other parameters.
    """
    path = checkpoint_of(run_dir)
    if path is None:
        return 0
    about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    if about["optimizer"] != kind_of(optimizer):
        raise ValueError(
            f"{path} was saved with another optimiser ({about['optimizer']}); set the same `optimizer` as before, or "
            "begin in another folder"
        )
    stored = stored_tensors(path)
    weights = weights_of(model, about["save_frozen"])
    if {name for name in stored if name.startswith("model/")} != set(weights):
        raise ValueError(f"{path} was saved by a run in which other parameters learnt; begin in another folder")
    averages = {name: value for name, value in averages_of(ema).items() if name in stored}
    moments = room_for_moments(model, stored)
    with quiet_alone():
        dcp.load({TENSORS: weights | averages | moments}, checkpoint_id=path, no_dist=world_size() == 1)
    put_moments(model, optimizer, moments)
    logger.info("continuing at step %d from %s", about["step"], path)
    return about["step"]


@contextlib.contextmanager
def quiet_alone() -> Iterator[None]:
    """Without the remark that a single process is a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


# -- names of tensors --------------------------------------------------------------------------------------------------


def weights_of(model: nn.Module, with_frozen: bool) -> dict[str, Tensor]:
    values = model.state_dict() if with_frozen else learning_values(model)
    return {f"model/{name}": value for name, value in values.items()}


def averages_of(ema: AveragedWeights | None) -> dict[str, Tensor]:
    return {} if ema is None else {f"ema/{name}": value for name, value in ema.values.items()}


def kind_of(optimizer: Optimizer) -> str:
    return " + ".join(type(part).__name__ for part in parts_of(optimizer))


def parts_of(optimizer: Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    return optimizer.optimizers if isinstance(optimizer, Together) else (optimizer,)


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers of every parameter that it has moved."""
    states = {id(parameter): state for part in parts_of(optimizer) for parameter, state in part.state.items()}
    return {
        f"optimizer/{field}/{name}": value
        for name, parameter in model.named_parameters()
        for field, value in states.get(id(parameter), {}).items()
    }


def room_for_moments(model: nn.Module, stored: dict[str, Any]) -> dict[str, Tensor]:
    """Empty tensors for all that a stored optimiser remembers, spread over processes as their parameters are."""
    parameters = dict(model.named_parameters())
    room = {}
    for key, about in stored.items():
        if key.startswith("optimizer/"):
            parameter = parameters[key.split("/", 2)[2]].detach()
            like = parameter if about.size == parameter.shape else torch.empty(about.size)
            room[key] = torch.empty_like(like, dtype=about.properties.dtype)
    return room


def put_moments(model: nn.Module, optimizer: Optimizer, moments: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    owners = {
        id(parameter): part
        for part in parts_of(optimizer)
        for group in part.param_groups
        for parameter in group["params"]
    }
    for key, value in moments.items():
        _, field, name = key.split("/", 2)
        parameter = parameters[name]
        owners[id(parameter)].state[parameter][field] = value
