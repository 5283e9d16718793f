"""transformers' Trainer for losses that add up: over micro-batches, over processes, over stops in between.

In: a model, a stream of micro-batches and a function that turns one into its share of the loss of the whole step. The
Trainer brings the loop, the processes and the reports; here is what a step is (one batch, however it was divided), when
the run stops or saves, and what is written down: one line of `metrics.jsonl` per step, as `training.loop` writes them.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback

from training.distributed import is_main, summed, whole, world_size
from training.loop import (
    LoopSettings,
    StopFlag,
    pick_device,
    round_for_log,
    stop_on_signal,
    to_device,
    trained_parameters,
)
from training.optimizers import Optimizer
from training.state import AveragedWeights

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
Batch = dict[str, Tensor]
Sums = dict[str, Tensor]  # of a micro-batch; the sums over all of them are what a step reports
Losses = Callable[[nn.Module, Batch], tuple[Tensor, Sums]]
Report = Callable[[Sums], dict[str, float]]


def training_arguments(loop: LoopSettings, run_dir: Path, accumulation: int) -> TrainingArguments:
    """These settings in the Trainer's words. With it, the processes that torchrun started join.

    Raises:
        ImportError: accelerate is not installed.
        ValueError: the device is not one that a Trainer would take.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise ImportError('fine-tuning needs accelerate: pip install "vargpt[train]"')
    device = pick_device(loop.device)
    arguments = TrainingArguments(
        output_dir=str(run_dir),
        max_steps=loop.total_steps,
        learning_rate=loop.learning_rate,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=loop.clip_norm,
        use_cpu=device.type == "cpu",
        ddp_broadcast_buffers=False,
        ddp_find_unused_parameters=True,  # a batch without pictures leaves the organs of pictures alone
        seed=loop.seed,
        logging_steps=loop.log_every,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
        log_level="error",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are for torchrun, one process each
    if arguments.device.type != device.type or device.index not in (None, arguments.device.index):
        raise ValueError(
            f"training would run on {arguments.device}, not on {device}; a GPU is chosen by CUDA_VISIBLE_DEVICES"
        )
    return arguments


def tensorboard_callback(run_dir: Path) -> TrainerCallback:
    """Writes the same numbers as `metrics.jsonl` for tensorboard, below the run.

    Raises:
        ImportError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError('tensorboard=True needs tensorboard: pip install "vargpt[train]"') from error
    return TensorBoardCallback(SummaryWriter(str(run_dir / "tensorboard")) if is_main() else None)


class SftTrainer(Trainer):
    """A Trainer whose steps are batches, however many processes and micro-batches divide them."""

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        loop: LoopSettings,
        losses: Losses,
        report: Report,
        batches: DataLoader,
        optimizer: Optimizer,
        ema: AveragedWeights | None,
        start_step: int,
        run_dir: Path,
        save: Callable[[int], None],
    ) -> None:
        """`save` and the sampling of `Watch` are called by all processes together, with the steps done so far."""
        super().__init__(model=model, args=arguments, train_dataset=batches.dataset, optimizers=(optimizer, None))
        self.remove_callback(PrinterCallback)
        self.loop, self.losses, self.report, self.batches, self.ema = loop, losses, report, batches, ema
        self.start_step, self.log_file, self.save = start_step, run_dir / METRICS, save
        self.sums: Sums = {}
        self.metrics: dict[str, float] = {}
        self.about = {"autocast": loop.autocast}  # into the first line of this call
        self.wishes = Wishes(loop)
        self.bad_steps = 0
        self.waited = 0.0
        self.begun = time.monotonic()

    def run(self) -> int:
        """Trains until the end, or until time or a signal stops it; the step that was reached.

        Without any time at all nothing is done; otherwise at least one step.
        """
        budget = self.loop.time_budget_minutes
        if self.start_step >= self.loop.total_steps or (budget is not None and budget <= 0):
            return self.start_step
        self.forget_later_steps()
        with stop_on_signal() as self.wishes.flag:
            self.train()
        return self.state.global_step

    def forget_later_steps(self) -> None:
        """Takes from the log what was learnt after the last checkpoint and then lost."""
        if is_main() and self.log_file.is_file():
            lines = self.log_file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.start_step]
            if len(kept) < len(lines):
                beside = self.log_file.with_suffix(".tmp")
                beside.write_text("".join(kept), encoding="utf-8")
                os.replace(beside, self.log_file)

    # -- what the Trainer asks for ---------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """The stream as it is: it knows which process it is for."""
        return self.batches

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        self.lr_scheduler = ScheduleInSteps(self.optimizer, self.loop, self.start_step)
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator: Iterator[Batch], num_batches: int, device: Any = None) -> Any:
        """The micro-batches of a step. The counts that losses are divided by came with them."""
        self.begun = time.monotonic()
        parts = [next(epoch_iterator) for _ in range(num_batches)]
        self.waited = time.monotonic() - self.begun
        return parts, None

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """Adds the gradients of a micro-batch."""
        model.train()
        batch = to_device(inputs, self.args.device)
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.loop.autocast == "bf16"):
            loss, sums = self.losses(model, batch)
        self.accelerator.backward(loss * world_size())  # gradients are averaged over the processes, and shares add up
        for name, value in sums.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        return loss.detach()

    def floating_point_ops(self, inputs: Batch) -> int:
        return 0  # counting them takes longer than they are worth

    def _clip_grad_norm(self, model: nn.Module) -> float:
        """The last word before a step: clips, sums up what all processes saw, and drops what is not finite.

        Raises:
            FloatingPointError: after `max_bad_steps` losses in a row that were not finite.
        """
        norm = nn.utils.clip_grad_norm_(trained_parameters(model), self.loop.clip_norm)
        sums = self.wishes.sum_with(self.sums)
        self.sums = {}
        loss, grad_norm = float(sums["loss"]), float(whole(norm))
        self.metrics = self.report(sums) | {"loss": loss, "lr": self.lr_scheduler.rate, "grad_norm": grad_norm}
        self.bad_steps = 0 if math.isfinite(loss) and math.isfinite(grad_norm) else self.bad_steps + 1
        if self.bad_steps:
            model.zero_grad()  # an optimiser does nothing without gradients
            step = self.state.global_step
            logger.warning("step %d was skipped: loss %s, gradient norm %s", step, loss, grad_norm)
            if self.bad_steps > self.loop.max_bad_steps:
                raise FloatingPointError(f"{self.bad_steps} losses in a row were not finite, the last at step {step}")
        return grad_norm

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        """After the step was logged, so that the log of a run never ends before its checkpoint."""
        self.save(self.state.global_step)
        self.wishes.last_save = time.monotonic()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Writes the numbers of a step where all readers look; what the Trainer says of a whole run is left out."""
        if "grad_norm" not in logs:
            return
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, dict(self.metrics))
        if is_main():
            numbers = {name: round_for_log(value) for name, value in self.metrics.items()}
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.state.global_step} | self.about | numbers) + "\n")
            self.about = {}


