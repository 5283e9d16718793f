"""Models that only draw: text encoder, generator and image tokenizer, wired together (Infinity, arXiv 2412.04431).

In: prompts, a size, settings, one seed per picture. Out: `ImageProgress` while the pictures form, and their pixels.
Rows are independent: each has its own prompt, its own negative prompt and its own random stream.

Shape legend: N pictures, S text tokens, D width of a text state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vargpt.config import InfinityConfig, InfinityTokenizerConfig
from vargpt.generators.infinity import InfinityGenerator
from vargpt.sampling import seeded
from vargpt.text_to_image.conditions import TextConditions, to
from vargpt.text_to_image.text_encoder import TextEncoder
from vargpt.tokenizers.base import to_pictures
from vargpt.tokenizers.bsq import InfinityTokenizer
from vargpt.types import ImageContext, ImageLayout, ImageProgress, ImageSampling, ImageTokens

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, kw_only=True)
class TextToImageConfig:
    """What one model is built of, the sizes it draws, and how it draws unless told otherwise.

    `layouts` are the sizes that it draws, by "HEIGHTxWIDTH" in pixels; `default_size` is one of them.
    """

    generator_config: InfinityConfig
    image_tokenizer_config: InfinityTokenizerConfig
    layouts: Mapping[str, ImageLayout]
    default_size: str
    sampling: ImageSampling = ImageSampling()

    def layout(self, size: tuple[int, int] | None = None) -> ImageLayout:
        """The layout of a picture of `size` = (height, width) pixels; None = the default size.

        Raises:
            ValueError: the model draws no such size; the message lists those it draws.
        """
        key = self.default_size if size is None else f"{size[0]}x{size[1]}"
        if key not in self.layouts:
            sizes = sorted(self.layouts)
            raise ValueError(f"this model draws no {key} pictures (height x width); choose one of {sizes}")
        return self.layouts[key]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) in pixels of every size that can be drawn: the default first, then small before large."""
        default = self.layout()
        sizes = [(layout.height, layout.width) for layout in self.layouts.values()]
        return sorted(sizes, key=lambda size: (size != (default.height, default.width), size[0] * size[1], size))


class TextToImage(nn.Module):
    """Draws pictures from prompts.

    Args:
        config: of the whole; the organs must be built from its parts.
        text_encoder: its width is the generator's memory_size.
        generator: takes its condition from a pool over the text states.
        image_tokenizer: of as many bits as the generator.

    Raises:
        ValueError: the organs do not fit together; the message says which numbers differ.
    """

    def __init__(
        self,
        config: TextToImageConfig,
        text_encoder: TextEncoder,
        generator: InfinityGenerator,
        image_tokenizer: InfinityTokenizer,
    ) -> None:
        super().__init__()
        if text_encoder.width != generator.config.memory_size:
            raise ValueError(
                f"the text encoder gives states of width {text_encoder.width}, but the generator was trained on "
                f"{generator.config.memory_size}; name the right one with --text-encoder (published: flan-t5-xl, 2048)"
            )
        if image_tokenizer.code_dim != generator.config.num_bits:
            raise ValueError(
                f"the image tokenizer has {image_tokenizer.code_dim} bits a token and the generator "
                f"{generator.config.num_bits}; name the right autoencoder file with --vae"
            )
        self.config = config
        self.conditions = TextConditions(text_encoder)
        self.generator, self.image_tokenizer = generator, image_tokenizer
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.generator.device

    @property
    def dtype(self) -> torch.dtype:
        return self.generator.dtype

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        size: tuple[int, int] | None = None,
        sampling: ImageSampling | None = None,
        negative_prompts: Sequence[str | None] | str | None = None,
        given: ImageTokens | None = None,
    ) -> Iterator[ImageProgress]:
        """Draws one picture per prompt, all in one batch, and yields after every scale; `pictures` shows what is there.

        Args:
            prompts: one per picture.
            seeds: one per picture; a row with an equal seed draws alike whatever its neighbours are, up to the rounding
                of another batch shape.
            size: (height, width) in pixels; None = the default size.
            sampling: None = as published.
            negative_prompts: what guidance leads away from: one for all, or one per picture; None and "" stand for the
                learned null.
            given: coarse scales to keep.

        Raises:
            ValueError: at once, if there is nothing to draw, numbers do not fit or a setting is out of range.
        """
        sampling = sampling or self.config.sampling
        self.check(prompts, seeds, sampling)
        negatives = per_picture(negative_prompts, len(prompts))
        if any(negatives) and is_unguided(sampling):
            raise ValueError("a negative prompt acts through guidance; with a guidance scale of 1 it cannot")
        return self._draw(prompts, seeds, self.config.layout(size), sampling, negatives, given)

    def check(self, prompts: Sequence[str], seeds: Sequence[int], sampling: ImageSampling) -> None:
        """Raises ValueError for what cannot be drawn."""
        if isinstance(prompts, str):
            raise ValueError("prompts is a list with one prompt per picture, got a single string")
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise ValueError("a prompt is empty; say what to draw")
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(prompts)} pictures need as many seeds, got {len(seeds)}")
        if sampling.image_guidance_scale is not None:
            raise ValueError("image_guidance_scale weighs the source of an edit, and this model edits no pictures")
        self.generator.check_sampling(sampling)

    @torch.no_grad()
    def _draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        layout: ImageLayout,
        sampling: ImageSampling,
        negatives: Sequence[str],
        given: ImageTokens | None,
    ) -> Iterator[ImageProgress]:
        context = self.context(prompts, sampling, negatives)
        yield from self.generator.generate(context, layout, sampling, seeded(seeds), self.image_tokenizer, given)

    @torch.no_grad()
    def context(self, prompts: Sequence[str], sampling: ImageSampling, negatives: Sequence[str]) -> ImageContext:
        """What the generator draws from: the prompts, and with guidance what it leads away from ("" = the null)."""
        branches = [self.conditions.branch(prompts)]
        if not is_unguided(sampling):
            branches.append(self.conditions.negative_branch(negatives))
        return ImageContext(tuple(to(branch, self.device, self.dtype) for branch in branches))

    @torch.no_grad()
    def decode(self, tokens: ImageTokens) -> Tensor:
        """Pixels "N 3 H W" in [-1, 1]; tokens with fewer grids than scales give a preview at full size."""
        return self.image_tokenizer.decode(tokens)

    def pictures(self, tokens: ImageTokens) -> list[Image.Image]:
        """`decode`, as RGB pictures."""
        return to_pictures(self.decode(tokens))


def is_unguided(sampling: ImageSampling) -> bool:
    """Whether the conditional branch alone decides at every scale."""
    scales = sampling.guidance_scale
    return scales == 1 if isinstance(scales, int | float) else all(scale == 1 for scale in scales)


def per_picture(negatives: Sequence[str | None] | str | None, count: int) -> list[str]:
    """One negative prompt per picture, "" for none.

    Raises:
        ValueError: there are more or fewer than pictures.
    """
    rows = [negatives] * count if negatives is None or isinstance(negatives, str) else list(negatives)
    if len(rows) != count:
        raise ValueError(f"{count} pictures take one negative prompt for all or {count} of them, got {len(rows)}")
    return [(row or "").strip() for row in rows]
