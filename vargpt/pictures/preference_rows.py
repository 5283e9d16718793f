"""Which of two replies is better: rows, and the folder that keeps them.

A folder holds `rows.jsonl`, one line per prompt, and the pictures beside it: a PNG for people and, where they are
known, the exact image tokens as safetensors. A line without a pair says that a prompt was tried and told nothing. Lines
are written last and whole, so that a run which was killed leaves a folder that can be read and continued.

    rows.jsonl   {"number": 4, "prompt": [...], "chosen": {...}, "rejected": {...}, "scores": [1.0, 0.25]}
    000004-chosen-0.png   000004-chosen-0.safetensors   000004-rejected-0.png ...
    about.json   how the rows were made
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file, save_file

from vargpt.types import ImageLayout, ImagePart, ImageTokens, Message, Part, TextPart

ROWS, ABOUT = "rows.jsonl", "about.json"


@dataclass(frozen=True)
class Preference:
    """After `prompt`, the assistant's reply `chosen` is better than `rejected`; both end with a drawn picture.

    A picture that was drawn by the model keeps its tokens; one from elsewhere has none. `scores` are what a reward said
    of the two, None if nobody was asked.
    """

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    scores: tuple[float, float] | None = None


class PreferenceFolder:
    """Rows by number (`folder[i]`), and a way to add more.

    Args:
        path: of the folder; it is made when the first line is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = self.path / ROWS
        data = file.read_bytes() if file.is_file() else b""
        self._size = data.rfind(b"\n") + 1  # what follows was never finished
        self._lines = [json.loads(line) for line in data[: self._size].splitlines()]
        self._rows = [line for line in self._lines if "chosen" in line]

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
        line = self._rows[index]
        scores = line.get("scores")
        return Preference(
            tuple(self._message(message) for message in line["prompt"]),
            self._message(line["chosen"]),
            self._message(line["rejected"]),
            None if scores is None else (scores[0], scores[1]),
        )

    def __iter__(self) -> Iterator[Preference]:
        return (self[index] for index in range(len(self)))

    @property
    def tried(self) -> set[int]:
        """Numbers of the prompts that have a line."""
        return {line["number"] for line in self._lines}

    @property
    def pairs(self) -> dict[int, str]:
        """The numbers of the prompts that have a pair, and the words of their last message."""
        return {
            line["number"]: "".join(part.get("text", "") for part in line["prompt"][-1]["parts"]) for line in self._rows
        }

    def add(self, number: int, row: Preference | None) -> None:
        """Writes the line of prompt `number`: a pair, or None if there was none to be had.

        Raises:
            ValueError: the prompt has a line already.
        """
        if number in self.tried:
            raise ValueError(f"{self.path} has a line for prompt {number} already")
        self.path.mkdir(parents=True, exist_ok=True)
        line: dict[str, Any] = {"number": number}
        if row is not None:
            stem = f"{number:06d}"
            line["prompt"] = [
                self._described(message, f"{stem}-prompt{place}") for place, message in enumerate(row.prompt)
            ]
            line["chosen"] = self._described(row.chosen, f"{stem}-chosen")
            line["rejected"] = self._described(row.rejected, f"{stem}-rejected")
            line["scores"] = row.scores
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        with (self.path / ROWS).open("ab") as file:
            file.truncate(self._size)
            file.write(data)
        self._size += len(data)
        self._lines.append(line)
        if row is not None:
            self._rows.append(line)

    # -- messages as JSON and files --------------------------------------------------------------------------------

    def _described(self, message: Message, stem: str) -> dict[str, Any]:
        parts: list[dict[str, Any]] = []
        for place, part in enumerate(message.parts):
            if isinstance(part, TextPart):
                parts.append({"text": part.text})
                continue
            file = self.path / f"{stem}-{place}.png"
            part.image.convert("RGB").save(file)
            parts.append({"image": file.name, "seed": part.seed, "settings": part.settings})
            if part.tokens is not None:
                layout = part.tokens.layout
                save_file({"tokens": part.tokens.flat().contiguous()}, file.with_suffix(".safetensors"))
                parts[-1]["layout"] = [layout.height, layout.width, layout.scales, layout.position_grid]
        return {"role": message.role, "parts": parts}

    def _message(self, described: dict[str, Any]) -> Message:
        return Message(described["role"], tuple(self._part(part) for part in described["parts"]))

    def _part(self, described: dict[str, Any]) -> Part:
        if "text" in described:
            return TextPart(described["text"])
        file = self.path / described["image"]
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        tokens = None
        if "layout" in described:
            height, width, scales, grid = described["layout"]
            layout = ImageLayout(height, width, tuple((h, w) for h, w in scales), grid and (grid[0], grid[1]))
            tokens = ImageTokens.from_flat(layout, load_file(file.with_suffix(".safetensors"))["tokens"])
        return ImagePart(image, tokens, described["seed"], described["settings"])
