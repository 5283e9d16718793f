"""Pictures onto pages: where a picture lies on a page of another shape, on white paper, and as pixels in [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

PAPER = (255, 255, 255)
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, ends exclusive


def place_on(size: tuple[int, int], page: tuple[int, int]) -> Box:
    """The largest box of a picture's shape in the middle of a page; sizes are (width, height) in pixels."""
    scale = min(page[0] / size[0], page[1] / size[1])
    width, height = (max(1, round(side * scale)) for side in size)
    x0, y0 = (page[0] - width) // 2, (page[1] - height) // 2
    return x0, y0, x0 + width, y0 + height


def fitted(image: Image.Image, page: tuple[int, int]) -> Image.Image:
    """An RGB picture, whole and as large as possible, on a sheet of paper of (width, height) pixels."""
    if image.size == page:
        return image
    x0, y0, x1, y1 = place_on(image.size, page)
    smaller = x1 - x0 < image.width or y1 - y0 < image.height
    sheet = Image.new("RGB", page, PAPER)
    how = Image.Resampling.BOX if smaller else Image.Resampling.LANCZOS
    sheet.paste(image.resize((x1 - x0, y1 - y0), how), (x0, y0))
    return sheet


def on_paper(image: Image.Image) -> Image.Image:
    """The picture in RGB; what is transparent in it shows the same paper that surrounds it."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (*PAPER, 255)), rgba).convert("RGB")


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """Equal-sized pictures as pixels "N 3 H W" in [-1, 1]. Inverse: `VargptProcessor.to_pil`."""
    array = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(array.copy()).permute(0, 3, 1, 2).float().div(127.5).sub(1)
