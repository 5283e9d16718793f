"""What TRL's trainers do besides learning: numbers on disk, a stop when the time is over."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.metrics_log import MetricsLog


class LogSteps(TrainerCallback):
    """Writes what a trainer logs to `metrics.jsonl`, by the log that all runs write; process zero only."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.log: MetricsLog | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            about = {"autocast": "bf16" if args.bf16 else "none"}
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self.log = MetricsLog(self.run_dir, state.global_step, tensorboard=False, about=about)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if self.log is not None and logs:
            self.log.write(state.global_step, logs)


class StopAfter(TrainerCallback):
    """Stops and saves when so many minutes are over; the schedule stays in steps, and the next call continues."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if time.monotonic() > self.end:
            control.should_training_stop = control.should_save = True
        return control
