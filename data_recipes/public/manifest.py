"""The manifest of a built folder: its source and licence, settings, counts, and the hash of every file of rows.

    OUT/manifest.json            this manifest
    OUT/rows/00000.jsonl         the rows kept of the first `shard_size` rows of the source, in the published form
    OUT/skipped/00000.jsonl      the rows of them that could not be used, by name: broken pictures, malformed rows
    OUT/images/3f/3fa9...c1.jpg  pictures, named by the SHA-256 of their bytes, so that one file serves all its rows

A file is written beside its place and then put there, and the manifest after the files it names: whenever a build is
killed, the manifest tells how far it came.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_recipes.public.base import DataSet

FORMAT = 1
FILE_NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """The options of a build; with equal ones and equal source files, a build writes the same bytes."""

    data_set: str
    source: str
    filters: tuple[str, ...] = ()
    limit: int | None = None  # rows to keep at most
    shard_size: int = 1000  # rows of the source per shard
    long_share: float = 0.5  # of rows with several captions, how many are asked for by the longest
    captioner: str | None = None  # "module:name", or the id of a model of the hub
    keep_captions: bool = True  # beside those of the captioner
    scorer: str | None = None  # "module:name"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shard_size < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"a shard and a limit are 1 row or more, got {self.shard_size} and {self.limit}")
        if not 0 <= self.long_share <= 1:
            raise ValueError(f"the share of long captions is 0 to 1, got {self.long_share}")


@dataclass
class Manifest:
    """How far a build has come. `shards` are {"rows", "skipped", "count", "sha256", "skipped_sha256"}."""

    data_set: dict[str, Any]
    settings: dict[str, Any]
    finished: bool = False
    read: int = 0
    kept: int = 0
    broken: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # by filter; "malformed" and "no_caption" are ours
    shards: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT

    @classmethod
    def start(cls, out: Path, card: DataSet, settings: BuildSettings) -> Manifest:
        """The manifest of a folder whose build is resumed, or a new one.

        Raises:
            ValueError: the folder was built with other settings, or holds something else.
        """
        now = json.loads(json.dumps(dataclasses.asdict(settings)))
        if not (out / FILE_NAME).exists():
            if out.exists() and any(out.iterdir()):
                raise ValueError(f"{out} is not empty and was not built here; choose another folder")
            fields = ("name", "title", "homepage", "licence", "commercial", "commercial_reason")
            manifest = cls({name: getattr(card, name) for name in fields}, now)
            manifest.save(out)
            return manifest
        manifest = cls.load(out)
        before = manifest.settings
        changed = [
            f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in now if now[name] != before.get(name)
        ]
        if changed:
            raise ValueError(f"{out} was built with other settings ({'; '.join(changed)}); choose another folder")
        return manifest

    @classmethod
    def load(cls, out: Path) -> Manifest:
        """The manifest of a built folder.

        Raises:
            FileNotFoundError: the folder has none.
            ValueError: it has another format.
        """
        path = out / FILE_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{out} has no {FILE_NAME}; build it with python -m data_recipes.public.build --out {out}"
            )
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.get("format") != FORMAT:
            raise ValueError(f"{path} has format {fields.get('format')!r}, this code reads {FORMAT}; build it again")
        return cls(**fields)

    def save(self, out: Path) -> None:
        write(out / FILE_NAME, (json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n").encode())

    def add_shard(self, out: Path, rows: list[dict], skipped: list[dict], counts: Counter[str]) -> None:
        """Write the next shard and then the manifest; `counts` has "read", "kept", "broken" and names of filters."""
        number = f"{len(self.shards):05d}.jsonl"
        shard: dict[str, Any] = {"count": len(rows)}
        for kind, items, digest in (("rows", rows, "sha256"), ("skipped", skipped, "skipped_sha256")):
            data = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items).encode("utf-8", "replace")
            write(out / kind / number, data)
            shard |= {kind: f"{kind}/{number}", digest: hashlib.sha256(data).hexdigest()}
        self.shards.append(shard)
        counts = Counter(counts)
        self.read += counts.pop("read", 0)
        self.kept += counts.pop("kept", 0)
        self.broken += counts.pop("broken", 0)
        self.dropped = dict(sorted((Counter(self.dropped) + counts).items()))
        self.save(out)


def write(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader sees all of it or the file before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
