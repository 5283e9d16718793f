"""What TRL's trainers do besides learning: numbers on disk, a stop when the time is over."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class MetricsLog(TrainerCallback):
    """One line of `metrics.jsonl` per logged step, as `training.loop` writes them."""

    def __init__(self, run_dir: Path) -> None:
        self.file = run_dir / "metrics.jsonl"
        self.begun = False

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and logs:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            about = {} if self.begun else {"autocast": "bf16" if args.bf16 else "none"}
            self.begun = True
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step} | about | logs) + "\n")


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
