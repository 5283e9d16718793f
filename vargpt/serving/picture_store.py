"""What a server remembers of the pictures it drew: their files, for a while, and the exact bits they are made of.

In: drawn pictures. Out: files by name, and the tokens of a picture that a client sends back, found by its pixels: a
change then starts from the very same bits and not from a re-encoding.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace

from PIL import Image

from vargpt.types import ImagePart


@dataclass(frozen=True)
class Kept:
    """A picture without its pixels, which whoever looks for it has."""

    name: str
    png: bytes
    part: ImagePart
    until: float

    @property
    def size(self) -> int:
        tokens = self.part.tokens
        return len(self.png) + (0 if tokens is None else sum(grid.nbytes for grid in tokens.grids))


class Gallery:
    """Drawn pictures in memory, the oldest forgotten first; safe to use from several threads.

    Args:
        seconds: how long a picture is kept.
        num_bytes: how much all of them may take; the latest is kept in any case.
    """

    def __init__(self, seconds: float, num_bytes: int) -> None:
        self.seconds, self.num_bytes = seconds, num_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # by the digest of the pixels
        self._lock = threading.Lock()

    def keep(self, part: ImagePart, png: bytes) -> str:
        """Remembers a picture and returns the name of its file, which nobody can guess."""
        name, blank = secrets.token_urlsafe(24), Image.new("RGB", (1, 1))
        kept = Kept(name, png, replace(part, image=blank), time.monotonic() + self.seconds)
        with self._lock:
            self._kept.pop(digest(part.image), None)
            self._kept[digest(part.image)] = kept
            self._forget()
        return name

    def file(self, name: str) -> bytes | None:
        """The PNG file of this name; None if there never was one, or no longer."""
        wanted = name.encode("utf-8", "replace")  # strings are compared in constant time as ASCII only
        with self._lock:
            self._forget()
            known = (kept for kept in self._kept.values() if secrets.compare_digest(kept.name.encode(), wanted))
            return next((kept.png for kept in known), None)

    def recall(self, image: Image.Image) -> ImagePart:
        """An upright RGB picture as a part: with tokens, seed and settings if it was drawn here."""
        part = self.find(digest(image))
        return ImagePart(image) if part is None else replace(part, image=image)

    def find(self, pixels: str) -> ImagePart | None:
        """What was drawn here with these pixels (their `digest`), with a blank for the picture; None if nothing was."""
        with self._lock:
            self._forget()
            kept = self._kept.get(pixels)
        return None if kept is None else kept.part

    def _forget(self) -> None:
        now, total = time.monotonic(), sum(kept.size for kept in self._kept.values())
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if oldest.until > now and (total <= self.num_bytes or len(self._kept) == 1):
                return
            total -= oldest.size
            self._kept.popitem(last=False)


def digest(image: Image.Image) -> str:
    """Equal for equal pixels."""
    return hashlib.sha256(b"%dx%d " % image.size + image.tobytes()).hexdigest()
