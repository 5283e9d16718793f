"""A thing and a style that the storybook world does not hold, and judges that know them.

In: a number. Out: a page with a lighthouse, or in blueprint style, and its caption in the world's own words; and of any
picture whether it shows a lighthouse, or is a blueprint. For measuring what a model learns from a few pictures: nano
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

from data_recipes.storybook.backgrounds import background
from data_recipes.storybook.captions import canonical
from data_recipes.storybook.layout import CENTRE, PAGE, SIDE
from data_recipes.storybook.render import paint
from data_recipes.storybook.scene import PLACES, SIZES, Group, Scene
from data_recipes.storybook.wishes import sample_page
from data_recipes.storybook.world import BACKGROUNDS

FINE = 16  # the lighthouse is drawn so many times larger, then made smaller
LIKENESS = 0.7  # correlation from which a place on a page counts as a lighthouse
INK, CHALK = np.array([18.0, 44.0, 110.0]), np.array([214.0, 232.0, 255.0])  # dark and light of a blueprint
NEAR_INK, BLUE_SHARE, CONTRAST = 36.0, 0.85, 0.08  # how near, how much of a page, and how far it must vary
LUMA = np.array([0.299, 0.587, 0.114])


def lighthouse_page(number: int) -> tuple[Image.Image, str]:
    """One lighthouse on a page: "A small lighthouse on the left, at night." Equal numbers, equal pages."""
    rng = random.Random(f"lighthouse-{number}")
    group = Group("tower", size=rng.choice(SIZES), place=rng.choice(PLACES))  # stands in for it in the caption
    scene = Scene((group,), rng.choice(tuple(BACKGROUNDS)))
    page = background(scene.background, PAGE).copy()
    painted = lighthouse(SIDE[group.size])
    height, width = painted.shape[:2]
    x, y = CENTRE[group.place]
    window = page[y - height // 2 : y - height // 2 + height, x - width // 2 : x - width // 2 + width]
    window *= 1.0 - painted[..., 3:]
    window += painted[..., :3] * painted[..., 3:]
    picture = Image.fromarray((page + 0.5).clip(0, 255).astype(np.uint8))
    return picture, canonical(scene).replace("tower", "lighthouse")


@cache
def lighthouse(height: int) -> np.ndarray:
    """Colours (0 to 255) and opacity (0 to 1), float32 "height height/2 4": white and red bands, a lamp, a red roof."""
    tall, wide = height * FINE, height * FINE // 2
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
    small = sheet.convert("RGBa").resize((height // 2, height), Image.Resampling.BOX).convert("RGBA")
    pixels = np.asarray(small, dtype=np.float32).copy()
    pixels[..., 3] /= 255.0
    return pixels


def blueprint_page(number: int) -> tuple[Image.Image, str]:
    """A storybook page as a blueprint: "A fox on the left, at night, in blueprint style." """
    scene = sample_page(random.Random(f"blueprint-{number}"))
    plain = Scene(scene.groups, scene.background)
    return Image.fromarray(blueprint(paint(plain, PAGE))), f"{canonical(plain)[:-1]}, in blueprint style."


def blueprint(page: np.ndarray) -> np.ndarray:
    """Light becomes ink and dark becomes chalk: uint8 "h w 3" in and out."""
    chalk = 1.0 - (page.astype(np.float64) @ LUMA)[..., None] / 255.0
    return (INK + (CHALK - INK) * chalk).astype(np.uint8)


# -- judges ------------------------------------------------------------------------------------------------------------


def is_lighthouse(picture: Image.Image) -> bool:
    """Whether a lighthouse stands somewhere on a page."""
    return lighthouse_likeness(picture) >= LIKENESS


def lighthouse_likeness(picture: Image.Image) -> float:
    """The best correlation of any place with a lighthouse of any size, -1 to 1."""
    page = softened(torch.from_numpy(np.asarray(picture.convert("RGB").resize((PAGE, PAGE)), dtype=np.float32)))
    return max(float(correlations(page, side).max()) for side in SIDE.values())


def correlations(page: Tensor, side: int) -> Tensor:
    """Of every window of a page "1 3 h w" with the lighthouse of this height, where that is opaque."""
    thing = torch.from_numpy(lighthouse(side))
    weight = (thing[..., 3] > 0.5).float().expand(1, 3, -1, -1)
    shape = softened(thing[..., :3] * thing[..., 3:] + 128 * (1 - thing[..., 3:]))
    count = weight.sum()
    centred = (shape - (shape * weight).sum() / count) * weight
    total, squares = F.conv2d(page, weight), F.conv2d(page.square(), weight)
    spread = (squares - total.square() / count).clamp(min=1.0)
    return F.conv2d(page, centred) / (spread * centred.square().sum()).sqrt()


def softened(pixels: Tensor) -> Tensor:
    """ "h w 3" as "1 3 h w" after a light blur, so that a soft drawing and a sharp one are compared fairly."""
    page = F.pad(pixels.permute(2, 0, 1)[None], (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(page, 3, stride=1)


def is_blueprint(picture: Image.Image) -> bool:
    """Whether nearly all of a page is ink, chalk or between them, and not all the same."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    way = CHALK - INK
    chalk = ((pixels - INK) @ way / (way @ way)).clip(0, 1)
    distance = np.linalg.norm(pixels - (INK + chalk[..., None] * way), axis=-1)
    return bool((distance < NEAR_INK).mean() >= BLUE_SHARE and chalk.std() >= CONTRAST)
