"""The values that cross the seams between rooms: image tokens, guidance branches, messages, chat events.

Nothing here computes on a model. An image is a tuple of token grids, coarse to fine (`ImageTokens`); a conversation is
a list of `Message`s that goes in and a stream of `ChatEvent`s that comes out.

Shape legend: N images, B rows (sequences), G guidance branches, L image tokens over all scales, l tokens of one scale,
S memory positions, D width, d bits (or channels) of one token, h w a grid.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["system", "user", "assistant"]
Route = Literal["auto", "text", "image"]
FinishReason = Literal["stop", "length", "cancelled"]
GuidanceSchedule = Literal["constant", "linear", "cosine"]
MAX_PICTURES = 16  # in one reply


class RequestError(ValueError):
    """What the sender of a request did wrong; the message says what is allowed. Internal faults are never this."""


@dataclass(frozen=True)
class ImageLayout:
    """The pixel size of an image and the full scale schedule (coarse to fine) that its tokens belong to.

    A tokenizer with one grid (VQ, FSQ, KL) has one scale. `position_grid` is the grid that positions are rounded onto
    by weights that were trained so (the last one of the largest pictures of this aspect); None for all others.
    """

    height: int
    width: int
    scales: tuple[tuple[int, int], ...]
    position_grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"an image is at least 1x1 pixels, got {self.height}x{self.width}")
        if not self.scales or any(h < 1 or w < 1 for h, w in self.scales):
            raise ValueError(f"a scale schedule is a non-empty list of (height, width) >= 1, got {self.scales}")

    @property
    def num_scales(self) -> int:
        return len(self.scales)

    @property
    def num_tokens(self) -> int:
        return sum(h * w for h, w in self.scales)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Index of the first token of every scale, and `num_tokens` at the end."""
        offsets = [0]
        for h, w in self.scales:
            offsets.append(offsets[-1] + h * w)
        return tuple(offsets)

    @property
    def final_scale(self) -> tuple[int, int]:
        return self.scales[-1]


@dataclass(frozen=True, eq=False)  # what dataclasses generate asks whole tensors for their truth
class ImageTokens:
    """Images of one layout as token grids, coarse to fine; fewer grids than scales are a preview.

    A grid is int "N h w" (codebook indices), bool "N h w d" (bits) or float "N h w d" (latents). `known` ("N h w",
    bool) marks what is already decided in raster or masked previews.
    """

    layout: ImageLayout
    grids: tuple[Tensor, ...]
    known: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.grids) > self.layout.num_scales:
            raise ValueError(f"{len(self.grids)} grids do not fit a schedule of {self.layout.num_scales} scales")
        for grid, scale in zip(self.grids, self.layout.scales, strict=False):
            if tuple(grid.shape[1:3]) != scale:
                raise ValueError(f"a grid of shape {tuple(grid.shape)} does not belong to scale {scale}")

    def __eq__(self, other: object) -> bool:
        """Equal layouts and equal tensors, so that messages with drawn pictures can be compared."""
        if not isinstance(other, ImageTokens):
            return NotImplemented
        mine, theirs = (
            [grid for grid in (*tokens.grids, tokens.known) if grid is not None] for tokens in (self, other)
        )
        same_shape = self.layout == other.layout and (len(self.grids), len(mine)) == (len(other.grids), len(theirs))
        return same_shape and all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))

    __hash__ = None  # type: ignore[assignment]

    @property
    def num_images(self) -> int:
        return self.grids[0].shape[0]

    @property
    def is_complete(self) -> bool:
        return len(self.grids) == self.layout.num_scales and self.known is None

    @classmethod
    def from_flat(cls, layout: ImageLayout, flat: Tensor) -> ImageTokens:
        """The inverse of `flat`: cuts "N L ..." into grids "N h w ..."; a shorter L must end with a scale."""
        if flat.shape[1] not in layout.offsets[1:]:
            raise ValueError(f"{flat.shape[1]} tokens end inside a scale of {layout.scales}")
        num_scales = layout.offsets.index(flat.shape[1])
        sizes = [h * w for h, w in layout.scales[:num_scales]]
        parts = zip(flat.split(sizes, dim=1), layout.scales, strict=False)
        return cls(layout, tuple(part.reshape(flat.shape[0], h, w, *flat.shape[2:]) for part, (h, w) in parts))

    def flat(self) -> Tensor:
        """All grids concatenated coarse to fine, row-major: "N L ..."."""
        return torch.cat([grid.flatten(1, 2) for grid in self.grids], dim=1)

    def prefix(self, num_scales: int) -> ImageTokens:
        """The first `num_scales` grids of the same layout: the preview after that many scales."""
        return replace(self, grids=self.grids[:num_scales])

    def select(self, index: Any) -> ImageTokens:
        """The images picked by `index` (slice, list, or integer/bool tensor) along N."""
        known = None if self.known is None else self.known[index]
        return replace(self, grids=tuple(grid[index] for grid in self.grids), known=known)

    def to(self, device: Any) -> ImageTokens:
        known = None if self.known is None else self.known.to(device)
        return replace(self, grids=tuple(grid.to(device) for grid in self.grids), known=known)


