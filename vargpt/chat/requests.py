"""What a request means before anything is computed: what is refused, which pictures are seen, which size is drawn.

In: a `ChatRequest` and the model's config. Out: the messages as the model reads them, and an `ImageLayout`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import torch

from vargpt.config import VargptConfig
from vargpt.pictures.region import check_mask
from vargpt.sampling import check_image_sampling, check_text_sampling
from vargpt.types import (
    MAX_PICTURES,
    ChatRequest,
    ImageLayout,
    ImagePart,
    ImageTokens,
    Message,
    Part,
    RequestError,
    Route,
    TextPart,
)

MAX_OPENINGS = 16


def check_request(request: ChatRequest, config: VargptConfig) -> None:
    """Refuses what no model could answer, before any work is done.

    Raises:
        RequestError: no user message at the end, an empty one, an unknown size or route, a number out of range.
    """
    if not request.messages or request.messages[-1].role != "user":
        raise RequestError("a conversation to be answered ends with a user message; append one and ask again")
    last = request.messages[-1]
    if not last.text.strip() and not last.images:
        raise RequestError("the last message is empty; write something or attach a picture")
    if not 1 <= request.n <= MAX_PICTURES:
        raise RequestError(f"n, the number of pictures, must lie between 1 and {MAX_PICTURES}, got {request.n}")
    if not 0 <= request.max_images <= MAX_OPENINGS:
        raise RequestError(f"max_images must lie between 0 and {MAX_OPENINGS}, got {request.max_images}")
    if request.route not in get_args(Route):
        raise RequestError(f"route must be one of {list(get_args(Route))}, got {request.route!r}")
    if request.route == "image" and request.max_images == 0:
        raise RequestError('route="image" demands a picture, but max_images=0 allows none')
    try:
        check_text_sampling(request.text_sampling)
        check_image_sampling(request.image_sampling or config.sampling())
        config.layout(request.size)
    except ValueError as error:  # numbers and a size that the request brought
        raise RequestError(str(error)) from None
    check_held(request, config)


def check_held(request: ChatRequest, config: VargptConfig) -> None:
    """Raises RequestError for what cannot be kept of a picture: scales, a region, or a degree of faithfulness."""
    if not 0 <= request.faithfulness <= 1:
        raise RequestError(f"faithfulness must lie between 0 and 1, got {request.faithfulness}")
    source, layout = source_of(request), layout_for(config, request)
    if request.keep_scales and request.given is None:
        raise RequestError("keep_scales says how much of a given picture stays; give the picture too (`given`)")
    if not 0 <= request.keep_scales < layout.num_scales:
        raise RequestError(
            f"a picture of {layout.width}x{layout.height} has {layout.num_scales} scales, of which 0 to "
            f"{layout.num_scales - 1} can be kept, got keep_scales={request.keep_scales}"
        )
    if request.region is not None:
        if source is None:
            raise RequestError("a region is part of a picture, and there is none: attach one, or draw one first")
        try:
            check_mask(request.region, source.image)
        except ValueError as error:
            raise RequestError(str(error)) from None
    if request.region is None and not request.keep_scales:
        return
    if layout != _layout_like(config, source, config.layout()):
        raise RequestError("a picture that is refined or changed in part keeps its size; leave `size` out")
    if request.keep_scales and source is not None and source.tokens is not None and own_tokens(source, config) is None:
        raise RequestError("the bits of the given picture are not this model's; give it without its tokens")


def source_of(request: ChatRequest) -> ImagePart | None:
    """The picture that scales, regions and faithfulness are about: the one given, else the last one seen."""
    if request.given is not None:
        return request.given
    pictures = [part for message in seen_messages(request.messages) for part in message.images]
    return pictures[-1] if pictures else None


def own_tokens(part: ImagePart, config: VargptConfig) -> ImageTokens | None:
    """The tokens of a finished picture of this model; None of any other picture."""
    tokens = part.tokens
    if tokens is None or tokens.num_images != 1 or not tokens.is_complete or tokens.layout not in layouts(config):
        return None
    bits = (torch.bool, config.generator_config.num_bits)
    return tokens if (tokens.grids[0].dtype, tokens.grids[0].shape[-1]) == bits else None


def seen_messages(messages: Sequence[Message]) -> list[Message]:
    """The conversation as the model reads it: of several pictures drawn for one wish, only the chosen one."""
    return [replace(message, parts=tuple(part for part in message.parts if _is_seen(part))) for message in messages]


def choose_picture(message: Message, index: int) -> Message:
    """The same message with picture `index` (among `message.images`) as the one that later turns see.

    Raises:
        RequestError: the message has no such picture.
    """
    if not 0 <= index < len(message.images):
        raise RequestError(f"the message has {len(message.images)} pictures, there is no number {index}")
    chosen = message.images[index]
    opening, number = chosen.settings.get("opening"), chosen.settings.get("alternative", 0)

    def renumbered(part: Part) -> Part:
        if isinstance(part, TextPart) or part.settings.get("opening") != opening:
            return part
        if part is chosen:
            return replace(part, settings=part.settings | {"alternative": 0})
        if part.settings.get("alternative", 0) == 0:
            return replace(part, settings=part.settings | {"alternative": number})
        return part

    if number == 0:
        return message
    return replace(message, parts=tuple(renumbered(part) for part in message.parts))


def layout_for(config: VargptConfig, request: ChatRequest) -> ImageLayout:
    """The layout to draw: the size asked for, else the shape of a picture, else the default.

    The picture is the one whose scales or region are kept, else the last one seen. One that the model drew is followed
    exactly; of any other, the nearest aspect among the sizes that have about as many pixels as the default one.
    """
    default = config.layout(request.size)
    if request.size is not None:
        return default
    kept = request.keep_scales > 0 or request.region is not None
    return _layout_like(config, source_of(request if kept else replace(request, given=None)), default)


def _layout_like(config: VargptConfig, picture: ImagePart | None, default: ImageLayout) -> ImageLayout:
    """The layout of a picture's shape; without a picture the default."""
    if picture is None:
        return default
    if picture.tokens is not None and picture.tokens.layout in layouts(config):
        return picture.tokens.layout
    aspect, area = math.log(picture.image.width / picture.image.height), default.height * default.width
    near = [layout for layout in layouts(config) if 0.5 < layout.height * layout.width / area < 2]
    return min(near, key=lambda layout: (abs(math.log(layout.width / layout.height) - aspect), layout != default))


def layouts(config: VargptConfig) -> list[ImageLayout]:
    """Every layout of the model."""
    sizes = (name.split("x") for name in config.scale_schedules or {})
    return [config.layout((int(height), int(width))) for height, width in sizes]


def _is_seen(part: Part) -> bool:
    return not (isinstance(part, ImagePart) and part.settings.get("alternative", 0))
