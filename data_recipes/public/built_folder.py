"""A built folder as conversations by number, which is what training takes.

In: a folder that `python -m data_recipes.public.build` has finished. Out: `built[n]`, the messages of row n, pictures
open.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_recipes.public.base import PublishedTurn, decode, to_messages
from data_recipes.public.manifest import Manifest

if TYPE_CHECKING:
    from vargpt.types import Message


class Built(Sequence["tuple[Message, ...]"]):
    """The rows of one built folder. Only the places of the lines are held in memory; it can be sent to workers."""

    def __init__(self, folder: str | Path) -> None:
        """Reads the manifest.

        Args:
            folder: a finished build.

        Raises:
            FileNotFoundError: the folder was never built.
            ValueError: the build was not finished.
        """
        self.folder = Path(folder)
        self.manifest = Manifest.load(self.folder)
        if not self.manifest.finished:
            raise ValueError(f"{folder} is not finished; run the command that began it again")
        self.ends = [0]  # rows up to and with each shard
        for shard in self.manifest.shards:
            self.ends.append(self.ends[-1] + shard["count"])
        self.places: dict[int, list[int]] = {}  # of the lines of the shards that were asked for

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, number: int) -> tuple[Message, ...]:  # type: ignore[override]
        """The conversation of a row, from 0; negative numbers count from the end.

        Raises:
            BrokenImage: a picture was damaged or removed after the build.
        """
        row = self.row(number)
        turns = [PublishedTurn(message["role"], message["content"]) for message in row["messages"]]
        images = [decode((self.folder / path).read_bytes(), path)[0] for path in row["images"]]
        return to_messages(turns, images)

    def row(self, number: int) -> dict[str, Any]:
        """The row as it is written: `id`, `messages`, `images` (paths below the folder)."""
        number = number + len(self) if number < 0 else number
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        index = bisect.bisect_right(self.ends, number) - 1
        path = self.folder / self.manifest.shards[index]["rows"]
        if index not in self.places:
            self.places[index] = line_starts(path)
        with path.open("rb") as file:
            file.seek(self.places[index][number - self.ends[index]])
            return json.loads(file.readline())

    def verify(self, pictures: bool = False) -> None:
        """Compare every file of rows (and of pictures) with its hash.

        Raises:
            ValueError: files are missing or differ; it lists them.
        """
        wrong = []
        for shard in self.manifest.shards:
            for kind, digest in (("rows", "sha256"), ("skipped", "skipped_sha256")):
                path = self.folder / shard[kind]
                if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != shard[digest]:
                    wrong.append(shard[kind])
        if pictures and not wrong:
            wrong = self.wrong_pictures()
        if wrong:
            raise ValueError(f"{self.folder}: {len(wrong)} files are missing or differ: {', '.join(wrong[:10])}")

    def wrong_pictures(self) -> list[str]:
        paths = {path for number in range(len(self)) for path in self.row(number)["images"]}
        return [path for path in sorted(paths) if not self.is_whole(path)]

    def is_whole(self, path: str) -> bool:
        file = self.folder / path
        return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == file.stem


def line_starts(path: Path) -> list[int]:
    """Where each line of a file begins, in bytes."""
    starts, at = [], 0
    with path.open("rb") as file:
        for line in file:
            starts.append(at)
            at += len(line)
    return starts
