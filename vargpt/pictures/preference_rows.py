"""Preferences on disk: which of two replies to a prompt is better, one line per prompt.

A folder holds `rows.jsonl` and, as an archive (`archive.py`), the pictures and exact image tokens that its lines refer
to. A line without a pair says that the pictures of a prompt were compared and none was better. A line is written last
and whole, so that a run which was killed leaves a folder that can be read and continued.

    rows.jsonl   {"number": 4, "words": "draw a fox", "pair": {...}}
                 {"number": 5}
    DIGEST.png, DIGEST.safetensors ...
    about.json   how the rows were made

Lines of the form before this one, with "prompt", "chosen", "rejected" and "scores" in place of "pair", can be read too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from vargpt.pictures.archive import Archive
from vargpt.pictures.files import open_picture
from vargpt.types import ImageLayout, ImagePart, ImageTokens, Message, Part, TextPart

ROWS, ABOUT = "rows.jsonl", "about.json"


@dataclass(frozen=True)
class Preference:
    """After `prompt`, the assistant's reply `chosen` is better than `rejected`; both end with a picture.

    A picture that the model drew has its tokens; one from elsewhere has none. `scores` are what a reward gave to the
    two replies, or None without a reward.
    """

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    scores: tuple[float, float] | None = None


class PreferenceFolder:
    """The pairs of a folder by position (`folder[i]`); `add` writes more.

    Args:
        path: of the folder; it is made when the first line is written.

    Raises:
        ValueError: a line is damaged; the message names file and line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._archive = Archive(self.path, kinds=(Preference,))
        file = self.path / ROWS
        data = file.read_bytes() if file.is_file() else b""
        self._size = data.rfind(b"\n") + 1  # what follows was never finished
        self._lines = [_parsed(line, number, file) for number, line in enumerate(data[: self._size].splitlines(), 1)]
        self._rows = [line for line in self._lines if line.keys() & {"pair", "chosen"}]

    @classmethod
    def existing(cls, path: str | Path) -> PreferenceFolder:
        """A folder to learn from.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it holds no pair.
        """
        if not (Path(path) / ROWS).is_file():
            raise FileNotFoundError(f"{path} holds no {ROWS}; `vargpt prefer --out {path}` makes one")
        folder = cls(path)
        if not len(folder):
            raise ValueError(f"{path} holds no pair, only prompts whose pictures were all alike")
        return folder

    @classmethod
    def continued(cls, path: str | Path, about: dict[str, Any]) -> PreferenceFolder:
        """A folder to write into, begun or continued; `about` says how its rows are made.

        Raises:
            ValueError: the folder was begun in another way.
        """
        folder, file = cls(path), Path(path) / ABOUT
        about = json.loads(json.dumps(about))
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            return folder
        before = json.loads(file.read_text(encoding="utf-8"))
        changed = {name: (before.get(name), value) for name, value in about.items() if before.get(name) != value}
        if changed:
            told = ", ".join(f"{name} was {old!r} and is {new!r}" for name, (old, new) in changed.items())
            raise ValueError(f"{path} was begun otherwise ({told}); continue as before or name another folder")
        return folder

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Preference:
        """Reads one pair with its pictures.

        Raises:
            ValueError: a file is missing or damaged; the message names it and the line.
        """
        line = self._rows[index]
        try:
            if "pair" not in line:
                return _older_pair(line, self.path)
            restored = self._archive.read(line["pair"])
            if restored.lost:
                raise ValueError("; ".join(restored.lost))
            return restored.value
        except (ValueError, KeyError, OSError, SafetensorError) as error:
            raise ValueError(f"{self.path / ROWS}, prompt {line['number']}: {error}") from error

    def __iter__(self) -> Iterator[Preference]:
        return (self[index] for index in range(len(self)))

    @property
    def tried(self) -> set[int]:
        """Numbers of the prompts that have a line."""
        return {line["number"] for line in self._lines}

    @property
    def pairs(self) -> dict[int, str]:
        """The numbers of the prompts that have a pair, and the words of their last message."""
        return {line["number"]: line["words"] if "pair" in line else _older_words(line) for line in self._rows}

    def add(self, number: int, row: Preference | None) -> None:
        """Writes the line of prompt `number`: a pair, or None if none of its pictures was better.

        Raises:
            ValueError: the prompt has a line already.
        """
        if number in self.tried:
            raise ValueError(f"{self.path} has a line for prompt {number} already")
        self.path.mkdir(parents=True, exist_ok=True)
        line: dict[str, Any] = {"number": number}
        if row is not None:
            line |= {"words": row.prompt[-1].text, "pair": self._archive.write(row)}
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        with (self.path / ROWS).open("ab") as file:
            file.truncate(self._size)
            file.write(data)
        self._size += len(data)
        self._lines.append(line)
        if row is not None:
            self._rows.append(line)


def _parsed(line: bytes, number: int, file: Path) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"{file}, line {number} is not JSON: {error}") from None


# -- lines of the older form: files named by number, tokens of all scales in one tensor --------------------------------


def _older_pair(line: dict[str, Any], folder: Path) -> Preference:
    prompt = tuple(_older_message(message, folder) for message in line["prompt"])
    chosen, rejected = (_older_message(line[name], folder) for name in ("chosen", "rejected"))
    scores = line.get("scores")
    return Preference(prompt, chosen, rejected, None if scores is None else (scores[0], scores[1]))


def _older_words(line: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in line["prompt"][-1]["parts"])


def _older_message(described: dict[str, Any], folder: Path) -> Message:
    return Message(described["role"], tuple(_older_part(part, folder) for part in described["parts"]))


def _older_part(described: dict[str, Any], folder: Path) -> Part:
    if "text" in described:
        return TextPart(described["text"])
    file = folder / described["image"]
    tokens = None
    if "layout" in described:
        height, width, scales, grid = described["layout"]
        layout = ImageLayout(height, width, tuple((h, w) for h, w in scales), grid and (grid[0], grid[1]))
        tokens = ImageTokens.from_flat(layout, load_file(file.with_suffix(".safetensors"))["tokens"])
    return ImagePart(open_picture(file), tokens, described["seed"], described["settings"])