class ScheduleInSteps:
    """Sets the rate of every step from the settings alone, and so needs no state."""

    def __init__(self, optimizer: Any, loop: LoopSettings, step: int) -> None:
        self.optimizer, self.loop, self.next_step = optimizer, loop, step
        self.rate = 0.0
        self.step()

    def step(self) -> None:
        self.rate = self.loop.learning_rate_at(self.next_step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.next_step += 1

    def get_last_lr(self) -> list[float]:
        return [self.rate]


class Wishes:
    """What one process may ask all of them to do after a step: stop because of time or a signal, save because of time.

    Clocks and signals differ between processes, so the wishes travel with the numbers of the step: one exchange.
    """

    def __init__(self, loop: LoopSettings) -> None:
        self.loop, self.flag = loop, StopFlag()
        self.started = self.last_save = time.monotonic()
        self.stop = self.save = False

    def sum_with(self, sums: Sums) -> Sums:
        """The sums over all processes. Afterwards `stop` and `save` are what any of them wanted."""
        now, budget = time.monotonic(), self.loop.time_budget_minutes
        late = budget is not None and now - self.started > 60 * budget
        due = now - self.last_save > 60 * self.loop.save_every_minutes
        wanted = [float(late or self.flag.is_set), float(due)]
        names = sorted(sums)
        device = sums[names[0]].device
        vector = torch.stack([sums[name].detach().float() for name in names])
        vector = summed(torch.cat((vector, torch.tensor(wanted, device=device))))
        *numbers, stop, save = vector.cpu()
        self.stop, self.save = bool(stop), bool(save)
        return dict(zip(names, numbers, strict=True))


class Watch(TrainerCallback):
    """Averages the weights, shows progress, samples, and says when to log, save and stop."""

    def __init__(self, trainer: SftTrainer, model: nn.Module, sample: Callable[[int], None]) -> None:
        self.trainer, self.model, self.sample = trainer, model, sample
        self.bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        state.global_step = self.trainer.start_step
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, dynamic_ncols=True, mininterval=5, disable=not is_main()
        )

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        torch.manual_seed(self.trainer.loop.seed * 1_000_003 + state.global_step)  # dropout, wherever a run begins

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        trainer, loop, wishes = self.trainer, self.trainer.loop, self.trainer.wishes
        step, is_last = state.global_step, state.global_step >= state.max_steps
        if trainer.ema is not None and not trainer.bad_steps:
            trainer.ema.update(self.model, step - 1)
        seconds = time.monotonic() - trainer.begun
        trainer.metrics["samples_per_s"] = trainer.metrics.pop("samples", 0.0) / seconds
        trainer.metrics["data_wait_s"] = trainer.waited
        trainer.metrics["wall_s"] = time.monotonic() - wishes.started
        self.bar.update()
        self.bar.set_postfix(loss=f"{trainer.metrics['loss']:.4f}", refresh=False)
        control.should_training_stop = is_last or wishes.stop
        control.should_save = control.should_training_stop or wishes.save
        control.should_log = step % loop.log_every == 0 or is_last
        if loop.sample_every and step % loop.sample_every == 0 and not is_last:
            self.sample(step)
        return control

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.close()
