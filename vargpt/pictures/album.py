"""Drawn pictures as PNG files: their names, their metadata, and whole lists of prompts drawn in batches."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vargpt.pictures.archive import write_whole
from vargpt.pictures.files import png_with_metadata
from vargpt.types import MAX_PICTURES, Artist, ChatRequest, ImagePart, Message, TurnFinished

INDEX = "index.jsonl"


@dataclass(frozen=True)
class Drawn:
    """One prompt of a list: its answer, and the files of its pictures (none if the model refused in words)."""

    number: int
    prompt: str
    seed: int
    turn: TurnFinished
    files: tuple[Path, ...]


def save_picture(path: Path, part: ImagePart, prompt: str, artist: Artist) -> Path:
    """Writes a PNG that carries prompt, seed, settings and model; folders are made as needed."""
    metadata = {
        "prompt": prompt,
        "seed": part.seed,
        "settings": part.settings or None,
        "model": artist.model_name,
        "model_hash": artist.model_hash,
        "software": software(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, png_with_metadata(part.image, metadata), mode=0o666)
    return path


def software() -> str:
    """Name and version of this package, as written into files."""
    try:
        return f"vargpt {version('vargpt')}"
    except PackageNotFoundError:  # run from a folder that was never installed
        return "vargpt"


def file_stem(prompt: str, longest: int = 48) -> str:
    """ "Draw a fox!" -> "draw-a-fox": a file name that is valid on every system."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:longest].strip("-") or "picture"


def picture_paths(out: Path | None, prompt: str, seed: int, count: int) -> list[Path]:
    """Paths for `count` pictures: `out` itself or numbered files beside it; in a folder, files named by the prompt.

    Raises:
        ValueError: `out` names a file that is no PNG.
    """
    if out is None or out.is_dir():
        out = (out or Path()) / f"{file_stem(prompt)}-{seed}.png"
    elif not out.suffix:
        out = out.with_name(f"{out.name}.png")
    if out.suffix.lower() != ".png":
        raise ValueError(f"pictures are saved as PNG, which keeps every pixel; call the file {out.stem}.png")
    if count == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(1, count + 1)]


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one per line; empty lines are skipped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no text, or holds no prompt.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a UTF-8 text file; write one prompt per line") from None
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise ValueError(f"{path} holds no prompt; write one per line")
    return prompts


def draw_all(artist: Artist, prompts: Sequence[str], template: ChatRequest, out: Path) -> Iterator[Drawn]:
    """Draws a list of prompts in batches, each with seeds of its own, and writes the pictures and `index.jsonl`.

    Args:
        artist: what draws.
        prompts: one per conversation.
        template: everything but the messages; prompt i draws with seeds from `template.seed + i * template.n` on.
        out: folder of the pictures; `index.jsonl` gets one line per prompt and is written anew.
    """
    out.mkdir(parents=True, exist_ok=True)
    step = max(1, MAX_PICTURES // template.n)
    with (out / INDEX).open("w", encoding="utf-8") as index:
        for start in range(0, len(prompts), step):
            chunk = prompts[start : start + step]
            seeds = [template.seed + (start + offset) * template.n for offset in range(len(chunk))]
            requests = [
                replace(template, messages=(Message.of("user", prompt),), seed=seed)
                for prompt, seed in zip(chunk, seeds, strict=True)
            ]
            for offset, turn in enumerate(artist.reply_batch(requests)):
                drawn = _keep(artist, start + offset, chunk[offset], seeds[offset], turn, out)
                index.write(json.dumps(index_line(drawn), ensure_ascii=False) + "\n")
                index.flush()
                yield drawn


def index_line(drawn: Drawn) -> dict[str, Any]:
    """The line of `index.jsonl` for one prompt."""
    return {
        "prompt": drawn.prompt,
        "seed": drawn.seed,
        "files": [path.name for path in drawn.files],
        "text": drawn.turn.message.text,
        "reason": drawn.turn.reason,
    }


def _keep(artist: Artist, number: int, prompt: str, seed: int, turn: TurnFinished, out: Path) -> Drawn:
    images = turn.message.images
    paths = (
        picture_paths(out / f"{number + 1:04d}-{file_stem(prompt)}.png", prompt, seed, len(images)) if images else []
    )
    for path, part in zip(paths, images, strict=True):
        save_picture(path, part, prompt, artist)
    return Drawn(number, prompt, seed, turn, tuple(paths))
