"""The seam of everything that turns a context into image tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vargpt.generators.constraints import FixedCells, SourceBias
from vargpt.sampling import check_image_sampling
from vargpt.types import Branch, ImageContext, ImageLayout, ImageProgress, ImageSampling, ImageTokens, TokenCodec

SPECIAL_SETTINGS = ("smooth", "num_steps", "diffusion_steps", "guidance_layer", "image_guidance_scale")


@dataclass(frozen=True)
class TokenScores:
    """What a generator thinks of tokens that are known, per token in nats: how likely, and how open the choice was."""

    log_probs: Float[Tensor, "N L"]
    entropies: Float[Tensor, "N L"]


Codec = TypeVar("Codec", bound=TokenCodec)  # what a generator asks of the tokenizer


class ImageGenerator(nn.Module, ABC, Generic[Codec]):
    """Draws image tokens. Tokenizer and, where there is one, language model come in as plain calls.

    `special_settings` names those of `SPECIAL_SETTINGS` that this generator can use.
    """

    special_settings: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def loss(
        self,
        context: ImageContext,
        tokens: ImageTokens,
        codec: Codec,
        targets: ImageTokens | None = None,
        weights: Float[Tensor, "N L"] | None = None,
    ) -> Float[Tensor, "N K"]:
        """Mean loss per image and scale, in nats per decision (bit, code or channel); `weights` weigh tokens."""

    @abstractmethod
    def generate(
        self,
        context: ImageContext,
        layout: ImageLayout,
        sampling: ImageSampling,
        rngs: Sequence[torch.Generator],
        codec: Codec,
        given: ImageTokens | None = None,
    ) -> Iterator[ImageProgress]:
        """Draws one image per generator in `rngs`, yielding after every step.

        `given` scales are those of all images, and cost no choice.
        """

    def check_sampling(self, sampling: ImageSampling) -> None:
        """Refuses settings that are out of range, and those that this generator cannot use.

        Raises:
            ValueError: the message says what is allowed.
        """
        check_image_sampling(sampling)
        default = ImageSampling()
        useless = [
            name
            for name in SPECIAL_SETTINGS
            if name not in self.special_settings and getattr(sampling, name) != getattr(default, name)
        ]
        if useless:
            raise ValueError(
                f"this model cannot use {' and '.join(useless)}; it takes guidance_scale, guidance_schedule, "
                f"guidance_interval, {''.join(f'{name}, ' for name in sorted(self.special_settings))}temperature, "
                "top_k and top_p"
            )


@runtime_checkable
class Scored(Protocol):
    """A generator that can say how likely tokens are. One with a diffusion head cannot."""

    def log_probs(
        self, context: ImageContext, tokens: ImageTokens, codec: TokenCodec, targets: ImageTokens | None = None
    ) -> Float[Tensor, "N L"]:
        """Log-probability of every token of `targets` (default: `tokens`), in nats."""

    def scores(
        self,
        context: ImageContext,
        tokens: ImageTokens,
        codec: TokenCodec,
        temperature: float | Sequence[float] = 1.0,
    ) -> TokenScores:
        """Log-probability and entropy of every token, sampled at `temperature` (one for all scales, or one each)."""


@runtime_checkable
class Constrained(Protocol):
    """A generator that can be held to a picture that exists already."""

    def generate(
        self,
        context: ImageContext,
        layout: ImageLayout,
        sampling: ImageSampling,
        rngs: Sequence[torch.Generator],
        codec: TokenCodec,
        given: ImageTokens | None = None,
        fixed: FixedCells | None = None,
        bias: SourceBias | None = None,
    ) -> Iterator[ImageProgress]:
        """As `ImageGenerator.generate`; `fixed` cells are each image's own, `bias` leans on sources."""


class SlotGenerator(ImageGenerator[Codec]):
    """A generator whose every token also passes through a language model, at a position of its own (a slot)."""

    @abstractmethod
    def slot_inputs(self, tokens: ImageTokens, codec: Codec, known: Branch) -> Float[Tensor, "N L C"]:
        """What is fed at every slot, in the generator's width, when `tokens` are known (teacher forcing).

        `known` is what the images are drawn from as far as it is known before the language model has spoken.
        """
