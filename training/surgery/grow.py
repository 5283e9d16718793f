"""A model that draws twice as large, on the weights it has, as VARGPT-v1.1 (arXiv 2504.02949) goes from 256 to 512 px.

In: a model and its processor. Out: new ones with the sides of all pictures doubled. Nothing is forgotten: the coarse
scales stay, finer ones are added, and the model sees at first exactly what it saw before on a page of half the size.

- *The schedule* goes on: two scales, one and a half times and twice as fine as the last one. Positions are shares of
  the page, so they need no change; the new scales begin with the last scale's embedding.
- *The ViT* keeps its number of patches, and so the language model its number of tokens. Each pixel's weight is spread
  over the four pixels that take its place, so that a page gives the features that its halved copy gave; from there the
  ViT can learn to see finer.
- *The image tokenizer* is convolutional and stays as it is. Nano's rebuilds pages of 128 px as well as those of 64 for
  which it was trained (27.8 against 27.7 dB, 64 held-out pages).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor, square_image_processor
from vargpt.config import VargptConfig, grids

PATCHES, LEVELS = "vision.patch_embed.proj.weight", "generator.level_embed.weight"


def continued(schedule: Sequence[Sequence[int]]) -> list[list[int]]:
    """A schedule of twice the resolution that begins with this one.

    Raises:
        ValueError: the last scale has an odd side, so that there is nothing half-way to twice as many.
    """
    (height, width) = grids(schedule)[-1]
    if height % 2 or width % 2:
        raise ValueError(f"a schedule that ends with {height}x{width} tokens does not go on; both sides must be even")
    finer = [[height * 3 // 2, width * 3 // 2], [height * 2, width * 2]]
    return [*([int(h), int(w)] for h, w in schedule), *finer]


def grown_config(config: VargptConfig) -> VargptConfig:
    """The config of a model that draws its default size doubled, and no other size.

    Raises:
        ValueError: the schedule cannot go on, or the generator has no room for two more scales.
    """
    layout, wider = config.layout(), copy.deepcopy(config)
    schedule = continued(layout.scales)
    if len(schedule) > config.generator_config.max_scales:
        raise ValueError(
            f"{config.default_size} has {layout.num_scales} scales and generator_config.max_scales is "
            f"{config.generator_config.max_scales}: there is no room for two more"
        )
    wider.default_size = f"{2 * layout.height}x{2 * layout.width}"
    wider.scale_schedules = {wider.default_size: schedule}
    wider.vision_config.patch_size = 2 * config.vision_config.patch_size
    return wider


def doubled_processor(processor: VargptProcessor) -> VargptProcessor:
    """The same processor for pictures of twice the side, in as many patches.

    Raises:
        ValueError: the processor keeps the sizes of pictures, so that none is there to be doubled.
    """
    if processor.fixed_size is None:
        raise ValueError(
            "only a model that sees pictures in one size (fixed_size) can grow; this one keeps their sizes"
        )
    eyes, side = processor.image_processor, 2 * processor.fixed_size
    return VargptProcessor(
        square_image_processor(side, 2 * eyes.patch_size, eyes.merge_size),
        processor.tokenizer,
        chat_template=processor.chat_template,
        fixed_size=side,
        max_context=processor.max_context,
    )


def spread(weight: Tensor) -> Tensor:
    """Weights of patches "D 3 T p p" for patches with four pixels in the place of one, of equal sum."""
    return weight.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1) / 4


@torch.no_grad()
def grow(model: VARGPT, processor: VargptProcessor) -> tuple[VARGPT, VargptProcessor]:
    """Model and processor for pictures of twice the side; those that came in stay as they were.

    Raises:
        ValueError: see `grown_config` and `doubled_processor`.
    """
    larger, trained = doubled_processor(processor), model.config.layout().num_scales
    grown = type(model)(grown_config(model.config)).to(model.device, model.dtype)
    weights = dict(model.state_dict())
    weights[PATCHES] = spread(weights[PATCHES])
    weights[LEVELS] = weights[LEVELS].clone()
    weights[LEVELS][trained : trained + 2] = weights[LEVELS][trained - 1]
    grown.load_state_dict(weights)
    return grown.train(model.training), larger
