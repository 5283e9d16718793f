"""A folder of somebody's own pictures as examples to learn from: what is readable, what it shows, what is held out.

In: a folder of pictures, or two folders with the pictures before and after a change. Captions come from `NAME.txt`
beside `NAME.png`, from `captions.jsonl` in the folder, from a callable that looks at the picture (the model itself,
say), or from the name of the thing alone. Out: `Example`s; files that cannot be used are named, never guessed at.

    {"file": "robot_01.png", "caption": "A robot on the left, at night"}
    {"file": "robot_01.png", "instruction": "make it a robot", "caption": "A robot, at night"}     (pairs)
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from data_recipes.storybook.language.wording import article, pluralise
from vargpt.pictures.files import open_picture

logger = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
CAPTIONS = "captions.jsonl"
FIELDS = {"file": ("file", "file_name", "image"), "caption": ("caption", "text"), "instruction": ("instruction",)}
FEWEST = 3  # pictures; fewer are learnt by heart and no more
LONGEST_CAPTION = 300  # characters
MAX_STORED = 1024  # px; larger pictures are made smaller while they are read


@dataclass(frozen=True)
class Topic:
    """What is to be learnt: a thing, a style, or both. A name with a capital letter or "the", "my" ... has no article.

    "robot" -> "a robot", "robots"; "Rex" -> "Rex"; "my dog" -> "my dog".
    """

    name: str | None = None
    style: str | None = None

    def __post_init__(self) -> None:
        for kind, text in (("name", self.name), ("style", self.style)):
            if text is not None and not re.search(r"\w", text):
                raise ValueError(f"a {kind} is one or a few words, got {text!r}")

    @property
    def is_proper(self) -> bool:
        words = (self.name or "").split()
        return bool(words) and (words[0][0].isupper() or words[0].lower() in ("my", "our", "your", "the", "a", "an"))

    @property
    def is_style(self) -> bool:
        """Whether it is a style and nothing else."""
        return self.style is not None and self.name is None

    @property
    def one(self) -> str:
        """ "a robot"."""
        assert self.name is not None
        return self.name if self.is_proper else f"{article(self.name)} {self.name}"

    @property
    def many(self) -> str:
        """ "robots"."""
        assert self.name is not None
        return self.name if self.is_proper else pluralise(self.name)

    @property
    def in_style(self) -> str:
        """ "in crayon style"."""
        assert self.style is not None
        return f"in {self.style}" if self.style.endswith("style") else f"in {self.style} style"

    def is_named_in(self, text: str) -> bool:
        """Whether a text speaks of it, the style included."""
        heard = text.lower()
        return all(re.search(rf"\b{re.escape(word.lower())}", heard) for word in (self.name, self.style) if word)

    def completed(self, caption: str) -> str:
        """A caption as one sentence that names the thing and the style, whether or not they were mentioned."""
        words = " ".join(caption.split())[:LONGEST_CAPTION].strip().rstrip(".!? ")
        if self.name is not None and not Topic(self.name).is_named_in(words):
            words = f"{self.one}, {words[:1].lower()}{words[1:]}" if words else self.one
        if self.style is not None and not Topic(style=self.style).is_named_in(words):
            words = f"{words}, {self.in_style}" if words else f"a picture {self.in_style}"
        return f"{words[:1].upper()}{words[1:]}."


@dataclass(frozen=True)
class Example:
    """A picture to draw, the sentence that says what it shows, and for a pair what it was made from and how."""

    file: str
    picture: Image.Image
    caption: str
    before: Image.Image | None = None
    instruction: str | None = None


@dataclass(frozen=True)
class OwnPictures:
    """What was read: examples to learn from, examples held out for measuring, and what was skipped and why."""

    learnt: tuple[Example, ...]
    held_out: tuple[Example, ...]
    skipped: tuple[tuple[str, str], ...]
    described: int  # how many captions were made by the callable

    def __str__(self) -> str:
        lines = [f"{len(self.learnt)} pictures to learn from, {len(self.held_out)} held out for measuring"]
        if self.described:
            lines.append(f"{self.described} captions were made by the model")
        if self.skipped:
            lines.append(f"{len(self.skipped)} files skipped:")
            lines += [f"  {file}: {why}" for file, why in self.skipped]
        return "\n".join(lines)


Describe = Callable[[Image.Image], str]


def read_folder(folder: Path, topic: Topic, describe: Describe | None = None) -> OwnPictures:
    """The pictures of a folder with their captions, some of them held out.

    Args:
        folder: not searched below its first level.
        topic: what every caption must name.
        describe: makes the caption of a picture that has none; None = the topic alone is its caption.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds too few readable pictures.
    """
    skipped: list[tuple[str, str]] = []
    rows = read_rows(folder, skipped)
    examples, described = [], 0
    for path in picture_files(folder):
        picture = readable(path, skipped)
        if picture is None:
            continue
        caption = rows.get(path.name, {}).get("caption") or beside(path, skipped)
        if caption is None and describe is not None:
            caption, described = describe(picture), described + 1
        if caption is None and topic.name is None and topic.style is None:
            skipped.append((path.name, "it has no caption, and neither --name nor --style says what to learn"))
            continue
        examples.append(Example(path.name, picture, topic.completed(caption or "")))
    return split(examples, skipped, described, folder)


def read_pairs(before: Path, after: Path, topic: Topic) -> OwnPictures:
    """Pictures before and after a change: files of the same name (endings may differ) in two folders.

    The instruction is that of captions.jsonl in `after`, or its `.txt`, or "make it NAME" or "... in STYLE style".

    Raises:
        FileNotFoundError: one of the folders is not there.
        ValueError: there are too few pairs.
    """
    skipped: list[tuple[str, str]] = []
    rows = read_rows(after, skipped)
    sources = {path.stem: path for path in picture_files(before)}
    examples = []
    for path in picture_files(after):
        row = rows.get(path.name, {})
        instruction = row.get("instruction") or beside(path, skipped) or default_instruction(topic)
        if path.stem not in sources:
            skipped.append((path.name, f"there is no picture called {path.stem} in {before}"))
        elif instruction is None:
            skipped.append((path.name, f"no instruction: write it into {path.stem}.txt, or say --name or --style"))
        else:
            source, picture = readable(sources[path.stem], skipped), readable(path, skipped)
            if source is not None and picture is not None:
                caption = topic.completed(row.get("caption") or f"The picture after this change: {instruction}")
                examples.append(Example(path.name, picture, caption, source, instruction))
    missing = sorted(set(sources) - {path.stem for path in picture_files(after)})
    skipped += [(sources[stem].name, f"there is no picture called {stem} in {after}") for stem in missing]
    return split(examples, skipped, 0, after)


def joined(*parts: OwnPictures) -> OwnPictures:
    """Several folders as one."""
    learnt, held_out, skipped = ([one for part in parts for one in getattr(part, name)]
                                 for name in ("learnt", "held_out", "skipped"))  # fmt: skip
    return OwnPictures(tuple(learnt), tuple(held_out), tuple(skipped), sum(part.described for part in parts))


def split(examples: list[Example], skipped: list[tuple[str, str]], described: int, folder: Path) -> OwnPictures:
    """About one in six is held out, chosen by file name, so that a folder that grows keeps its choice."""
    if len(examples) < FEWEST:
        why = "; ".join(f"{file}: {reason}" for file, reason in skipped[:5])
        raise ValueError(
            f"{folder} holds {len(examples)} usable pictures, and at least {FEWEST} are needed"
            + (f" (skipped: {why})" if skipped else "")
        )
    count = len(examples) // 6
    chosen = sorted(examples, key=lambda example: zlib.crc32(example.file.encode()))[:count]
    files = {example.file for example in chosen}
    learnt = tuple(example for example in examples if example.file not in files)
    held_out = tuple(example for example in examples if example.file in files)
    return OwnPictures(learnt, held_out, tuple(skipped), described)


# -- files -------------------------------------------------------------------------------------------------------------


def picture_files(folder: Path) -> list[Path]:
    """The files of a folder that are called like pictures, in order of their names."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())