@dataclass(frozen=True)
class Bits:
    """A token is so many bits, each with a decision of its own (BSQ)."""

    count: int


@dataclass(frozen=True)
class Codes:
    """A token is one index into a codebook of this size (VQ, FSQ)."""

    size: int


@dataclass(frozen=True)
class Latents:
    """A token is a vector of so many numbers (KL)."""

    dim: int


TokenSpace = Bits | Codes | Latents


@runtime_checkable
class TokenCodec(Protocol):
    """What any generator may ask of a tokenizer without importing it."""

    @property
    def space(self) -> TokenSpace:
        """What one token is."""

    @property
    def code_dim(self) -> int:
        """Channels of the continuous code of one token."""


@runtime_checkable
class ScaleCodec(TokenCodec, Protocol):
    """What a next-scale generator asks besides."""

    def next_input(self, tokens: ImageTokens, k: int) -> Tensor:
        """The continuous input "N h_k w_k code_dim" of scale k >= 1, from the grids of scales 0 .. k-1."""

    def scale_inputs(self, tokens: ImageTokens) -> tuple[Tensor, ...]:
        """`next_input` of every scale from 1 to the last one at once."""


@runtime_checkable
class EditCodec(ScaleCodec, Protocol):
    """What editing asks besides."""

    def residual(self, latents: Tensor, layout: ImageLayout, grids: tuple[Tensor, ...]) -> Tensor:
        """What latents "N h w code_dim" of a picture hold beyond the first k grids, as "N h_k w_k code_dim".

        Where all that was drawn so far is as in that picture, its signs are the bits of that picture's scale k.
        """


@dataclass(frozen=True)
class Branch:
    """One guidance branch: what the generator cross-attends to. `memory=None` is the generator's learned null."""

    memory: Tensor | None  # "N S D"
    memory_mask: Tensor | None = None  # "N S", True = may be attended
    source: Tensor | None = None  # "N h w d": final-scale latents of the source image of an edit
    source_mask: Tensor | None = None  # "N", True = this image has a source
    pooled: Tensor | None = None  # "N P D": what a pooled condition is made of, if not the memory
    pooled_mask: Tensor | None = None  # "N", False = this image's pooled condition is the null's
    null_lengths: Tensor | None = None  # "N": how many states a null that is a sequence stands in for
    label: str = "conditional"


@dataclass(frozen=True)
class ImageContext:
    """Everything an image is drawn from. `branches[0]` is the conditional one.

    Training hands over the LLM outputs of all slots at once (`slots`, "G N L D"), or of the first alone, and what was
    fed at them (`slot_inputs`, "N L C", as the generator has computed it of the same tokens); inference hands over
    `step(inputs "G N l C", k) -> "G N l D"`, which runs scale k through the LLM with its own cache.
    Generators without an LLM pass ignore both.
    """

    branches: tuple[Branch, ...]
    slots: Tensor | None = None
    slot_inputs: Tensor | None = None
    step: Callable[[Tensor, int], Tensor] | None = None


@dataclass(frozen=True)
class ImageProgress:
    """What is known of the images after one more step of the generator."""

    tokens: ImageTokens
    step: int  # 1 .. total
    total: int


@dataclass(frozen=True)
class TextPart:
    text: str


@dataclass(frozen=True)
class ImagePart:
    """A picture in a message, with what is needed to draw it again: exact tokens, seed and settings.

    `image` is an upright RGB picture. A picture that the model drew has `tokens`; an uploaded one has not.
    """

    image: Image
    tokens: ImageTokens | None = None
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


Part = TextPart | ImagePart


