"""The one training loop: tokenizers, the ViT, the assistant and every generator learn by it, in one process or in many.

In: a model, a function that turns a micro-batch into its share of the loss of a whole step, and a function that yields
micro-batches from a given step on. Out: a `run_dir` with `metrics.jsonl` (one line per step) and `checkpoints/` (all
that is needed to continue). A time budget or a signal only stops: the schedule is in steps and all chance is keyed by
step or sample, so a run in three pieces, or in two processes, equals a run in one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.autocast import Autocast, check_autocast, settled_autocast
from training.averaged_weights import AveragedWeights, learning_values
from training.checkpoints import load_checkpoint, save_checkpoint
from training.distributed import gather_into, is_main, join, replicated, summed, whole, without_sync, world_size
from training.metrics_log import MetricsLog
from training.optimizers import Optimizer, adamw, muon

logger = logging.getLogger(__name__)

Batch = Any
Sums = dict[str, Tensor]  # of a micro-batch; the sums over all of them are what a step reports
Losses = Callable[[nn.Module, Batch, int], tuple[Tensor, Sums]]
Report = Callable[[Sums], dict[str, float]]
Batches = Callable[[int], Iterator[Batch]]
OnSample = Callable[[nn.Module, int], None]


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long and how fast to learn. Steps count optimiser steps; the data decide the batch size.

    `time_budget_minutes` stops this call and saves; it never changes the schedule. `ema_decay=0` averages nothing.
    `autocast` "auto" is "bf16" where that is quicker than float32 (`training.autocast`). A batch is cut into
    `accumulation` micro-batches (in every process), which changes memory and nothing else. `tensorboard` writes the
    metrics for it too.
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
    accumulation: int = 1
    tensorboard: bool = False
    max_bad_steps: int = 20  # non-finite losses in a row before giving up

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "linear", "constant"):
            raise ValueError(f"schedule is 'cosine', 'linear' or 'constant', got {self.schedule!r}")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer is 'adamw' or 'muon', got {self.optimizer!r}")
        check_autocast(self.autocast)
        if self.accumulation < 1:
            raise ValueError(
                f"accumulation is the number of micro-batches of a step, at least 1; got {self.accumulation}"
            )
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


def plain_numbers(sums: Sums) -> dict[str, float]:
    """The report of losses whose sums are the metrics."""
    return {name: float(value) for name, value in sums.items()}


def run(
    settings: LoopSettings,
    model: nn.Module,
    losses: Losses,
    batches: Batches,
    run_dir: Path,
    report: Report = plain_numbers,
    on_sample: OnSample | None = None,
    whole_model: nn.Module | None = None,
) -> Finished:
    """Trains `model` in place, from the last checkpoint in `run_dir` if there is one.

    Without any time nothing is done; otherwise a call makes at least one step. Processes that torchrun started share
    every batch; the first one writes and samples.

    Args:
        settings: see `LoopSettings`.
        model: its parameters with requires_grad are trained. Moved to the device.
        losses: (model, micro-batch, step) -> (share of the loss of the whole step, sums for the report). Runs under
            autocast. The model it is given may be a wrapper around `model`; the shares of all micro-batches of all
            processes add up to the loss. A sum "samples" becomes samples per second.
        batches: start step -> iterator of this process's micro-batches, `accumulation` for every step; those of step i
            must depend on i only. Nested lists, tuples, dicts and dataclasses of tensors are moved to the device.
        run_dir: where metrics and checkpoints go; a folder that all processes see.
        report: makes metrics of the sums over a step.
        on_sample: called with the averaged model in eval mode every `sample_every` steps and at the end.
        whole_model: where `model` is sharded, the same model whole, which is sampled from and holds the result.

    Raises:
        ImportError: a tensorboard that was asked for is not installed.
        ValueError: the folder holds a run of another kind.
        FloatingPointError: after `max_bad_steps` non-finite losses in a row.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    device = join(settings.device)
    autocast = settled_autocast(settings.autocast, device, model)
    settings = dataclasses.replace(settings, autocast=autocast)
    seed_everything(settings.seed)
    model.to(device).train()
    optimizer = make_optimizer(model, settings)
    ema = AveragedWeights(model, settings.ema_decay) if settings.ema_decay else None
    begun_at = step = load_checkpoint(run_dir, model, optimizer, ema)
    stepper = Stepper(settings, model, replicated(model, device), optimizer, losses, report, device)

    is_sharded = whole_model is not None and whole_model is not model

    def show(step: int) -> None:
        if is_sharded:
            gather_into(whole_model, learning_values(model) if ema is None else ema.values)
        if on_sample is not None and is_main():
            sample(whole_model if is_sharded else model, None if is_sharded else ema, on_sample, step)

    metrics: dict[str, float] = {}
    log = MetricsLog(run_dir, step, settings.tensorboard, {"autocast": autocast}) if is_main() else None
    iterator = batches(step)
    budget = settings.time_budget_minutes
    bar = tqdm(total=settings.total_steps, initial=step, dynamic_ncols=True, mininterval=5, disable=not is_main())
    with stop_on_signal() as stopped, bar:
        clock = Clock(settings, stopped)
        while step < settings.total_steps and not clock.stop and (budget is None or budget > 0):
            metrics, is_finite = stepper.take(step, iterator, clock)
            if ema is not None and is_finite:
                ema.update(model, step)
            step += 1
            metrics["wall_s"] = time.monotonic() - clock.started
            if log is not None and (step % settings.log_every == 0 or step == settings.total_steps):
                log.write(step, metrics)
            bar.update()
            bar.set_postfix(loss=f"{metrics['loss']:.4f}", refresh=False)
            if clock.save and step < settings.total_steps and not clock.stop:
                save_checkpoint(run_dir, model, optimizer, ema, step, settings.save_frozen)
                clock.last_save = time.monotonic()
            if settings.sample_every and step % settings.sample_every == 0 and step < settings.total_steps:
                show(step)
    if step > begun_at:
        save_checkpoint(run_dir, model, optimizer, ema, step, settings.save_frozen)
    if log is not None:
        log.close()
    show(step)
    if is_sharded:
        gather_into(whole_model, learning_values(model))
        ema = None if ema is None else ema.put_together()
    return Finished(step, step >= settings.total_steps, ema, metrics, autocast)


