"""The build: rows of a data set, shard by shard, into a folder of rows, pictures and a manifest (see manifest.py).

Every shard stands for one stretch of the source, so that the manifest alone tells where to go on: the same call again
takes up a build that was stopped, and ends with the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from data_recipes.public.base import PLACEHOLDER, BrokenImage, PublishedTurn, SourceRow, misplaced
from data_recipes.public.caption_conversations import Captioner, drawing_turns, request_turn
from data_recipes.public.catalogue import recipe
from data_recipes.public.filters import Filter, Opened, OpenedPicture, RememberingFilter, Scorer, parse_filters
from data_recipes.public.manifest import BuildSettings, Manifest, write

SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}  # written as they came; others as PNG


@dataclass
class Shard:
    """The result of one stretch of the source: rows kept, rows skipped, counts."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def build(
    settings: BuildSettings, out: Path, captioner: Captioner | None = None, scorer: Scorer | None = None
) -> Iterator[Manifest]:
    """Build a folder, or resume its build; yields the manifest at the start and after every shard.

    Args:
        settings: what to build. `settings.captioner` and `.scorer` only name the functions, so that the manifest knows.
        out: an empty folder, a new one, or one that was begun with the same settings.
        captioner: describes the picture of every text-to-image pair.
        scorer: answers filters on scores that the set has not.

    Raises:
        ValueError: other settings than before, an unknown set or filter, or a score that nobody knows.
        FileNotFoundError: the source is not what the set needs.
    """
    data_set = recipe(settings.data_set)
    filters = parse_filters(settings.filters, scorer)
    manifest = Manifest.start(out, data_set.CARD, settings)
    yield manifest
    if manifest.finished:
        return
    remember_kept(filters, out, manifest)
    rows = itertools.islice(data_set.read(settings.source), manifest.read, None)
    while not manifest.finished:
        room = None if settings.limit is None else settings.limit - manifest.kept
        shard = build_shard(rows, settings, out, filters, captioner, room)
        full = room is not None and shard.counts["kept"] >= room
        manifest.finished = full or shard.counts["read"] < settings.shard_size
        manifest.add_shard(out, shard.rows, shard.skipped, shard.counts)
        yield manifest


def build_shard(
    rows: Iterable[SourceRow],
    settings: BuildSettings,
    out: Path,
    filters: Sequence[Filter],
    captioner: Captioner | None,
    room: int | None,
) -> Shard:
    """Up to `shard_size` rows of the source, of which at most `room` are kept."""
    shard = Shard()
    for row in itertools.islice(rows, settings.shard_size):
        shard.counts["read"] += 1
        reason = unusable(row)
        if reason is not None:
            shard.counts["malformed"] += 1
            shard.skipped.append({"row": row.id, "reason": reason})
        else:
            try:
                outcome = build_row(row, settings, out, filters, captioner)
            except BrokenImage as error:
                outcome = "broken"
                shard.skipped.append({"row": row.id, "picture": error.name, "reason": error.reason})
            if isinstance(outcome, dict):
                shard.rows.append(outcome)
            shard.counts["kept" if isinstance(outcome, dict) else outcome] += 1
        if room is not None and shard.counts["kept"] >= room:
            break
    return shard


def unusable(row: SourceRow) -> str | None:
    """Why a row cannot be used, as far as its text shows; None = it can."""
    if row.turns:
        unknown = {turn.role for turn in row.turns} - {"system", "user", "assistant"}
        return f"unknown role {sorted(unknown)[0]!r}" if unknown else misplaced(row.turns, len(row.pictures))
    if any(PLACEHOLDER.search(caption) for caption in row.captions):
        return "a caption with a placeholder"
    return None


def build_row(
    row: SourceRow, settings: BuildSettings, out: Path, filters: Sequence[Filter], captioner: Captioner | None
) -> dict[str, Any] | str:
    """The row in the published form, its pictures written; or the name of what dropped it.

    Raises:
        BrokenImage: a picture of it cannot be read.
    """
    if not row.turns and not row.captions and (captioner is None or not row.pictures):
        return "no_caption"
    opened = Opened(row, tuple(OpenedPicture.of(picture) for picture in row.pictures))
    for one in filters:
        if not one.keeps(opened):
            return one.name
    turns = row.turns or caption_turns(opened, settings, captioner)
    if not turns:
        return "no_caption"
    built: dict[str, Any] = {
        "id": row.id,
        "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
        "images": [write_picture(picture, out) for picture in opened.pictures],
    }
    remembering = [one for one in filters if isinstance(one, RememberingFilter)]
    keys = {one.name: one.key(opened) for one in remembering}
    for one in remembering:
        one.remember(keys[one.name])
    return built | ({"keys": keys} if keys else {})


def caption_turns(opened: Opened, settings: BuildSettings, captioner: Captioner | None) -> tuple[PublishedTurn, ...]:
    """The conversation that a pair or a prompt becomes; empty if there is no caption."""
    row, captions = opened.row, list(opened.row.captions)
    if captioner is not None and opened.pictures:
        written = captioner(opened.pictures[0].image).strip()
        captions = ([*captions, written] if settings.keep_captions else [written]) if written else captions
    if not captions:
        return ()
    if not opened.pictures:
        return (request_turn(captions, row.id, settings.long_share, settings.seed),)
    return drawing_turns(captions, row.id, settings.long_share, settings.seed)


def write_picture(picture: OpenedPicture, out: Path) -> str:
    """The path of the picture below `out`: its own bytes (or a PNG of rarer formats), named by their hash."""
    suffix, data = SUFFIXES.get(picture.image_format), picture.data
    if suffix is None:
        buffer = BytesIO()
        picture.image.save(buffer, "PNG")
        suffix, data = ".png", buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    path = f"images/{digest[:2]}/{digest}{suffix}"
    if not (out / path).exists():
        write(out / path, data)
    return path


def remember_kept(filters: Sequence[Filter], out: Path, manifest: Manifest) -> None:
    """Give the filters that compare with earlier rows the keys of the finished shards."""
    remembering = [one for one in filters if isinstance(one, RememberingFilter)]
    for shard in manifest.shards if remembering else ():
        for line in (out / shard["rows"]).read_bytes().splitlines():
            keys = json.loads(line)["keys"]
            for one in remembering:
                one.remember(keys[one.name])
