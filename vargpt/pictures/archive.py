"""Messages on disk: a JSON document, with pictures and exact image tokens in files beside it.

In: messages, or any dataclass that holds some. Out: a document in which every object is written once and referred to by
number, so that what was one message is one message again,

    {"format": 1, "objects": [{"is": "TextPart", "fields": {"text": "a fox"}}, ...], "top": {"object": 3}}

and, in the folder of the archive, one file per picture, named by a digest of what it holds:

    DIGEST.png            pixels
    DIGEST.safetensors    image tokens, one tensor per scale

The caller keeps the document: as a file, a line of a file, or a row of a database. Saving twice writes nothing twice,
and no name of a file comes from a user. Nothing is a pickle: reading a document makes dataclasses that the archive was
told of, and runs no other code.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_as_bytes

from vargpt.types import ImageLayout, ImagePart, ImageTokens, Message, TextPart

FORMAT = 1  # grows when older programs could not read the documents any more
MESSAGE_KINDS = (Message, TextPart, ImagePart, ImageLayout)
LOST_PICTURE = TextPart("(a picture that was lost)")


class NewerFormatError(ValueError):
    """The document is intact, but was written by a newer program."""


class UnsavableError(TypeError):
    """A value that belongs to a running process, such as a lock."""


class LostFileError(Exception):
    """The file of a picture or of its tokens is missing or damaged."""


@dataclass(frozen=True)
class Restored:
    """A value that was read back, and what could not be.

    `lost` names every file that is missing or damaged, with the reason; `unknown` names fields ("Class.field") that
    this version does not have.
    """

    value: Any
    lost: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class Archive:
    """Documents whose pictures lie in one folder.

    Args:
        folder: of the pictures; made when the first one is written.
        kinds: dataclasses that documents may hold besides messages and their parts. They are known by their names.
    """

    def __init__(self, folder: Path, kinds: Iterable[type[Any]] = ()) -> None:
        self.folder = folder
        self.kinds: dict[str, type[Any]] = {kind.__name__: kind for kind in (*MESSAGE_KINDS, *kinds)}

    def write(self, value: Any) -> dict[str, Any]:
        """The document of a value. Its pictures are on disk when this returns. Inverse: `read`.

        Raises:
            TypeError: the value holds something that is neither plain data, a picture, nor one of the kinds.
        """
        writing = _Writing(self)
        top = writing.value(value)
        return {"format": FORMAT, "objects": writing.objects, "top": top}

    def read(self, document: Any) -> Restored:
        """The value of a document, as JSON gives it. A picture that cannot be read becomes `LOST_PICTURE`.

        Raises:
            NewerFormatError: the document was written by a newer program.
            ValueError: the document is damaged.
        """
        reading = _Reading(self)
        try:
            if document["format"] > FORMAT:
                raise NewerFormatError(f"it was saved by a newer vargpt (format {document['format']}, not {FORMAT})")
            for entry in document["objects"]:
                reading.objects.append(reading.one_object(entry))
            top = reading.value(document["top"])
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"the document cannot be understood: {error!r}") from error
        except LostFileError as error:
            raise ValueError(str(error)) from error
        return Restored(top, tuple(reading.lost), tuple(sorted(reading.unknown)))


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Writes a file that others see either as it was or complete, even if the machine stops meanwhile.

    Args:
        path: of the file; folders are made as needed, for this user alone.
        data: all of its bytes.
        mode: permissions of the file, before the umask; by default for this user alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class _Writing:
    """One document that is being written. Fields that hold what cannot be saved are left to their defaults."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.objects: list[dict[str, Any]] = []
        self._numbers: dict[int, int] = {}  # of objects, by id()
        self._files: dict[int, dict[str, Any]] = {}  # of pictures and tokens, by id()

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
        if self.archive.kinds.get(name) is not type(value):
            raise TypeError(f"{name} is not among the kinds of this archive: {', '.join(sorted(self.archive.kinds))}")
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

    def _once(self, value: Any, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
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

    def _file(self, name: str, as_bytes: Callable[[], bytes]) -> str:
        path = self.archive.folder / name
        if not path.is_file():
            write_whole(path, as_bytes(), mode=0o666)
        return name


class _Reading:
    """One document that is being read: the inverse of `_Writing`."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.objects: list[Any] = []
        self.lost: list[str] = []
        self.unknown: set[str] = set()

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "object" in value:
            return self.objects[value["object"]]
        if "tuple" in value:
            return tuple(self.value(one) for one in value["tuple"])
        if "dict" in value:
            return {self.value(key): self.value(one) for key, one in value["dict"]}
        if "picture" in value:
            return self._picture(value["picture"])
        return self._tokens(value["tokens"], self.value(value["layout"]))

    def one_object(self, entry: dict[str, Any]) -> Any:
        name = entry["is"]
        if name not in self.archive.kinds:
            raise ValueError(f"it holds a {name}, which this version of vargpt does not know")
        kind = self.archive.kinds[name]
        known = {field.name: field for field in fields(kind) if field.init}
        self.unknown |= {f"{name}.{unknown}" for unknown in entry["fields"].keys() - known.keys()}
        values = {}
        for field, value in entry["fields"].items():
            if field in known:
                try:
                    values[field] = self.value(value)
                except LostFileError as error:
                    self.lost.append(str(error))
                    if kind is ImagePart:
                        return LOST_PICTURE
                    values[field] = LOST_PICTURE
        needed = {field.name for field in known.values() if field.default is field.default_factory is MISSING}
        if needed - values.keys():
            raise ValueError(f"a {name} lacks {', '.join(sorted(needed - values.keys()))}")
        return kind(**values)

    def _path(self, name: str) -> Path:
        if Path(name).name != name:
            raise ValueError(f"{name!r} is not the name of a file of an archive")
        return self.archive.folder / name

    def _picture(self, name: str) -> Image.Image:
        path = self._path(name)
        try:
            with Image.open(path) as opened:
                opened.load()
                return opened.copy()
        except (OSError, SyntaxError) as error:
            raise LostFileError(f"{path} cannot be read as a picture ({error})") from error

    def _tokens(self, name: str, layout: ImageLayout) -> ImageTokens:
        path = self._path(name)
        try:
            named = load_tensors(path.read_bytes())
            known = named.pop("known", None)
            return ImageTokens(layout, tuple(named[f"scale{number}"] for number in range(len(named))), known)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise LostFileError(f"{path} cannot be read as image tokens ({error})") from error
