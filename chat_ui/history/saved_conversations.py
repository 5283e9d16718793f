"""What the model has been told, on disk: a conversation with exact image tokens, seeds and settings.

In: a `Conversation`, or any other of our dataclasses. Out: one folder per conversation:

    conversation.json     objects by number, each written once: what was one message is one message again
    DIGEST.png            pixels
    DIGEST.safetensors    image tokens, one tensor per scale
    unfinished            there while a turn is running, and after a crash

Pictures are named by what they hold, so saving again writes only what is new. `conversation.json` is replaced last and
as a whole: a process that is killed leaves the conversation as it was after the last turn that was saved.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import os
import shutil
import types
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_as_bytes

import vargpt.types
from chat_ui.conversation import page_settings, visitor_conversation
from chat_ui.conversation.visitor_conversation import Conversation
from chat_ui.history import ballots
from chat_ui.history.data_folder import write_whole
from chat_ui.history.missing import LOST_PICTURE, mend
from vargpt.types import ImageLayout, ImagePart, ImageTokens

logger = logging.getLogger(__name__)
FORMAT = 1  # grows when older programs could not read the files any more
FILE = "conversation.json"
DAMAGED = "conversation.damaged.json"
NEWER = "conversation.newer.json"
UNFINISHED = "unfinished"


def savable() -> dict[str, type]:
    """The dataclasses that a file may name. No other code is ever called by what a file says."""
    rooms: Iterable[types.ModuleType] = (vargpt.types, visitor_conversation, page_settings, ballots)
    found = (value for room in rooms for value in vars(room).values() if isinstance(value, type))
    return {value.__name__: value for value in found if is_dataclass(value)}


@dataclass(frozen=True)
class Loaded:
    """A conversation that was read back, and what of it was not: pictures, its last turn, fields of other versions."""

    conversation: Conversation
    num_lost: int = 0
    is_unfinished: bool = False
    unknown: tuple[str, ...] = ()


class Conversations:
    """The folders of all conversations, by id."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._saving: dict[str, asyncio.Lock] = {}

    def folder(self, thread_id: str) -> Path:
        return self.root / thread_id

    async def save(self, thread_id: str, conversation: Conversation, is_running: bool = False) -> None:
        """Writes what is new; returns when a crash could no longer undo it. `is_running`: a turn has begun."""
        async with self._saving.setdefault(thread_id, asyncio.Lock()):
            await asyncio.to_thread(write_document, conversation, self.folder(thread_id), is_running)

    async def load(self, thread_id: str) -> Loaded | None:
        """The conversation, or None if none was ever saved.

        Raises:
            ValueError: it is there and cannot be read; the message says what happened to it.
        """
        return await asyncio.to_thread(read_document, self.folder(thread_id))

    async def document(self, thread_id: str, value: Any) -> dict[str, Any]:
        """Any of our dataclasses as JSON, with its pictures beside those of the conversation."""
        return await asyncio.to_thread(lambda: encode(value, self.folder(thread_id)))

    async def delete(self, thread_id: str) -> None:
        self._saving.pop(thread_id, None)
        await asyncio.to_thread(shutil.rmtree, self.folder(thread_id), ignore_errors=True)


def write_document(conversation: Conversation, folder: Path, is_running: bool = False) -> None:
    """See `Conversations.save`."""
    data = json.dumps(encode(conversation, folder), ensure_ascii=False)
    write_whole(folder / FILE, data.encode("utf-8"))
    if is_running:
        (folder / UNFINISHED).touch()
    else:
        (folder / UNFINISHED).unlink(missing_ok=True)


