"""What the commands that measure do between the command line and the measuring: tables to show, numbers to keep."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table
from tqdm import tqdm

from vargpt.benchmarks.architecture_report import scale_table, variant_table
from vargpt.benchmarks.architecture_speed import measure_architecture
from vargpt.benchmarks.loading_speed import measure_loading, write_random_checkpoint
from vargpt.benchmarks.speed import Speed, speed_lines
from vargpt.evaluation.base import Progress, Report
from vargpt.loading.devices import resolve_device


def watched(steps: Iterator[Progress | Report]) -> Report:
    """A progress bar until the report is there."""
    with tqdm(unit="case", file=sys.stderr) as bar:
        for step in steps:
            if not isinstance(step, Progress):
                return step
            bar.total = step.total
            bar.set_description(step.task, refresh=False)
            bar.update(step.done - bar.n)
    raise AssertionError("an evaluation ends with its report")


def load_checkpoint(gigabytes: float, out: Path | None) -> str:
    """Times the loading of a checkpoint made for it; one line about time and memory.

    Raises:
        ValueError: the size lies outside 1 to 100 GB.
    """
    if not 1 <= gigabytes <= 100:
        raise ValueError(f"--checkpoint is a size in GB from 1 to 100, got {gigabytes:g}")
    with TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder), round(gigabytes * 1e9))
        speed = measure_loading(Path(folder))
    write_json(out, speed.as_json())
    return (
        f"{speed.weight_bytes / 1e9:.2f} GB of weights loaded in {speed.seconds:.1f} s; "
        f"memory at its height {speed.peak_share:.2f} times the weights"
    )


def time_architecture(
    name: str, size: tuple[int, int], dtype: str, runs: int, device: str, compiled: bool, out: Path | None
) -> Iterator[Table]:
    """Times a published architecture: one table of variants and one of scales."""
    speed = measure_architecture(name, size, dtype, runs, str(resolve_device(device)), compiled)
    yield variant_table(speed)
    yield scale_table(speed)
    write_json(out, speed.as_json())


def speed_table(speed: Speed) -> Table:
    """What was measured, one line each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in speed_lines(speed):
        table.add_row(name, value)
    return table


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """Keeps numbers in a file, if one was named."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
