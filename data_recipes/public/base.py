"""What every public data set is read as: a `DataSet` card with its licence, and `SourceRow`s in one common form.

In: a folder on disk or the id of a set on the Hugging Face hub. Out: an iterator of `SourceRow`s, whose pictures are
not decoded yet, so that a broken one can be skipped and named. Every module of a data set has a `CARD` and a function
`read(source) -> Iterator[SourceRow]` (the protocol `Recipe`); `catalogue.py` lists them.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import PIL.Image
import PIL.ImageOps

if TYPE_CHECKING:
    from vargpt.types import Message, Role

INPUT, DRAWN = "<image>", "<image_gen>"  # the published placeholders: a picture that is seen, a picture that is drawn
DAMAGE = (OSError, EOFError, SyntaxError, ValueError, IndexError, struct.error, zlib.error)  # PIL's, format by format
PLACEHOLDER = re.compile(f"({INPUT}|{DRAWN})")

Commercial = Literal["yes", "no", "unclear"]
Kind = Literal["understanding", "text_to_image", "editing", "prompts", "labels"]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Licence, size, source and purpose of a data set. `commercial` is our reading of the licence, not legal advice."""

    name: str  # as `--data-set` takes it
    title: str
    kind: Kind
    homepage: str
    hub_id: str | None  # what `--source` takes instead of a folder; None = files only
    licence: str
    commercial: Commercial
    commercial_reason: str
    size: str
    stage: str  # which training stage of ours it feeds
    files: str  # what `--source DIR` must hold


class BrokenImage(ValueError):
    """A picture that cannot be read: its name, and why. The reason holds nothing that differs between two runs."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class ClosedPicture:
    """A picture that is read only when it is needed. `name` identifies it in reports: a path, or archive/member."""

    name: str
    read: Callable[[], bytes]

    def load(self) -> bytes:
        """The bytes of the file.

        Raises:
            BrokenImage: there is no such file, or it cannot be read.
        """
        try:
            return self.read()
        except FileNotFoundError:
            raise BrokenImage(self.name, "there is no such file") from None
        except OSError as error:
            raise BrokenImage(self.name, f"cannot be read: {type(error).__name__}") from None


def decode(data: bytes, name: str = "picture") -> tuple[PIL.Image.Image, str]:
    """An upright RGB picture and its file format ("JPEG", "PNG" ...); every pixel is decoded.

    Raises:
        BrokenImage: the bytes are no picture, or a damaged one.
    """
    try:
        with PIL.Image.open(io.BytesIO(data)) as file:
            image: PIL.Image.Image = file
            image_format = file.format or "?"
            # What is transparent becomes white: dropping alpha would show whatever colours were left below it.
            if image.has_transparency_data:
                layers = image.convert("RGBA")
                image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", layers.size, "white"), layers)
            return PIL.ImageOps.exif_transpose(image).convert("RGB"), image_format
    except PIL.UnidentifiedImageError:
        raise BrokenImage(name, "not a picture") from None
    except PIL.Image.DecompressionBombError:
        raise BrokenImage(name, "too many pixels") from None
    except DAMAGE as error:
        raise BrokenImage(
            name, f"damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None


@dataclass(frozen=True)
class PublishedTurn:
    """One message in the published form: `<image>` stands where a picture is seen, `<image_gen>` where one is drawn."""

    role: Role
    content: str


@dataclass(frozen=True)
class SourceRow:
    """One row of a set, its pictures not read yet.

    A conversation or an edit has `turns`. A text-to-image pair has `captions` (of any lengths; which is used, and in
    what words, is decided when a set is built) and one picture, which has no caption yet in some sets. A prompt has
    one caption and no picture.
    """

    id: str  # unique in the set, the same in every run: what is random is keyed by it
    pictures: tuple[ClosedPicture, ...] = ()  # in the order of their placeholders
    turns: tuple[PublishedTurn, ...] = ()
    captions: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)  # columns that filters read: "aesthetic", "watermark"


class Recipe(Protocol):
    """The two names that every module of a data set defines."""

    CARD: DataSet

    def read(self, source: str) -> Iterator[SourceRow]:
        """All rows, in an order that is the same in every run.

        Args:
            source: a folder that exists, or an id on the hub ("owner/name", "owner/name:config").
        """


def placeholders(turns: Sequence[PublishedTurn]) -> list[str]:
    """All placeholders of a conversation, in order."""
    return [found for turn in turns for found in PLACEHOLDER.findall(turn.content)]


def misplaced(turns: Sequence[PublishedTurn], num_pictures: int) -> str | None:
    """Why the placeholders of a conversation do not fit its pictures or their roles; None = they fit."""
    found = placeholders(turns)
    if len(found) != num_pictures:
        return f"{len(found)} placeholders for {num_pictures} pictures"
    if any(DRAWN in turn.content for turn in turns if turn.role != "assistant"):
        return "a picture drawn by someone else than the assistant"
    if not turns or turns[-1].role == "system":
        return "nothing is said"
    return None


def to_messages(turns: Sequence[PublishedTurn], images: Sequence[PIL.Image.Image]) -> tuple[Message, ...]:
    """Turns with placeholders, and the pictures in their order, as messages of the model."""
    from vargpt.types import Message  # here, because it imports torch, and a build needs none

    if len(placeholders(turns)) != len(images):
        raise ValueError(f"{len(placeholders(turns))} placeholders for {len(images)} pictures")
    left = iter(images)
    messages = []
    for turn in turns:
        pieces = [piece for piece in PLACEHOLDER.split(turn.content) if piece]
        parts = [next(left) if piece in (INPUT, DRAWN) else piece for piece in pieces]
        messages.append(Message.of(turn.role, *parts))
    return tuple(messages)
