"""What every task of a benchmark does: go through cases in batches, ask the engine, read pictures back."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image, Resampling

from vargpt.evaluation.base import Engine, Reconstruct, Row, World
from vargpt.evaluation.sheets import Gallery
from vargpt.types import ChatRequest, Message, TurnFinished

Measured = Generator[int, None, list[Row]]  # yields how many more cases are done


@dataclass(frozen=True)
class Run:
    """What all tasks share. `controls` cases per task are also used to examine judge and tokenizer."""

    engine: Engine
    world: World
    reconstruct: Reconstruct
    n: int
    batch_size: int
    seed: int
    controls: int
    gallery: Gallery | None

    def batches(self, cases: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
        """(index of the first case, cases)."""
        for start in range(0, len(cases), self.batch_size):
            yield start, cases[start : start + self.batch_size]

    def reply(self, task: str, start: int, conversations: Sequence[tuple[Message, ...]]) -> list[TurnFinished]:
        """The model's turns; each case has a seed of its own."""
        return self.engine.reply_batch(
            [
                ChatRequest(messages=messages, seed=zlib.crc32(f"{task}-{self.seed}-{start + i}".encode()))
                for i, messages in enumerate(conversations)
            ]
        )

    def picture(self, turn: TurnFinished) -> Image | None:
        """The picture of a turn in the size that the judge reads; None if none was drawn."""
        return self.fitted(turn.message.images[0].image) if turn.message.images else None

    def fitted(self, image: Image) -> Image:
        side = self.world.resolution
        return image if image.size == (side, side) else image.resize((side, side), Resampling.LANCZOS)

    def read(self, pictures: Sequence[Image | None]) -> list[Any | None]:
        """What the judge sees on each; None stays None."""
        readings = iter(self.world.read([picture for picture in pictures if picture is not None]))
        return [None if picture is None else next(readings) for picture in pictures]

    def show(self, task: str, images: Sequence[Image | None], text: str, right: bool) -> None:
        if self.gallery is not None:
            self.gallery.add(task, images, text, right)
