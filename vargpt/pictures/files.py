"""Reading pictures that users give: each becomes an upright RGB picture, or an error of one clear sentence.

In: paths, bytes, files and PIL images of any mode. Out: RGB without transparency, EXIF rotation applied. Also writes
PNG files with metadata that say how a picture was made.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

MAX_PIXELS = 50_000_000
PictureSource = str | Path | bytes | IO[bytes] | Image.Image
# What Pillow's decoders raise on damaged files, by experience and by its source.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)


def open_picture(source: PictureSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright RGB copy of a picture; transparent parts become white, of an animation the first frame is taken.

    Args:
        source: a path, the bytes of a file, an open binary file, or a PIL image.
        max_pixels: width x height above which a picture is refused; read from the header, before anything is decoded.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a picture, damaged, empty, or too large.
    """
    if isinstance(source, Image.Image):
        _check_size(source, "the picture", max_pixels)
        return _upright_rgb(source, "the picture")
    name, data = _read(source)
    if not data:
        raise ValueError(f"{name} is empty (0 bytes)")
    try:
        with warnings.catch_warnings():  # Pillow's own, higher limit; ours speaks below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is too large: a picture may have {max_pixels:,} pixels ({error})") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not a picture that can be read; use PNG, JPEG, WebP, GIF, BMP or TIFF") from None
    except DAMAGE as error:
        raise ValueError(f"{name} is damaged and cannot be read: {error}") from None
    with image:
        _check_size(image, name, max_pixels)
        return _upright_rgb(image, name)


def png_with_metadata(image: Image.Image, metadata: Mapping[str, Any]) -> bytes:
    """The bytes of a PNG file with one text chunk per entry; other values than strings are JSON, None is skipped.

    Keys are PNG keywords: 1 to 79 Latin-1 characters ("prompt", "seed", "settings", "model", ...).
    """
    info = PngInfo()
    for key, value in metadata.items():
        if value is not None:
            info.add_text(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def _read(source: str | Path | bytes | IO[bytes]) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return "the picture", source
    if not isinstance(source, str | Path):
        name = getattr(source, "name", None)
        return (Path(name).name if isinstance(name, str) else "the picture"), source.read()
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give the path of a picture")
    return str(path), path.read_bytes()


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if not width or not height:
        raise ValueError(f"{name} has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise ValueError(
            f"{name} has {width}x{height} = {width * height:,} pixels, more than the {max_pixels:,} allowed; "
            "make it smaller first"
        )


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        if getattr(image, "n_frames", 1) > 1:
            image.seek(0)
        image.load()
        rgb = _as_rgb(ImageOps.exif_transpose(image))
    except DAMAGE as error:
        raise ValueError(f"{name} is damaged or cut off and cannot be read: {error}") from None
    rgb.info.clear()
    return rgb


def _as_rgb(image: Image.Image) -> Image.Image:
    """Converts every mode of Pillow to RGB; transparent parts become white."""
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _deep_grey_as_rgb(image)
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or image.has_transparency_data:
        rgba = image.convert("RGBA") if image.mode != "La" else image.convert("LA").convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, rgba).convert("RGB")
    return image.convert("RGB")


def _deep_grey_as_rgb(image: Image.Image) -> Image.Image:
    """Greys of more than 8 bits as RGB. Integers span 16 bits unless all fit 8, floats 0-1 unless one is larger."""
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0)
    if image.mode == "F":
        scaled = values * 255 if values.max() <= 1 else values
    else:
        scaled = values / 257 if image.mode != "I" or values.max() > 255 else values
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8)).convert("RGB")
