"""The files of a model: fetched from a hub when they are not here, and told apart by a hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

READ_WHOLE, BLOCK = 1 << 30, 1 << 20


def fetch(name: str, patterns: Sequence[str] | None, instead: str) -> Path:
    """The folder of a repository, fetched (or found in the cache) as far as its file names fit `patterns`; None = all.

    Raises:
        FileNotFoundError: the hub does not give it out; the message ends with what to do `instead`.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=None if patterns is None else list(patterns)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise FileNotFoundError(
            f"{name!r} is neither a local model directory nor a model that the hub gives out now ({error}); {instead}"
        ) from error


def files_hash(files: Iterable[Path]) -> str:
    """The first 16 hex digits of the SHA-256 over weight files: what a picture says it was drawn by.

    Of a file beyond a gigabyte, name, size, beginning and end are taken: reading 20 GB takes longer than drawing.
    """
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as stream:
            if size > READ_WHOLE:
                digest.update(f"{file.name} {size}".encode())
                digest.update(stream.read(BLOCK))
                stream.seek(-BLOCK, os.SEEK_END)
            for block in iter(lambda: stream.read(BLOCK), b""):
                digest.update(block)
    return digest.hexdigest()[:16]