@dataclass
class Clock:
    """What one process may ask all of them to do after a step: stop because of time or a signal, save because of time.

    Clocks and signals differ between processes, so these travel with the sums of the step: one exchange.
    """

    settings: LoopSettings
    stopped: StopFlag
    started: float = field(default_factory=time.monotonic)
    last_save: float = field(default_factory=time.monotonic)
    stop: bool = False
    save: bool = False

    def sum_with(self, sums: Sums) -> Sums:
        """The sums over all processes. Afterwards `stop` and `save` are what any of them wanted."""
        now, budget = time.monotonic(), self.settings.time_budget_minutes
        late = budget is not None and now - self.started > 60 * budget
        due = now - self.last_save > 60 * self.settings.save_every_minutes
        names = sorted(sums)
        vector = torch.stack([sums[name].detach().float() for name in names])
        asked = torch.tensor([float(late or self.stopped.is_set), float(due)], device=vector.device)
        *numbers, stop, save = summed(torch.cat((vector, asked))).cpu()
        self.stop, self.save = bool(stop), bool(save)
        return dict(zip(names, numbers, strict=True))


@dataclass
class Stepper:
    """One optimiser step: the gradients of all micro-batches of all processes, clipped, and dropped if not finite."""

    settings: LoopSettings
    model: nn.Module
    wrapped: nn.Module  # what passes forward: the model, or the wrapper that sums gradients over processes
    optimizer: Optimizer
    losses: Losses
    report: Report
    device: torch.device
    bad_steps: int = 0

    def take(self, step: int, iterator: Iterator[Batch], clock: Clock) -> tuple[dict[str, float], bool]:
        """(metrics, whether the weights were moved).

        Raises:
            FloatingPointError: after `max_bad_steps` losses in a row that were not finite.
        """
        settings, rate = self.settings, self.settings.learning_rate_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        begin = time.monotonic()
        parts = [next(iterator) for _ in range(settings.accumulation)]
        waited = time.monotonic() - begin
        torch.manual_seed(settings.seed * 1_000_003 + step)  # dropout, wherever a run begins
        sums = clock.sum_with(self._gradients(parts, step))
        norm = nn.utils.clip_grad_norm_(trained_parameters(self.model), settings.clip_norm)
        loss, grad_norm = float(sums["loss"]), float(whole(norm))
        is_finite = math.isfinite(loss) and math.isfinite(grad_norm)
        self.bad_steps = 0 if is_finite else self.bad_steps + 1
        if is_finite:
            self.optimizer.step()
        else:
            logger.warning("step %d was skipped: loss %s, gradient norm %s", step, loss, grad_norm)
        self.optimizer.zero_grad(set_to_none=True)
        if self.bad_steps > settings.max_bad_steps:
            raise FloatingPointError(f"{self.bad_steps} losses in a row were not finite, the last at step {step}")
        metrics = self.report(sums) | {"loss": loss, "lr": rate, "grad_norm": grad_norm, "data_wait_s": waited}
        if "samples" in metrics:
            metrics["samples_per_s"] = metrics.pop("samples") / (time.monotonic() - begin)
        return metrics, is_finite

    def _gradients(self, parts: list[Batch], step: int) -> Sums:
        """Adds up the gradients of the micro-batches; the sums of this process, the loss among them."""
        sums: Sums = {}
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            with contextlib.nullcontext() if is_last else without_sync(self.wrapped):
                batch = to_device(part, self.device)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.autocast == "bf16"):
                    loss, of_part = self.losses(self.wrapped, batch, step)
                (loss * world_size()).backward()  # gradients are averaged over the processes, and shares add up
            for name, value in (of_part | {"loss": loss.detach()}).items():
                value = torch.as_tensor(value, device=self.device).detach()
                sums[name] = sums[name] + value if name in sums else value
        return sums


def make_optimizer(model: nn.Module, settings: LoopSettings) -> Optimizer:
    """The optimiser that the settings name, over what learns."""
    make = {"adamw": adamw, "muon": muon}[settings.optimizer]
    return make(model, trained_parameters(model), settings.learning_rate, settings.weight_decay, settings.betas)


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def sample(model: nn.Module, ema: AveragedWeights | None, on_sample: OnSample, step: int) -> None:
    """Calls `on_sample` with the model in eval mode and, where there are any, its averaged weights."""
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
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        names = [field.name for field in dataclasses.fields(batch)]
        return dataclasses.replace(batch, **{name: to_device(getattr(batch, name), device) for name in names})
    return batch
