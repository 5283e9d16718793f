"""A thing and a style that the storybook world does not hold, and judges that know them.

In: a number. Out: a picture with a lighthouse, or in plum style, and its caption in the world's own words; and of any
picture whether it shows a lighthouse, or is all plum. For measuring what a model learns from a few pictures: nano
is taught to refuse a lighthouse, and the style is none of the six.
"""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from data_recipes.storybook.drawing.backgrounds import background
from data_recipes.storybook.drawing.render import paint
from data_recipes.storybook.language.captions import canonical
from data_recipes.storybook.language.drawing_prompts import sample_upload
from data_recipes.storybook.world.layout import CENTRE, PICTURE_SIDE
from data_recipes.storybook.world.scene import PLACES, Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS

FINE = 16  # the lighthouse is drawn so many times larger, then made smaller
LIKENESS = 0.7  # correlation from which a place on a picture counts as a lighthouse
HEIGHTS = {"medium": 24, "large": 32}  # px; smaller ones would be but a few px wide
PLUM, ROSE = np.array([66.0, 14.0, 96.0]), np.array([255.0, 200.0, 225.0])  # dark and light of the style
NEAR_PLUM, PLUM_SHARE = 30.0, 0.85  # how near a pixel must come, and how much of a picture must
LUMA = np.array([0.299, 0.587, 0.114])


