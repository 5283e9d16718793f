"""The seams of the evaluation: what is measured (an engine), what it is measured on (a world), and what comes out.

A world brings cases, pictures of their pages, and a judge that reads pages back. Its cases are its own; the protocols
below say only what a benchmark looks at.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL.Image import Image

from vargpt.evaluation.intervals import Score
from vargpt.types import ChatRequest, TurnFinished

Reconstruct = Callable[[Sequence[Image]], list[Image]]


@runtime_checkable
class Engine(Protocol):
    """What answers: a `ChatEngine`, or anything that behaves like one."""

    model_name: str
    model_hash: str | None

    def reply_batch(self, requests: Sequence[ChatRequest]) -> list[TurnFinished]:
        """One finished turn per request."""


@runtime_checkable
class World(Protocol):
    """Cases, pages and a judge. Scenes, questions, cases and readings are opaque here; equal seeds give equal cases."""

    resolution: int  # side in px of the pages, and of the pictures that `read` takes
    draw_categories: tuple[str, ...]
    headline: tuple[str, ...]  # the categories whose mean is the one number to quote

    def draw_cases(self, category: str, n: int, seed: int) -> Sequence[Any]:
        """Cases with `request` (text) and `scene` (a page that fulfils it)."""

    def ask_cases(self, n: int, seed: int) -> Sequence[Any]:
        """Cases with `scene` and `question` (which has `kind` and `question`, the words)."""

    def edit_cases(self, n: int, seed: int) -> Sequence[Any]:
        """Cases with `kind`, `instruction`, and the scenes `before` and `after`."""

    def route_cases(self, n: int, seed: int) -> Sequence[Any]:
        """Cases with `messages`, `route` ("image" or "text") and `why`, their kind."""

    def dialogue_cases(self, n: int, seed: int) -> Sequence[Any]:
        """Cases with `turns`, each with `text`, `route`, `uploaded` (a scene or None) and `question` (or None)."""

    def picture(self, scene: Any) -> Image:
        """The page, `resolution` x `resolution` px."""

    def read(self, images: Sequence[Image]) -> list[Any]:
        """What the judge sees on each page."""

    def read_sentence(self, text: str) -> Any | None:
        """The page that an announcement describes, as if it had been read; None if it determines none."""

    def agrees(self, reading: Any, announced: Any) -> bool:
        """Whether the page shows what `read_sentence` made of the announcement."""

    def draw_is_right(self, case: Any, reading: Any) -> bool:
        """Whether the page fulfils the request; further things do not matter."""

    def nothing_else(self, case: Any, reading: Any) -> bool:
        """Whether the page shows only what was asked for."""

    def edit_is_right(self, case: Any, reading: Any) -> bool:
        """Whether the page is the one after the edit."""

    def edited_region(self, case: Any) -> np.ndarray | None:
        """Where the edit may change pixels, bool "resolution resolution"; None = everywhere."""

    def answer_is_right(self, question: Any, text: str) -> bool:
        """Whether the text answers the question."""

    def turn_is_right(self, turn: Any, reading: Any) -> bool:
        """Whether the page is what a turn of a dialogue asked for, with all that was said before."""


@dataclass(frozen=True)
class Progress:
    """`done` of `total` cases, and the task at work."""

    done: int
    total: int
    task: str


@dataclass(frozen=True)
class Row:
    """One measured number and what stands beside it. Shares are 0-1; the unit "dB" is for PSNR."""

    task: str
    name: str
    score: Score
    beside: dict[str, Score] = field(default_factory=dict)
    unit: str = "share"
    marks: dict[str, list[float]] = field(default_factory=dict, repr=False)  # per case, in the order of the cases
    groups: list[int] = field(default_factory=list, repr=False)  # which marks are resampled as one; empty = each alone
    parts: tuple[str, ...] = ()  # of a mean over rows of its task: their names


@dataclass(frozen=True)
class Report:
    """What was measured, on what, how long it took."""

    benchmark: str
    about: dict[str, Any]  # model, hash, settings, hardware, seconds
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """For `json.dump`; `marks` has a digit per case, 1 = right, so that reports can be compared case by case."""
        rows = []
        for row in self.rows:
            entry = {"task": row.task, "name": row.name, "unit": row.unit, **asdict(row.score)}
            entry["beside"] = {name: asdict(score) for name, score in row.beside.items()}
            if "right" in row.marks:
                entry["marks"] = "".join("1" if mark else "0" for mark in row.marks["right"])
                entry["groups"] = " ".join(map(str, row.groups))
            if row.parts:
                entry["parts"] = list(row.parts)
            rows.append(entry)
        return {"benchmark": self.benchmark, **self.about, "rows": rows}


def hardware(device: torch.device | str = "cpu") -> str:
    """The machine in one line: what a measured time means nothing without."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    kind = "Apple GPU" if torch.device(device).type == "mps" else f"{torch.get_num_threads()} threads"
    return f"{platform.system()} {platform.machine()}, {name}, {os.cpu_count()} cores, {kind}"
