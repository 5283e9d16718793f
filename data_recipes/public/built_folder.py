"""Built folders as conversations by number, which is what training takes (`MakeMessages`).

In: folders that `python -m data_recipes.public.build` has finished. Out: `Built(folder)[n]`, the messages of row n with
decoded pictures, and `stream(folders)`, the same rows in a shuffled order that never ends.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_recipes.mixtures import Mixture, Part
from data_recipes.public.base import ClosedPicture, PublishedTurn, decode, to_messages
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
            ValueError: the row or a picture of it was damaged or removed after the build.
        """
        row = self.row(number)
        try:
            turns = [PublishedTurn(message["role"], message["content"]) for message in row["messages"]]
            pictures = [ClosedPicture(path, (self.folder / path).read_bytes) for path in row["images"]]
            return to_messages(turns, [decode(picture.load(), picture.name)[0] for picture in pictures])
        except (ValueError, KeyError, TypeError) as error:
            raise self.changed(number, error) from None

    def row(self, number: int) -> dict[str, Any]:
        """The row as it is written: `id`, `messages`, `images` (paths below the folder).

        Raises:
            IndexError: there is no such row.
            ValueError: the file of the row was damaged or removed after the build.
        """
        number = number + len(self) if number < 0 else number
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        index = bisect.bisect_right(self.ends, number) - 1
        path = self.folder / self.manifest.shards[index]["rows"]
        try:
            if index not in self.places:
                self.places[index] = line_starts(path)
            with path.open("rb") as file:
                file.seek(self.places[index][number - self.ends[index]])
                return json.loads(file.readline())
        except (OSError, IndexError, ValueError) as error:
            raise self.changed(number, error) from None

    def changed(self, number: int, error: Exception) -> ValueError:
        """What to tell the user about a row that can no longer be read."""
        return ValueError(
            f"row {number} of {self.folder} cannot be read ({type(error).__name__}: {error}); the folder has changed "
            "since it was built: remove it and build it again"
        )

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


def stream(folders: Sequence[str | Path], seed: int = 0) -> Mixture:
    """The rows of all folders in one shuffled, endless order, each folder in proportion to its number of rows.

    Every row of a folder comes once before any of it comes again.

    Args:
        folders: finished builds, each of one row or more with an assistant's reply.
        seed: another one, another order; with equal seeds sample `i` is the same on every machine.

    Raises:
        FileNotFoundError: a folder was never built.
        ValueError: a folder was not finished, is named twice, has no rows, or has prompts only.
    """
    parts: dict[str, Part] = {}
    for folder in folders:
        built = Built(folder)
        if str(built.folder) in parts:
            raise ValueError(f"{folder} is named twice; name every folder once")
        if not len(built):
            raise ValueError(f"{folder} has no rows: its build kept none of {built.manifest.read}")
        if all(message["role"] != "assistant" for message in built.row(0)["messages"]):
            raise ValueError(f"{folder} holds prompts without replies, from which conversations cannot be learnt")
        parts[str(built.folder)] = Part.of(built, len(built))
    return Mixture(parts, seed)


def line_starts(path: Path) -> list[int]:
    """Where each line of a file begins, in bytes."""
    starts, at = [], 0
    with path.open("rb") as file:
        for line in file:
            starts.append(at)
            at += len(line)
    return starts