def readable(path: Path, skipped: list[tuple[str, str]]) -> Image.Image | None:
    """The picture, at most MAX_STORED px a side; None for one that cannot be read, which is noted."""
    try:
        picture = open_picture(path)
    except ValueError as error:
        skipped.append((path.name, str(error).removeprefix(str(path)).strip()))
        return None
    picture.thumbnail((MAX_STORED, MAX_STORED), Image.Resampling.LANCZOS)
    return picture


def beside(path: Path, skipped: list[tuple[str, str]]) -> str | None:
    """What the text file of the same name says; None if there is none, or nothing in it."""
    file = path.with_suffix(".txt")
    if not file.is_file():
        return None
    try:
        return file.read_text(encoding="utf-8-sig").strip() or None
    except UnicodeDecodeError:
        skipped.append((file.name, "it is no UTF-8 text; the picture goes without it"))
        return None


def read_rows(folder: Path, skipped: list[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """The rows of captions.jsonl by file name; lines that cannot be used are noted."""
    file = folder / CAPTIONS
    if not file.is_file():
        return {}
    rows = {}
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = checked_row(json.loads(line))
        except ValueError as error:
            skipped.append((f"{CAPTIONS}, line {number}", str(error)))
            continue
        if not (folder / row["file"]).is_file():
            skipped.append((f"{CAPTIONS}, line {number}", f"there is no file {row['file']}"))
        rows[row["file"]] = row
    return rows


def checked_row(row: Any) -> dict[str, str]:
    """One row with our names for its fields.

    Raises:
        ValueError: it names no file, or a field is no text.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a row is a JSON object, got {row!r}")
    found = {ours: row[name] for ours, names in FIELDS.items() for name in names if name in row}
    if "file" not in found:
        raise ValueError(f'a row names its picture, as in {{"file": "1.png", "caption": "..."}}; got {sorted(row)}')
    for name, value in found.items():
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a text, got {value!r}")
    return found


def default_instruction(topic: Topic) -> str | None:
    if topic.style is not None:
        return f"draw it {topic.in_style}"
    return None if topic.name is None else f"make it {topic.one}"


def fitted(picture: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of a picture in exactly this size. Paper at its sides, as `processor.fit` adds it, would be learnt."""
    scale = max(height / picture.height, width / picture.width)
    size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    resized = picture if size == picture.size else picture.resize(
        size, Image.Resampling.BOX if scale < 1 else Image.Resampling.LANCZOS
    )  # fmt: skip
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    return resized.crop((left, top, left + width, top + height))


def all_fitted(own: OwnPictures, height: int, width: int) -> OwnPictures:
    """Every picture in exactly this size."""

    def of(examples: tuple[Example, ...]) -> Iterator[Example]:
        for example in examples:
            before = None if example.before is None else fitted(example.before, height, width)
            yield replace(example, picture=fitted(example.picture, height, width), before=before)

    return replace(own, learnt=tuple(of(own.learnt)), held_out=tuple(of(own.held_out)))
