"""One training loop for everything here: AdamW, a schedule in steps, averaged weights, a state that resumes exactly.

In go a model, a function that turns a batch into a loss, and a function that yields batches from a given step on. Out
comes a `run_dir` with `metrics.jsonl` (one line per step) and `state.pt` (everything needed to continue). A time budget
or a signal only stops: the schedule is in steps, so a run in three pieces equals a run in one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.autocast import Autocast, check_autocast, settled_autocast
from training.optimizers import Optimizer, adamw, muon
from training.state import AveragedWeights, load_state, save_state

logger = logging.getLogger(__name__)

Batch = Any
Metrics = dict[str, Any]  # floats, or tensors with one element
ComputeLoss = Callable[[nn.Module, Batch, int], tuple[Tensor, Metrics]]
Batches = Callable[[int], Iterator[Batch]]


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long and how fast to learn. Steps count optimiser steps; the data decide the batch size.

    `time_budget_minutes` stops this call and saves; it never changes the schedule. `ema_decay=0` averages nothing.
    `autocast` "auto" is "bf16" where that is quicker than float32 (`training.autocast`).
    """

    total_steps: int
    learning_rate: float
    warmup_steps: int = 100
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    optimizer: Literal["adamw", "muon"] = "adamw"
    final_lr_ratio: float = 0.05
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    time_budget_minutes: float | None = None
    save_every_minutes: float = 5.0
    save_frozen: bool = True  # False: the state leaves out weights that do not learn, as those below an adapter
    log_every: int = 1
    sample_every: int = 0  # steps between calls of on_sample; 0 = only at the end
    autocast: Autocast = "auto"
    device: str = "auto"
    seed: int = 0
    max_bad_steps: int = 20  # non-finite losses in a row before giving up

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "linear", "constant"):
            raise ValueError(f"schedule is 'cosine', 'linear' or 'constant', got {self.schedule!r}")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer is 'adamw' or 'muon', got {self.optimizer!r}")
        check_autocast(self.autocast)
        if self.total_steps < 1 or not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"total_steps >= 1 and 0 <= ema_decay < 1 are needed, got {self.total_steps} and {self.ema_decay}"
            )

    def learning_rate_at(self, step: int) -> float:
        """The rate of optimiser step `step` (0-based): linear warm-up, then the schedule down to `final_lr_ratio`."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
        shape = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
        return self.learning_rate * (self.final_lr_ratio + (1 - self.final_lr_ratio) * shape[self.schedule])


@dataclass(frozen=True)
class Finished:
    """How a call of `run` ended. `done` is False when time or a signal stopped it: call again to continue."""

    step: int
    done: bool
    ema: AveragedWeights | None
    metrics: dict[str, float]
    autocast: Literal["bf16", "none"]  # in which it has computed


def run(
    settings: LoopSettings,
    model: nn.Module,
    compute_loss: ComputeLoss,
    batches: Batches,
    run_dir: Path,
    on_sample: Callable[[nn.Module, int], None] | None = None,
) -> Finished:
    """Trains `model` in place, from `run_dir/state.pt` if there is one.

    Args:
        settings: see `LoopSettings`.
        model: its parameters with requires_grad are trained. Moved to the device.
        compute_loss: (model, batch, step) -> (scalar loss, metrics to log). Runs under autocast.
        batches: start step -> iterator of batches; batch i must depend on i only, so that a resumed run sees the same.
            Nested lists, tuples and dicts of tensors are moved to the device.
        run_dir: where metrics and state go.
        on_sample: called with the averaged model in eval mode every `sample_every` steps and at the end.

    Raises:
        FloatingPointError: after `max_bad_steps` non-finite losses in a row.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    device = pick_device(settings.device)
    autocast = settled_autocast(settings.autocast, device, model)
    settings = dataclasses.replace(settings, autocast=autocast)
    seed_everything(settings.seed)
    model.to(device).train()
    optimizer = make_optimizer(model, settings)
    ema = AveragedWeights(model, settings.ema_decay) if settings.ema_decay else None
    step = load_state(run_dir / "state.pt", model, optimizer, ema)
    iterator = batches(step)
    started = last_save = time.monotonic()
    metrics: dict[str, float] = {}
    about = {"autocast": autocast}  # into the first line of this call
    bad_steps = 0
    with stop_on_signal() as stopped, (run_dir / "metrics.jsonl").open("a") as log:
        bar = tqdm(total=settings.total_steps, initial=step, dynamic_ncols=True, mininterval=5)
        while step < settings.total_steps and not stopped.is_set and not out_of_time(settings, started):
            begin = time.monotonic()
            batch = to_device(next(iterator), device)
            waited = time.monotonic() - begin
            loss, metrics, grad_norm = train_step(settings, model, optimizer, compute_loss, batch, step, device)
            bad_steps = 0 if math.isfinite(grad_norm) and math.isfinite(loss) else bad_steps + 1
            if bad_steps:
                logger.warning("step %d was skipped: loss %s, gradient norm %s", step, loss, grad_norm)
            elif ema is not None:
                ema.update(model, step)
            if bad_steps > settings.max_bad_steps:
                raise FloatingPointError(f"{bad_steps} losses in a row were not finite, the last at step {step}")
            seconds = time.monotonic() - begin
            metrics |= {"loss": loss, "lr": settings.learning_rate_at(step), "grad_norm": grad_norm}
            metrics |= {"samples_per_s": batch_size(batch) / seconds, "data_wait_s": waited}
            metrics |= {"wall_s": time.monotonic() - started}
            step += 1
            if step % settings.log_every == 0 or step == settings.total_steps:
                numbers = {name: round_for_log(value) for name, value in metrics.items()}
                log.write(json.dumps({"step": step} | about | numbers) + "\n")
                log.flush()
                about = {}
            bar.update()
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            if time.monotonic() - last_save > 60 * settings.save_every_minutes:
                save_state(run_dir / "state.pt", model, optimizer, ema, step, settings.save_frozen)
                last_save = time.monotonic()
            if (
                on_sample
                and settings.sample_every
                and step % settings.sample_every == 0
                and step < settings.total_steps
            ):
                sample(model, ema, on_sample, step)
        bar.close()
        save_state(run_dir / "state.pt", model, optimizer, ema, step, settings.save_frozen)
        if on_sample:
            sample(model, ema, on_sample, step)
    return Finished(step, step >= settings.total_steps, ema, metrics, autocast)


