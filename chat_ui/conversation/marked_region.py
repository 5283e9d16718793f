"""The part of a picture that a visitor has marked: from what the browser sends to a mask of the picture's size.

In: a PNG as a data URL, white or opaque where marked. Out: a PIL "L" image, 255 where the picture may change.
"""

from __future__ import annotations

import base64
import binascii
import io

from PIL import Image, UnidentifiedImageError

PREFIX = "data:image/png;base64,"
MAX_SIDE = 2048  # of what the browser sends
UNUSABLE = "The marked part did not arrive; mark it once more."
EMPTY = "Nothing is marked: draw a box or paint over what should change."


def region_of(url: str, size: tuple[int, int]) -> Image.Image:
    """The mask of a picture of `size` (width, height): "L", 255 where it may change, 0 elsewhere.

    Raises:
        ValueError: no PNG, one too large, or nothing is marked.
    """
    try:
        if not url.startswith(PREFIX):
            raise ValueError(UNUSABLE)
        sent = Image.open(io.BytesIO(base64.b64decode(url.removeprefix(PREFIX), validate=True)))
        if max(sent.size) > MAX_SIDE:
            raise ValueError(UNUSABLE)
        white_on_black = _flat(sent)
    except (binascii.Error, UnidentifiedImageError, OSError, SyntaxError):
        raise ValueError(UNUSABLE) from None
    # A pixel may change if any part of it is marked: a small thing that was circled shall not be lost.
    reduced = white_on_black.resize(size, Image.Resampling.BOX)
    mask = reduced.point([0] * 32 + [255] * 224)
    if mask.getbbox() is None:
        raise ValueError(EMPTY)
    return mask


def share(mask: Image.Image) -> float:
    """How much of the picture may change, 0 to 1."""
    return mask.histogram()[255] / (mask.width * mask.height)


def _flat(sent: Image.Image) -> Image.Image:
    """White where marked: canvases send it as opacity, files as brightness."""
    return sent.getchannel("A") if "A" in sent.getbands() else sent.convert("L")