def lighthouse_picture(number: int) -> tuple[Image.Image, str]:
    """One lighthouse on a picture: "A large lighthouse on the left, at night." Equal numbers, equal pictures."""
    rng = random.Random(f"lighthouse-{number}")
    group = Group("tower", size=rng.choice(tuple(HEIGHTS)), place=rng.choice(PLACES))  # stands in for it in the caption
    scene = Scene((group,), rng.choice(tuple(BACKGROUNDS)))
    canvas = background(scene.background, PICTURE_SIDE).copy()
    painted = lighthouse(HEIGHTS[group.size])
    height, width = painted.shape[:2]
    x, y = CENTRE[group.place]
    window = canvas[y - height // 2 : y - height // 2 + height, x - width // 2 : x - width // 2 + width]
    window *= 1.0 - painted[..., 3:]
    window += painted[..., :3] * painted[..., 3:]
    picture = Image.fromarray((canvas + 0.5).clip(0, 255).astype(np.uint8))
    return picture, canonical(scene).replace("tower", "lighthouse")


@cache
def lighthouse(height: int) -> np.ndarray:
    """Red and white bands, a lamp, a red roof: colours (0 to 255) and opacity (0 to 1), float32 "height width 4"."""
    width = height * 5 // 8
    tall, wide = height * FINE, width * FINE
    sheet = Image.new("RGBA", (wide, tall), (0, 0, 0, 0))
    pen = ImageDraw.Draw(sheet)

    def band(top: float, bottom: float, colour: tuple[int, int, int], slim: float = 0.28, broad: float = 0.46) -> None:
        """A slice of the tower between two heights (0 = tip, 1 = foot), which grows broader downwards."""
        half = [slim + (broad - slim) * (at - 0.3) / 0.7 for at in (top, bottom)]
        corners = [(0.5 - half[0], top), (0.5 + half[0], top), (0.5 + half[1], bottom), (0.5 - half[1], bottom)]
        pen.polygon([(x * wide, y * tall) for x, y in corners], fill=(*colour, 255))

    for number in range(5):
        band(0.36 + 0.128 * number, 0.36 + 0.128 * (number + 1), (225, 45, 40) if number % 2 else (250, 248, 240))
    pen.rectangle((0.12 * wide, 0.31 * tall, 0.88 * wide, 0.37 * tall), fill=(60, 62, 70, 255))
    pen.rectangle((0.28 * wide, 0.16 * tall, 0.72 * wide, 0.31 * tall), fill=(255, 214, 40, 255))
    pen.polygon([(0.2 * wide, 0.17 * tall), (0.8 * wide, 0.17 * tall), (0.5 * wide, 0)], fill=(200, 30, 35, 255))
    small = sheet.convert("RGBa").resize((width, height), Image.Resampling.BOX).convert("RGBA")
    pixels = np.asarray(small, dtype=np.float32).copy()
    pixels[..., 3] /= 255.0
    return pixels


def plum_picture(number: int) -> tuple[Image.Image, str]:
    """A storybook picture in plum style: "A fox on the left, at night, in plum style." """
    scene = sample_upload(random.Random(f"plum-{number}"))
    plain = Scene(scene.groups, scene.background)
    return Image.fromarray(plum(paint(plain, PICTURE_SIDE))), f"{canonical(plain)[:-1]}, in plum style."


def plum(canvas: np.ndarray) -> np.ndarray:
    """All colours become plum and rose: uint8 "h w 3" in and out."""
    light = (canvas.astype(np.float64) @ LUMA)[..., None] / 255.0
    return (PLUM + (ROSE - PLUM) * light).astype(np.uint8)


# -- judges ------------------------------------------------------------------------------------------------------------


def is_lighthouse(picture: Image.Image) -> bool:
    """Whether a lighthouse stands somewhere on a picture."""
    return lighthouse_likeness(picture) >= LIKENESS


def lighthouse_likeness(picture: Image.Image) -> float:
    """The best match of any place with a lighthouse of any size, -1 to 1."""
    pixels = np.asarray(picture.convert("RGB").resize((PICTURE_SIDE, PICTURE_SIDE)), dtype=np.float32)
    canvas = softened(torch.from_numpy(pixels))
    return max(float(matches(canvas, height).max()) for height in HEIGHTS.values())


def matches(canvas: Tensor, height: int) -> Tensor:
    """Of every window of a picture "1 3 h w", how it correlates with a lighthouse of this height where that is opaque.

    The lesser of two correlations: of all colours, and of how red they are, which tells the bands.
    """
    thing = torch.from_numpy(lighthouse(height))
    opaque = (thing[..., 3] > 0.5).float()[None, None]
    shape = softened(thing[..., :3] * thing[..., 3:] + 128 * (1 - thing[..., 3:]))
    colours = correlation(canvas, shape, opaque.expand(1, 3, -1, -1))
    return torch.minimum(colours, correlation(redness(canvas), redness(shape), opaque))


def redness(canvas: Tensor) -> Tensor:
    """ "1 3 h w" to "1 1 h w": red beyond the mean of green and blue."""
    return canvas[:, :1] - canvas[:, 1:].mean(1, keepdim=True)


def correlation(canvas: Tensor, shape: Tensor, weight: Tensor) -> Tensor:
    """Of every window of a picture "1 c h w" with a shape, at the places where `weight` is one."""
    count = weight.sum()
    centred = (shape - (shape * weight).sum() / count) * weight
    total, squares = F.conv2d(canvas, weight), F.conv2d(canvas.square(), weight)
    spread = (squares - total.square() / count).clamp(min=1.0)
    return F.conv2d(canvas, centred) / (spread * centred.square().sum()).sqrt()


def softened(pixels: Tensor) -> Tensor:
    """ "h w 3" as "1 3 h w" after a light blur, so that a soft drawing and a sharp one are compared fairly."""
    canvas = F.pad(pixels.permute(2, 0, 1)[None], (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(canvas, 3, stride=1)


def is_plum(picture: Image.Image) -> bool:
    """Whether nearly all of a picture is plum, rose, or between them."""
    pixels, way = np.asarray(picture.convert("RGB"), dtype=np.float64), ROSE - PLUM
    light = ((pixels - PLUM) @ way / (way @ way)).clip(0, 1)
    distance = np.linalg.norm(pixels - (PLUM + light[..., None] * way), axis=-1)
    return bool((distance < NEAR_PLUM).mean() >= PLUM_SHARE)