def train_step(
    settings: LoopSettings,
    model: nn.Module,
    optimizer: Optimizer,
    compute_loss: ComputeLoss,
    batch: Batch,
    step: int,
    device: torch.device,
) -> tuple[float, dict[str, float], float]:
    """(loss, metrics, gradient norm before clipping). Leaves the weights alone when either is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate_at(step)
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.autocast == "bf16"):
        loss, metrics = compute_loss(model, batch, step)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    grad_norm = float(nn.utils.clip_grad_norm_(trained_parameters(model), settings.clip_norm))
    loss_value = float(loss.detach())
    if math.isfinite(grad_norm) and math.isfinite(loss_value):
        optimizer.step()
    return loss_value, {name: float(value) for name, value in metrics.items()}, grad_norm


def make_optimizer(model: nn.Module, settings: LoopSettings) -> Optimizer:
    """The optimiser that the settings name, over what learns."""
    make = {"adamw": adamw, "muon": muon}[settings.optimizer]
    return make(model, trained_parameters(model), settings.learning_rate, settings.weight_decay, settings.betas)


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def sample(
    model: nn.Module, ema: AveragedWeights | None, on_sample: Callable[[nn.Module, int], None], step: int
) -> None:
    model.eval()
    averaged = ema.applied_to(model) if ema is not None else contextlib.nullcontext()
    # drawing has shapes and caches of its own, not worth compiling for a few pictures
    with torch.no_grad(), averaged, torch.compiler.set_stance("force_eager"):
        on_sample(model, step)
    model.train()


class StopFlag:
    """Becomes set when a signal asks for an end."""

    is_set = False

    def set(self, signal_number: int, _frame: Any) -> None:
        logger.warning("stopping after this step: signal %s", signal.Signals(signal_number).name)
        self.is_set = True


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """SIGTERM and SIGINT set the flag inside the block. Outside the main thread, signals are left alone."""
    flag = StopFlag()
    try:
        before = {number: signal.signal(number, flag.set) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread
        before = {}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def out_of_time(settings: LoopSettings, started: float) -> bool:
    budget = settings.time_budget_minutes
    return budget is not None and time.monotonic() - started > 60 * budget


def pick_device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch with every tensor in it moved; looks into lists, tuples, dicts and dataclasses."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    if dataclasses.is_dataclass(batch):
        names = [field.name for field in dataclasses.fields(batch)]
        return dataclasses.replace(batch, **{name: to_device(getattr(batch, name), device) for name in names})
    return batch


def batch_size(batch: Batch) -> int:
    """The first axis of the first tensor found; 1 when there is none."""
    if isinstance(batch, Tensor):
        return batch.shape[0]
    if dataclasses.is_dataclass(batch):
        batch = vars(batch)
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, list | tuple) and batch:
        return batch_size(batch[0])
    return 1


def round_for_log(value: float) -> float:
    return float(f"{value:.6g}")
