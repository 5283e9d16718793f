"""What a run had learnt when it knew pictures best that it does not learn from: a few pictures are soon known by heart.

In: offers on the way, each with a loss and a way to save. Out: the folder of the best one, which outlives a stop.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

NOTE = "best.json"


@dataclass(frozen=True)
class Best:
    """The least loss so far, and the step it was found at."""

    loss: float
    step: int


class KeepBest:
    """Keeps one folder.

    Args:
        folder: where; it may hold the best of a run that was stopped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def best(self) -> Best | None:
        """None before the first offer."""
        file = self.folder / NOTE
        return Best(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None

    def offer(self, loss: float, step: int, save: Callable[[Path], None]) -> None:
        """Calls `save` with a folder and keeps what it writes there, if no earlier offer had so small a loss."""
        best = self.best
        if best is not None and best.loss <= loss:
            return
        made = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        save(made)
        (made / NOTE).write_text(json.dumps(asdict(Best(loss, step))), encoding="utf-8")
        shutil.rmtree(self.folder, ignore_errors=True)
        made.rename(self.folder)

    def take(self, out: Path) -> None:
        """Copies what was kept, without the note."""
        shutil.copytree(self.folder, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(NOTE))
