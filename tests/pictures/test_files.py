"""Whatever a person hands over becomes an upright RGB picture or one clear sentence."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vargpt.pictures.files import open_picture, png_with_metadata

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def corner_picture() -> Image.Image:
    """6 wide and 4 high, black, with a red top left pixel."""
    image = Image.new("RGB", (6, 4))
    image.putpixel((0, 0), RED)
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation: int) -> None:
    # How an upright picture lies in the sensor for each value of the tag.
    turned = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = corner_picture()
    stored = upright if turned is None else upright.transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_picture(encoded(stored, exif=exif))
    assert opened.size == upright.size
    assert np.array_equal(np.asarray(opened), np.asarray(upright))


def palette_with_hole() -> Image.Image:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 1)
    image.info["transparency"] = 1
    return image


def deep_grey(mode: str, value: float, dtype: str) -> Image.Image:
    return Image.fromarray(np.full((4, 4), value, dtype=dtype)).convert(mode)


MODES = {
    "RGB": (Image.new("RGB", (4, 4), RED), RED),
    "RGBA opaque": (Image.new("RGBA", (4, 4), (*RED, 255)), RED),
    "RGBA clear": (Image.new("RGBA", (4, 4), (*RED, 0)), WHITE),
    "RGBA half": (Image.new("RGBA", (4, 4), (0, 0, 0, 128)), (127, 127, 127)),
    "LA clear": (Image.new("LA", (4, 4), (0, 0)), WHITE),
    "La": (Image.new("LA", (4, 4), (90, 255)).convert("La"), (90, 90, 90)),
    "L": (Image.new("L", (4, 4), 90), (90, 90, 90)),
    "1": (Image.new("1", (4, 4), 1), WHITE),
    "P": (Image.new("RGB", (4, 4), RED).quantize(4), RED),
    "CMYK": (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), RED),
    "YCbCr": (Image.new("RGB", (4, 4), (80, 80, 80)).convert("YCbCr"), (80, 80, 80)),
    "HSV": (Image.new("RGB", (4, 4), RED).convert("HSV"), RED),
    "I;16": (deep_grey("I;16", 65535, "uint16"), WHITE),
    "I;16 dark": (deep_grey("I;16", 257 * 40, "uint16"), (40, 40, 40)),
    "I": (deep_grey("I", 257 * 40, "int32"), (40, 40, 40)),
    "I of 8 bits": (deep_grey("I", 40, "int32"), (40, 40, 40)),
    "F": (deep_grey("F", 0.2, "float32"), (51, 51, 51)),
    "F of 8 bits": (deep_grey("F", 51.0, "float32"), (51, 51, 51)),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_the_rgb_that_one_would_see(name: str) -> None:
    image, expected = MODES[name]
    opened = open_picture(image)
    assert opened.mode == "RGB"
    assert np.abs(np.asarray(opened).astype(int) - expected).max() <= 1


def test_a_transparent_palette_entry_shows_white_paper_from_a_file_too() -> None:
    for format in ("PNG", "GIF"):
        opened = open_picture(encoded(palette_with_hole(), format))
        assert opened.getpixel((0, 0)) == WHITE
        assert opened.getpixel((1, 0)) == RED


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, (0, 255, 0))]
    animation = Image.open(io.BytesIO(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    animation.seek(1)
    assert open_picture(animation).getpixel((0, 0)) == RED


def test_paths_bytes_files_and_pictures_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    corner_picture().save(path)
    expected = np.asarray(corner_picture())
    with path.open("rb") as file:
        for source in (path, str(path), path.read_bytes(), file, Image.open(path)):
            assert np.array_equal(np.asarray(open_picture(source)), expected)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="there is no file .*missing.png"):
        open_picture(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="note.png is not a picture"):
        open_picture(tmp_path / "note.png")
    with pytest.raises(ValueError, match="empty.png is empty"):
        open_picture(tmp_path / "empty.png")
    with pytest.raises(ValueError, match="is not a file"):
        open_picture(tmp_path)
    with pytest.raises(ValueError, match="no pixels"):
        open_picture(Image.new("RGB", (0, 7)))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_file_that_was_cut_off_is_called_damaged(format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    data = encoded(noise, format)
    with pytest.raises(ValueError, match="damaged|not a picture"):
        open_picture(data[: len(data) // 2])


@given(st.binary(max_size=60), st.integers(0, 120))
def test_damaged_bytes_raise_nothing_but_clear_errors(junk: bytes, where: int) -> None:
    data = bytearray(encoded(corner_picture()))
    data[where : where + len(junk)] = junk
    try:
        assert open_picture(bytes(data)).mode == "RGB"
    except ValueError as error:
        assert str(error).startswith("the picture ")


def png_claiming(width: int, height: int) -> bytes:
    """A PNG header without any pixels behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"")
    chunks = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, body)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("side", [9_000, 10_000, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(ValueError, match="pixels"):
        open_picture(png_claiming(side, side))


def test_the_pixel_limit_can_be_chosen() -> None:
    with pytest.raises(ValueError, match="6x4 = 24 pixels, more than the 10 allowed"):
        open_picture(corner_picture(), max_pixels=10)


def test_a_png_says_how_it_was_made() -> None:
    metadata = {"prompt": "ein Fuchs 🦊", "seed": 7, "settings": {"temperature": 0.5}, "model": None}
    image = Image.open(io.BytesIO(png_with_metadata(corner_picture(), metadata)))
    assert image.text["prompt"] == "ein Fuchs 🦊"
    assert image.text["seed"] == "7"
    assert json.loads(image.text["settings"]) == {"temperature": 0.5}
    assert "model" not in image.text
    assert np.array_equal(np.asarray(image), np.asarray(corner_picture()))
