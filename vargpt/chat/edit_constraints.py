"""What the pictures of one request are held to: bits that stay, a source that is leant towards, pixels outside a mask.

In: a request, and the layout that is drawn. Out: a `Hold`, which knows how a finished page becomes the picture; and for
the rows of a batch, of which each may be held to something else or to nothing, `FixedCells` and `SourceBias`.

Shape legend: N images, h w the grid of a scale, d bits of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.chat.requests import own_tokens, source_of
from vargpt.generators.constraints import FixedCells, SourceBias
from vargpt.pictures.fitting import Box, to_pixels
from vargpt.pictures.region import composite, free_cells, mask_box, on_page
from vargpt.types import ChatRequest, ImageLayout, ImagePart, ImageTokens


@dataclass(frozen=True, eq=False)
class Hold:
    """What the pictures of one request are held to; empty for a plain drawing. Tensors are of one image."""

    tokens: ImageTokens | None = None
    cells: tuple[Bool[Tensor, "1 _h _w"], ...] = ()  # True = the bits of `tokens` stay
    latents: Float[Tensor, "1 h w d"] | None = None
    faithfulness: float = 0.0
    photo: Image.Image | None = None  # with a mask: what the drawn page is laid into
    small: Image.Image | None = None  # the photo as it lies on its page
    mask: Image.Image | None = None
    place: Box = (0, 0, 0, 0)  # of the photo on its page
    settings: dict[str, Any] | None = None  # what a finished picture remembers, fit for JSON

    def finish(self, page: Image.Image) -> Image.Image:
        """The picture of a decoded page: the page itself, or the photo with the drawn part in it."""
        if self.photo is None or self.mask is None:
            return page
        feather = round(max(self.photo.width / (self.place[2] - self.place[0]), 1))  # one pixel of the page
        return composite(self.photo, page.crop(self.place), self.mask, feather)

    def preview(self, page: Image.Image) -> Image.Image:
        """`finish`, but no larger than the page."""
        if self.small is None or self.mask is None:
            return page
        return composite(self.small, page.crop(self.place), self.mask)


@torch.no_grad()
def hold(model: VARGPT, processor: VargptProcessor, request: ChatRequest, layout: ImageLayout) -> Hold:
    """What a checked request asks to keep of its source: the picture given, else the last one seen."""
    source = source_of(request)
    keeps = request.given is not None and request.keep_scales > 0
    leans = source is not None and request.faithfulness > 0
    if source is None or not (keeps or leans or request.region is not None):
        return Hold()
    tokens, latents = _as_drawn(model, processor, source, layout)
    settings: dict[str, Any] = {"keep_scales": request.keep_scales} if keeps else {}
    settings |= {"faithfulness": request.faithfulness} if leans else {}
    place = processor.place(source.image, layout)
    kept = [torch.full((1, h, w), keeps and k < request.keep_scales) for k, (h, w) in enumerate(layout.scales)]
    if request.region is not None:
        free = free_cells(on_page(request.region, place, layout), layout)
        kept = [cells | ~changing for cells, changing in zip(kept, free, strict=True)]
        settings |= {"region": list(mask_box(request.region, source.image.size))}
    return Hold(
        tokens=tokens,
        cells=tuple(kept),
        latents=latents if leans else None,
        faithfulness=request.faithfulness if leans else 0.0,
        photo=None if request.region is None else source.image,
        small=None if request.region is None else processor.page(source.image, layout).crop(place),
        mask=request.region,
        place=place,
        settings=settings,
    )


def _as_drawn(
    model: VARGPT, processor: VargptProcessor, source: ImagePart, layout: ImageLayout
) -> tuple[ImageTokens, Tensor]:
    """The exact bits of a picture and the latents that they rebuild; read off the pixels where bits are not known."""
    tokens = own_tokens(source, model.config)
    if tokens is not None and tokens.layout == layout:
        tokens = tokens.to(model.device)
        return tokens, model.image_tokenizer.latents(tokens)
    tokenizer = model.image_tokenizer
    features = tokenizer.features(to_pixels([processor.page(source.image, layout)]).to(model.device), layout)
    return tokenizer.tokens_of(features, layout), tokenizer.folded(features)


def together(holds: Sequence[Hold], layout: ImageLayout, model: VARGPT) -> tuple[FixedCells | None, SourceBias | None]:
    """The holds of all images of a batch, as the generator takes them; None where no image needs them."""
    held = [one for one in holds if one.tokens is not None]
    if not held:
        return None, None
    grids, cells = [], []
    for k, (h, w) in enumerate(layout.scales):
        nothing = torch.zeros(1, h, w, model.image_tokenizer.code_dim, dtype=torch.bool, device=model.device)
        grids.append(torch.cat([nothing if one.tokens is None else one.tokens.grids[k] for one in holds]))
        cells.append(torch.cat([one.cells[k].to(model.device) if one.cells else nothing[..., 0] for one in holds]))
    tokens = ImageTokens(layout, tuple(grids))
    kept = FixedCells(tokens, tuple(cells)) if any(bool(scale.any()) for scale in cells) else None
    latents = [one.latents for one in held if one.latents is not None]
    if not latents:
        return kept, None
    without = torch.zeros_like(latents[0])
    sources = torch.cat([without if one.latents is None else one.latents for one in holds])
    return kept, SourceBias(tokens, sources, torch.tensor([one.faithfulness for one in holds], device=model.device))
