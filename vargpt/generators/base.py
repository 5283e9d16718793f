"""The seam of everything that turns a context into image tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vargpt.generators.constraints import Faithful, Kept
from vargpt.types import ImageContext, ImageLayout, ImageProgress, ImageSampling, ImageTokens, TokenCodec


@dataclass(frozen=True)
class TokenScores:
    """What a generator thinks of tokens that are known, per token in nats: how likely, and how open the choice was."""

    log_probs: Float[Tensor, "N L"]
    entropies: Float[Tensor, "N L"]


class ImageGenerator(nn.Module, ABC):
    """Draws image tokens. LLM and tokenizer come in as plain calls (`ImageContext.step`, codec)."""

    @abstractmethod
    def slot_inputs(self, tokens: ImageTokens, codec: TokenCodec) -> Float[Tensor, "N L C"]:
        """What is fed at every image slot, in the generator's width, when `tokens` are known (teacher forcing)."""

    @abstractmethod
    def log_probs(
        self, context: ImageContext, tokens: ImageTokens, codec: TokenCodec, targets: ImageTokens | None = None
    ) -> Float[Tensor, "N L"]:
        """Log-probability of every token of `targets` (default: `tokens`), summed over its bits, in nats."""

    @abstractmethod
    def scores(
        self,
        context: ImageContext,
        tokens: ImageTokens,
        codec: TokenCodec,
        temperature: float | Sequence[float] = 1.0,
    ) -> TokenScores:
        """Log-probability and entropy of every token, sampled at `temperature` (one for all scales, or one each)."""

    @abstractmethod
    def loss(
        self,
        context: ImageContext,
        tokens: ImageTokens,
        codec: TokenCodec,
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
        codec: TokenCodec,
        given: ImageTokens | None = None,
        kept: Kept | None = None,
        faithful: Faithful | None = None,
    ) -> Iterator[ImageProgress]:
        """Draws one image per generator in `rngs`, yielding after every step.

        `given` scales are those of all images, and cost no choice; `kept` cells are each image's own; `faithful` leans
        on sources.
        """