@dataclass(frozen=True)
class Message:
    role: Role
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, role: Role, *parts: str | Image | Part) -> Message:
        """A message from plain strings and PIL images as well as parts."""
        return cls(role, tuple(as_part(part) for part in parts))

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        return tuple(part for part in self.parts if isinstance(part, ImagePart))


def as_part(part: str | Image | Part) -> Part:
    if isinstance(part, TextPart | ImagePart):
        return part
    return TextPart(part) if isinstance(part, str) else ImagePart(part)


@dataclass(frozen=True, kw_only=True)
class TextSampling:
    """How text tokens are chosen. `temperature=0` is greedy."""

    temperature: float = 0.0
    top_k: int = 0  # 0 = no limit
    top_p: float = 1.0
    max_new_tokens: int = 160


@dataclass(frozen=True, kw_only=True)
class ImageSampling:
    """How image tokens are chosen: a number for all scales, or one per scale (the last one is repeated).

    `guidance_scale=1` runs the conditional branch alone. `image_guidance_scale` is used only when an image is edited:
    it weighs the source image (image only minus null), `guidance_scale` then weighs the instruction (full minus image
    only), at the price of a third branch; None weighs both alike with two branches. `guidance_layer` is where branches
    are combined: 0 = at the logits, -n = at the output of the n-th layer from the end plus one (Infinity).
    `guidance_schedule` lets the scale grow from 1 at the first step to its value at the last one, in a line or along a
    cosine; outside `guidance_interval`, shares of the steps from 0 to 1, the conditional branch decides alone.
    `smooth` blends the codes of the likeliest tokens (VAR), `num_steps` is in how many steps tokens are unmasked, and
    `diffusion_steps` how many a diffusion head takes for one; a generator refuses what it cannot use.
    """

    guidance_scale: float | tuple[float, ...] = 2.0
    guidance_schedule: GuidanceSchedule = "constant"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_layer: int = 0
    image_guidance_scale: float | tuple[float, ...] | None = None
    temperature: float | tuple[float, ...] = 0.5
    top_k: int | tuple[int, ...] = 0
    top_p: float | tuple[float, ...] = 1.0
    smooth: bool = False
    num_steps: int | None = None
    diffusion_steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """One turn to be answered. `messages` ends with a user message; equal `seed`s give equal replies."""

    messages: tuple[Message, ...]
    text_sampling: TextSampling = TextSampling()
    image_sampling: ImageSampling | None = None  # None = as the model is drawn with by default
    route: Route = "auto"  # "text" forbids drawing, "image" forces it
    size: tuple[int, int] | None = (
        None  # (height, width) in pixels; None = aspect of the edited image, else the default
    )
    n: int = 1  # pictures in the reply
    seed: int = 0
    max_images: int = 1  # how many times the model may open an image in one turn
    adapter: str | tuple[str, ...] | None = None  # by name; () = none; None = those the engine has on by default
    given: ImagePart | None = None  # a picture drawn before, of which the first `keep_scales` scales are kept
    keep_scales: int = 0
    region: Image | None = None  # mask of the picture that is changed: black stays as it is, white may change
    faithfulness: float = 0.0  # 0 to 1: how much an edit leans towards the bits of its source, beyond what was learnt


@dataclass(frozen=True)
class TextDelta:
    text: str


@dataclass(frozen=True)
class ImageStarted:
    index: int  # of the picture in this turn
    layout: ImageLayout


@dataclass(frozen=True)
class ImagePreview:
    """The picture after `step` of `total` scales."""

    index: int
    image: Image
    step: int
    total: int


@dataclass(frozen=True)
class ImageFinished:
    index: int
    part: ImagePart


@dataclass(frozen=True)
class TurnFinished:
    """The last event of every turn: the assistant message to append to the conversation, and how it ended."""

    message: Message
    reason: FinishReason
    num_text_tokens: int = 0


ChatEvent = TextDelta | ImageStarted | ImagePreview | ImageFinished | TurnFinished


@runtime_checkable
class Artist(Protocol):
    """What draws wishes: the chat engine, or a painter."""

    model_name: str
    model_hash: str | None

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) in pixels of every size that can be drawn, the default first."""

    def stream(
        self, request: ChatRequest, cancel: threading.Event | None = None, previews: bool = True
    ) -> Iterator[ChatEvent]:
        """The events of one turn; the last one is `TurnFinished`."""

    def reply_batch(self, requests: Sequence[ChatRequest]) -> list[TurnFinished]:
        """Several turns, together."""