def read_document(folder: Path) -> Loaded | None:
    """See `Conversations.load`. A file that cannot be read is put aside, so that the next turn does not replace it."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        reader = Reader(folder)
        conversation = reader.read(json.loads(path.read_bytes()))
        if not isinstance(conversation, Conversation):
            raise ValueError("it holds something else")
    except NewerFormatError as error:
        os.replace(path, folder / NEWER)
        raise ValueError(f"{error}; until then its file is {folder / NEWER}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        os.replace(path, folder / DAMAGED)
        raise ValueError(f"its file was damaged ({error}) and has been kept as {folder / DAMAGED}") from error
    is_unfinished = (folder / UNFINISHED).exists()
    mend(conversation, is_unfinished)
    return Loaded(conversation, reader.num_lost, is_unfinished, tuple(sorted(reader.unknown)))


# -- values to JSON ----------------------------------------------------------------------------------------------------


def encode(value: Any, folder: Path) -> dict[str, Any]:
    """A dataclass and all that it holds as JSON; pictures and tokens are written into `folder`.

    Raises:
        TypeError: it holds a dataclass that `savable` does not know.
    """
    writer = Writer(folder)
    top = writer.value(value)
    return {"format": FORMAT, "objects": writer.objects, "top": top}


class Writer:
    """Numbers dataclasses by identity; fields that hold what cannot be kept (locks, events) fall to their defaults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects: list[dict[str, Any]] = []
        self._known = savable()
        self._numbers: dict[int, int] = {}
        self._files: dict[int, dict[str, Any]] = {}

    def value(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, tuple):
            return {"tuple": [self.value(one) for one in value]}
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, dict):
            return {"dict": [[self.value(key), self.value(one)] for key, one in list(value.items())]}
        if isinstance(value, Image.Image):
            return self._once(value, self._picture)
        if isinstance(value, ImageTokens):
            return self._once(value, self._tokens)
        if is_dataclass(value) and not isinstance(value, type):
            return self._object(value)
        raise UnsavableError(f"a {type(value).__name__} cannot be saved")

    def _object(self, value: Any) -> dict[str, Any]:
        name = type(value).__name__
        if self._known.get(name) is not type(value):
            raise TypeError(f"{name} is not among what conversations are saved of")
        if id(value) not in self._numbers:
            values = {}
            for field in fields(value):
                try:
                    values[field.name] = self.value(getattr(value, field.name))
                except UnsavableError:
                    if field.default is MISSING and field.default_factory is MISSING:
                        raise
            self.objects.append({"is": name, "fields": values})
            self._numbers[id(value)] = len(self.objects) - 1
        return {"object": self._numbers[id(value)]}

    def _once(self, value: Any, write: Any) -> dict[str, Any]:
        if id(value) not in self._files:
            self._files[id(value)] = write(value)
        return self._files[id(value)]

    def _picture(self, image: Image.Image) -> dict[str, Any]:
        digest = hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()[:40]

        def as_bytes() -> bytes:
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            return buffer.getvalue()

        return {"picture": self._file(f"{digest}.png", as_bytes)}

    def _tokens(self, tokens: ImageTokens) -> dict[str, Any]:
        named = {f"scale{number}": grid for number, grid in enumerate(tokens.grids)}
        if tokens.known is not None:
            named["known"] = tokens.known
        data = tensors_as_bytes({name: grid.detach().cpu().contiguous() for name, grid in named.items()})
        name = f"{hashlib.sha256(data).hexdigest()[:40]}.safetensors"
        return {"tokens": self._file(name, lambda: data), "layout": self.value(tokens.layout)}

    def _file(self, name: str, as_bytes: Any) -> str:
        if not (self.folder / name).is_file():
            write_whole(self.folder / name, as_bytes())
        return name


class UnsavableError(TypeError):
    """A value that belongs to a running process."""


# -- and back ----------------------------------------------------------------------------------------------------------


class NewerFormatError(ValueError):
    """The file is sound and was written by a newer program."""


class Reader:
    """The inverse of `encode`. A picture that cannot be read is told of in words, and counted; the rest is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_lost = 0
        self.unknown: set[str] = set()  # fields of a file of another version
        self._known = savable()
        self._objects: list[Any] = []

    def read(self, document: dict[str, Any]) -> Any:
        """What was encoded.

        Raises:
            NewerFormatError: by a newer program.
            ValueError: the document is damaged; also TypeError, KeyError, IndexError and AttributeError.
        """
        if document["format"] > FORMAT:
            raise NewerFormatError(
                "it was saved by a newer vargpt; to go on with it, update vargpt and rename its file to " + FILE
            )
        for entry in document["objects"]:
            self._objects.append(self._object(entry))
        return self.value(document["top"])

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "object" in value:
            return self._objects[value["object"]]
        if "tuple" in value:
            return tuple(self.value(one) for one in value["tuple"])
        if "dict" in value:
            return {self.value(key): self.value(one) for key, one in value["dict"]}
        if "picture" in value:
            return self._picture(value["picture"])
        return self._tokens(value["tokens"], self.value(value["layout"]))

    def _object(self, entry: dict[str, Any]) -> Any:
        name = entry["is"]
        if name not in self._known:
            raise ValueError(f"it holds a {name}, which this version of vargpt does not know")
        kind = self._known[name]
        known = {field.name: field for field in fields(kind) if field.init}
        self.unknown |= {f"{name}.{unknown}" for unknown in entry["fields"].keys() - known.keys()}
        values = {}
        for field, value in entry["fields"].items():
            if field in known:
                try:
                    values[field] = self.value(value)
                except LostPictureError as error:
                    logger.warning("a picture of a conversation is lost: %s", error)
                    self.num_lost += 1
                    if kind is ImagePart:
                        return LOST_PICTURE
                    values[field] = LOST_PICTURE  # of a marked part; see `mend`
        needed = {field.name for field in known.values() if field.default is field.default_factory is MISSING}
        if needed - values.keys():
            raise ValueError(f"a {name} lacks {', '.join(sorted(needed - values.keys()))}")
        return kind(**values)

    def _path(self, name: str) -> Path:
        if Path(name).name != name:
            raise ValueError(f"{name!r} is no name of a picture")
        return self.folder / name

    def _picture(self, name: str) -> Image.Image:
        try:
            with Image.open(self._path(name)) as opened:
                opened.load()
                return opened.copy()
        except (OSError, SyntaxError) as error:
            raise LostPictureError(str(error)) from error

    def _tokens(self, name: str, layout: ImageLayout) -> ImageTokens:
        try:
            named = load_tensors(self._path(name).read_bytes())
            known = named.pop("known", None)
            return ImageTokens(layout, tuple(named[f"scale{number}"] for number in range(len(named))), known)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise LostPictureError(str(error)) from error


class LostPictureError(Exception):
    """A file beside the conversation is gone or damaged."""
