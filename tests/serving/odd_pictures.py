"""Image files that a server meets sooner or later: broken ones, hostile ones, and odd ones that are fine."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def noise(side: int = 40, mode: str = "RGB") -> Image.Image:
    return Image.effect_noise((side, side), 60).convert(mode)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_that_claims(width: int, height: int, data: bytes = b"\0" * 64) -> bytes:
    """A PNG whose header names a size that its few bytes cannot fill."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(data)), png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb(side: int = 30_000) -> bytes:
    """A real picture of 900 million grey pixels in about 100 KB."""
    press, row = zlib.compressobj(9), b"\0" * (side + 1)
    data = b"".join(press.compress(row) for _ in range(side)) + press.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = png_chunk(b"IHDR", header), png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def text_bomb() -> bytes:
    """A small picture with a compressed comment that unpacks to 200 MB."""
    press = zlib.compressobj(9)
    packed = b"".join(press.compress(bytes(2**20)) for _ in range(200)) + press.flush()
    plain = encoded(noise(), "PNG")
    end = plain.index(b"IDAT") - 4
    return plain[:end] + png_chunk(b"zTXt", b"Comment\0\0" + packed) + plain[end:]


def rotated(side: tuple[int, int] = (30, 20)) -> bytes:
    exif = Image.Exif()
    exif[274] = 6  # to be shown a quarter turn to the right
    return encoded(noise(64).resize(side), "JPEG", exif=exif)


BROKEN = {
    "empty": b"",
    "one byte": b"\x89",
    "text": b"this is no picture",
    "truncated PNG": encoded(noise(), "PNG")[:400],
    "truncated JPEG": encoded(noise(200), "JPEG")[:700],
    "PNG header only": encoded(noise(), "PNG")[:33],
    "PNG with wrong bytes": encoded(noise(), "PNG")[:60] + b"\xff" * 80 + encoded(noise(), "PNG")[140:],
    "PNG that claims a gigapixel": png_that_claims(2**31 - 1, 2**31 - 1),
    "PNG that claims 50,000 x 50,000": png_that_claims(50_000, 50_000),
    "PNG that claims no pixels": png_that_claims(0, 10),
    "PNG that is too short for its size": png_that_claims(4000, 4000),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>',
    "HTML": b"<!doctype html><img src=x onerror=alert(1)>",
    "zip": b"PK\x03\x04" + bytes(200),
    "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%pipe%id) (r) file\n",
    "TIFF that points at itself": b"II*\0\x08\0\0\0\x01\0\x00\x01\x04\0\x01\0\0\0\x01\0\0\0\x08\0\0\0",
}
FINE = {
    "animated GIF": encoded(noise(), "GIF", save_all=True, append_images=[noise(), noise()], duration=50),
    "CMYK JPEG": encoded(noise(mode="CMYK"), "JPEG"),
    "grey JPEG": encoded(noise(mode="L"), "JPEG"),
    "16-bit PNG": encoded(Image.frombytes("I;16", (16, 16), bytes(range(256)) * 2), "PNG"),
    "one-bit PNG": encoded(noise(mode="1"), "PNG"),
    "palette PNG with transparency": encoded(noise(mode="P"), "PNG", transparency=0),
    "grey PNG with alpha": encoded(noise(mode="LA"), "PNG"),
    "turned JPEG": rotated(),
    "one pixel": encoded(noise(1), "PNG"),
    "a thin strip": encoded(noise(64).resize((600, 2)), "PNG"),
    "WebP": encoded(noise(), "WEBP"),
    "BMP": encoded(noise(), "BMP"),
    "TIFF": encoded(noise(), "TIFF"),
}
HOSTILE = {"a bomb of 900 megapixels": bomb, "a comment of 200 MB": text_bomb}
