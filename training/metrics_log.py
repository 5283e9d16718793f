"""What a run writes down of its steps: one line of `metrics.jsonl` each, and the same numbers for tensorboard."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

METRICS = "metrics.jsonl"


class MetricsLog:
    """Appends the metrics of steps to `run_dir/metrics.jsonl`; one process of a run has one.

    Args:
        run_dir: the folder of the run.
        start_step: the step that the run goes on at. Lines of later steps, which a kill has cost the run, are removed.
        tensorboard: also write events below `run_dir/tensorboard`.
        about: what else the first line of this call says.

    Raises:
        ImportError: tensorboard was asked for and is not installed.
    """

    def __init__(self, run_dir: Path, start_step: int, tensorboard: bool, about: Mapping[str, str]) -> None:
        self.file, self.about = run_dir / METRICS, dict(about)
        self.events = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ImportError('tensorboard=True needs tensorboard: pip install "vargpt[train]"') from error
            self.events = SummaryWriter(str(run_dir / "tensorboard"))
        self._forget_after(start_step)

    def _forget_after(self, step: int) -> None:
        if not self.file.is_file():
            return
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            beside = self.file.with_suffix(".tmp")
            beside.write_text("".join(kept), encoding="utf-8")
            os.replace(beside, self.file)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line, flushed: what is written survives a kill."""
        numbers = {name: float(f"{value:.6g}") for name, value in metrics.items()}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | self.about | numbers) + "\n")
        self.about = {}
        if self.events is not None:
            for name, value in metrics.items():
                self.events.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        if self.events is not None:
            self.events.close()
