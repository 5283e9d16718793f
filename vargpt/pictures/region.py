"""Changing a part of a picture: which cells of each scale a mask lets redraw, and how the new part joins the old one.

In: a mask over a picture (any size, white = may change), the box that the picture takes on its page, a layout. Out: one
grid of booleans per scale; and pictures in which nothing outside the mask has changed.

Shape legend: H W pixels, h w the grid of a scale.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from vargpt.pictures.fitting import Box
from vargpt.types import ImageLayout

WHITE = 128  # from this grey on, a pixel of a mask is white


def white(mask: Image.Image) -> np.ndarray:
    """Where a mask is white, bool "H W"; transparent pixels count as black."""
    grey = mask.convert("LA") if mask.has_transparency_data else mask.convert("L")
    values = np.asarray(grey)
    return values >= WHITE if values.ndim == 2 else (values[..., 0] >= WHITE) & (values[..., 1] >= WHITE)


def check_mask(mask: Image.Image, picture: Image.Image) -> None:
    """Raises ValueError for a mask without white, or of another shape than its picture."""
    (width, height), (of_width, of_height) = mask.size, picture.size
    if abs(width * of_height / of_width - height) > 1 and abs(height * of_width / of_height - width) > 1:
        raise ValueError(
            f"the region is a mask of {width}x{height} pixels and the picture has {of_width}x{of_height}; give a mask "
            "of the picture's shape, of any size"
        )
    if not white(mask).any():
        raise ValueError("the region is empty: its mask is black everywhere; paint white what may change")


def box_mask(size: tuple[int, int], box: Box) -> Image.Image:
    """A mask of (width, height) pixels that is white in a box; what of the box lies outside is cut off.

    Raises:
        ValueError: nothing of the box lies on the picture.
    """
    x0, y0, x1, y1 = max(0, box[0]), max(0, box[1]), min(size[0], box[2]), min(size[1], box[3])
    if x0 >= x1 or y0 >= y1:
        raise ValueError(
            f"the region from ({box[0]}, {box[1]}) to ({box[2]}, {box[3]}) lies outside a picture of "
            f"{size[0]}x{size[1]} pixels"
        )
    mask = Image.new("L", size, 0)
    mask.paste(255, (x0, y0, x1, y1))
    return mask


def mask_box(mask: Image.Image, size: tuple[int, int]) -> Box:
    """The smallest box around a mask's white, in pixels of the picture of (width, height) that it lies over."""
    ys, xs = np.nonzero(white(mask))
    across, down = size[0] / mask.width, size[1] / mask.height
    return (
        math.floor(xs.min() * across),
        math.floor(ys.min() * down),
        math.ceil((xs.max() + 1) * across),
        math.ceil((ys.max() + 1) * down),
    )


# -- cells -------------------------------------------------------------------------------------------------------------


def on_page(mask: Image.Image, place: Box, layout: ImageLayout) -> Bool[Tensor, "H W"]:
    """The mask in the pixels of the page on which its picture takes the box `place`; no white pixel is lost."""
    x0, y0, x1, y1 = place
    values = torch.from_numpy(white(mask)).float()[None]
    page = torch.zeros(layout.height, layout.width, dtype=torch.bool)
    page[y0:y1, x0:x1] = F.adaptive_max_pool2d(values, (y1 - y0, x1 - x0))[0] > 0
    return page


def first_free_scale(page: Bool[Tensor, "H W"], layout: ImageLayout) -> int:
    """k0: the first scale whose cells are not larger than the box around the mask; at worst the last scale.

    Sizes are compared as areas. Coarser scales hold what the page is as a whole, which a change of a part leaves alone.
    """
    rows, columns = page.any(1).nonzero(), page.any(0).nonzero()
    area = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
    pixels = layout.height * layout.width
    return next((k for k, (h, w) in enumerate(layout.scales) if pixels / (h * w) <= area), layout.num_scales - 1)


def free_cells(page: Bool[Tensor, "H W"], layout: ImageLayout) -> tuple[Bool[Tensor, "_h _w"], ...]:
    """Per scale, which cells may be redrawn: none before `first_free_scale`, then those that touch the mask."""
    first = first_free_scale(page, layout)
    touched = [F.adaptive_max_pool2d(page[None].float(), scale)[0] > 0 for scale in layout.scales]
    return tuple(cells & (k >= first) for k, cells in enumerate(touched))


# -- pixels ------------------------------------------------------------------------------------------------------------


def composite(photo: Image.Image, drawn: Image.Image, mask: Image.Image, feather: int = 0) -> Image.Image:
    """The photo with `drawn` where the mask is white; elsewhere its own pixels, bit for bit, at its own size.

    Args:
        photo: what stays.
        drawn: the same picture redrawn, of any size: enlarged to the photo's.
        mask: of any size.
        feather: pixels of the photo over which the new part fades in, counted inwards from the edge of the mask.
    """
    region = white(mask.resize(photo.size, Image.Resampling.NEAREST))
    if drawn.size != photo.size:
        drawn = drawn.resize(photo.size, Image.Resampling.BICUBIC)
    old, new = (np.asarray(image.convert("RGB"))[region].astype(np.float32) for image in (photo, drawn))
    share = opacity(region, feather)[region][:, None]
    pixels = np.array(photo.convert("RGB"))
    pixels[region] = (old + (new - old) * share + 0.5).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def opacity(region: np.ndarray, feather: int) -> np.ndarray:
    """Opacity of the new part, float "H W": 0 outside the region, rising inwards to 1 over `feather` pixels.

    A region that is thinner than twice the feather still reaches 1 where it is thickest.
    """
    depth = np.minimum(depth_of(region), feather + 1)
    return depth / max(float(depth.max()), 1.0)


def depth_of(region: np.ndarray) -> np.ndarray:
    """Steps along rows and columns from each pixel to the nearest outside a region, "H W".

    What lies beyond the picture counts as inside.
    """
    depth = np.where(region, sum(region.shape), 0).astype(np.float32)
    for lines in (depth, depth.T):  # distances along one axis, then over both: exact for steps along the axes
        for here in range(1, len(lines)):
            np.minimum(lines[here], lines[here - 1] + 1, out=lines[here])
        for here in range(len(lines) - 2, -1, -1):
            np.minimum(lines[here], lines[here + 1] + 1, out=lines[here])
    return depth
