"""Readers of the formats that sets are published in: JSON, JSON Lines, tables (parquet, CSV, the hub), archives, links.

Nothing is downloaded or held in memory as a whole; all orders are fixed. `datasets` is needed for parquet and the hub.
"""

from __future__ import annotations

import csv
import functools
import json
import re
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_recipes.public.base import ClosedPicture

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
READ_AHEAD = 1 << 20  # characters
SEPARATORS = re.compile(r"[\s,]*")


def is_hub_id(source: str) -> bool:
    """Whether the source is an id on the hub ("owner/name" or "owner/name:config") and no folder here."""
    return not Path(source).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+(:.+)?", source) is not None


def folder(source: str, what: str) -> Path:
    """The source as a folder on disk.

    Raises:
        FileNotFoundError: there is no such folder; `what` says what it should hold.
    """
    path = Path(source)
    if not path.is_dir():
        raise FileNotFoundError(f"{source!r} is no folder here; --source takes one that holds {what}")
    return path


def first_file(root: Path, *patterns: str) -> Path:
    """The first file below the folder that fits a pattern, patterns in order.

    Raises:
        FileNotFoundError: none fits.
    """
    for pattern in patterns:
        for path in sorted(root.rglob(pattern)):
            return path
    raise FileNotFoundError(f"no {' or '.join(patterns)} below {root}")


def picture_at(root: Path, name: str) -> ClosedPicture:
    """A picture in a file; its name is its path below the folder."""
    return ClosedPicture(name, (root / name).read_bytes)


def picture_of(cell: dict[str, Any], name: str) -> ClosedPicture:
    """A picture in a table cell that `datasets` has left closed: {"bytes": ..., "path": ...}."""
    data, path = cell.get("bytes"), cell.get("path")
    return ClosedPicture(name, (lambda: data) if data is not None else Path(path or name).read_bytes)


def picture_behind(url: str, timeout: float = 20.0) -> ClosedPicture:
    """A picture behind a link, fetched when it is opened. A dead link is a broken picture."""

    def fetch() -> bytes:
        if not url.startswith(("http://", "https://")):
            raise FileNotFoundError(url)
        request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0 (vargpt data_recipes)"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise FileNotFoundError(url) if error.code in (404, 410) else OSError(f"HTTP {error.code}") from error
        except ValueError as error:  # a link that is none
            raise FileNotFoundError(url) from error

    return ClosedPicture(url, fetch)


def json_array(path: Path) -> Iterator[Any]:
    """The items (objects) of one large JSON array, without loading the whole file (the LLaVA mixture is 1 GB)."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text = file.read(READ_AHEAD).lstrip()
        if not text.startswith("["):
            raise ValueError(f"{path} is no JSON array: it begins with {text[:20]!r}")
        at = 1
        while True:
            at += len(SEPARATORS.match(text, at)[0])  # type: ignore[index]  # matches the empty string too
            if text.startswith("]", at):
                return
            try:
                item, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError:
                more = file.read(READ_AHEAD)
                if not more:
                    raise ValueError(f"{path} ends in the middle of an item, or is damaged there") from None
                text, at = text[at:] + more, 0
                continue
            yield item


def json_lines(path: Path) -> Iterator[Any]:
    """One item per line; empty lines are skipped."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows as dicts by the header; a row with too many cells (an unquoted comma) keeps its first ones."""
    csv.field_size_limit(1 << 24)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        for cells in reader:
            if cells:
                yield dict(zip(header, cells, strict=False))


def table(source: str, *, split: str = "train", pattern: str = "*.parquet") -> Iterator[dict[str, Any]]:
    """Rows of parquet files below a folder, or of a set on the hub, streamed; pictures are left closed.

    Raises:
        ImportError: `datasets` is not installed.
        FileNotFoundError: the folder has no such files.
    """
    try:
        import datasets
    except ImportError:
        raise ImportError("parquet and the hub need `datasets`: pip install 'vargpt[train]'") from None
    if is_hub_id(source):
        name, _, config = source.partition(":")
        stream = datasets.load_dataset(name, config or None, split=split, streaming=True)
    else:
        root = folder(source, pattern)
        files = sorted(str(path) for path in root.rglob(pattern))
        if not files:
            raise FileNotFoundError(f"no {pattern} below {root}")
        stream = datasets.load_dataset("parquet", data_files={split: files}, split=split, streaming=True)
    features = stream.features or {}
    for column, feature in features.items():
        if isinstance(feature, datasets.Image):
            stream = stream.cast_column(column, datasets.Image(decode=False))
    labels = {name: feature for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    for row in stream:
        yield {**row, **{name: label.int2str(row[name]) for name, label in labels.items() if row[name] >= 0}}


def hub_configs(name: str) -> list[str]:
    """The names of the subsets of a set on the hub."""
    import datasets

    return datasets.get_dataset_config_names(name)


def archive_samples(root: Path, pattern: str = "*.tar") -> Iterator[tuple[str, dict[str, ClosedPicture]]]:
    """The samples of WebDataset archives: (key, {suffix without dot: closed member}).

    Members that follow one another and share a name up to its first dot are one sample. Members are read by their
    place in the archive when they are opened, so that none is unpacked in vain. Names are "archive.tar/member".

    Raises:
        FileNotFoundError: no archive below the folder.
    """
    paths = sorted(root.rglob(pattern))
    if not paths:
        raise FileNotFoundError(f"no {pattern} below {root}")
    for path in paths:
        archive_name = path.relative_to(root).as_posix()
        key = ""
        members: dict[str, ClosedPicture] = {}
        for member_name, offset, size in _members(path):
            parent, _, base = member_name.removeprefix("./").rpartition("/")
            stem, _, suffix = base.partition(".")
            member_key = f"{parent}/{stem}" if parent else stem
            if members and member_key != key:
                yield f"{archive_name}/{key}", members
                members = {}
            key = member_key
            read = functools.partial(_read_at, path, offset, size)
            members[suffix.lower()] = ClosedPicture(f"{archive_name}/{member_name}", read)
        if members:
            yield f"{archive_name}/{key}", members


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, place and size of every file in an archive."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile():
                    yield member.name, member.offset_data, member.size
    except tarfile.TarError as error:
        raise ValueError(f"{path} is damaged ({error}); download it again") from None


def _read_at(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def picture_member(members: dict[str, ClosedPicture]) -> ClosedPicture | None:
    """The picture among the members of a sample, whatever its format."""
    return next((members[suffix[1:]] for suffix in PICTURE_SUFFIXES if suffix[1:] in members), None)


def text_member(members: dict[str, ClosedPicture], suffix: str = "txt") -> str:
    """The text of a member, or an empty one."""
    return members[suffix].read().decode("utf-8", errors="replace").strip() if suffix in members else ""


def json_member(members: dict[str, ClosedPicture]) -> dict[str, Any]:
    """The json of a sample, or an empty dict."""
    return json.loads(members["json"].read()) if "json" in members else {}
