"""A model that only draws, with the face that the chat engine has: wishes in, chat events and finished turns out.

In: `ChatRequest`s of one user message without pictures. Out: `ImageStarted`, `ImagePreview`, `ImageFinished` and the
`TurnFinished` that holds the pictures. What asks for words or for a change to a picture is refused, with the reason.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from vargpt.loading.models import OUTLINE
from vargpt.loading.packing import pack_generator
from vargpt.published.base import Published
from vargpt.published.families import default_sampling, find_published, resolve_model
from vargpt.sampling import settings_of
from vargpt.text_to_image.pipeline import TextToImage
from vargpt.types import (
    MAX_PICTURES,
    ChatEvent,
    ChatRequest,
    FinishReason,
    ImageFinished,
    ImageLayout,
    ImagePart,
    ImagePreview,
    ImageProgress,
    ImageSampling,
    ImageStarted,
    Message,
    TurnFinished,
)

TOKENS_TOGETHER = 32_768  # image tokens in one batch: three pictures of 1024 x 1024, what a large card holds with 8B


@dataclass
class Canvas:
    """One picture to be drawn: for which request, the how manyth of it, and from what."""

    row: int
    index: int
    prompt: str
    seed: int
    layout: ImageLayout
    sampling: ImageSampling

    @property
    def kind(self) -> tuple[ImageLayout, ImageSampling]:
        """What pictures drawn together have in common."""
        return self.layout, self.sampling


@dataclass
class Painter:
    """Draws the wishes of requests; safe to share between threads, which then wait for one another.

    Args:
        model: what draws.
        model_name: for people: file metadata.
        model_hash: of the weights, for file metadata.
        negative_prompt: what all pictures are led away from; None = the learned null.
    """

    model: TextToImage
    model_name: str = "text-to-image"
    model_hash: str | None = None
    negative_prompt: str | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def load(
        cls,
        found: Published,
        device: str = "auto",
        dtype: str = "auto",
        text_encoder: str | Path | None = None,
        vae: str | Path | None = None,
        negative_prompt: str | None = None,
        packed: bool = False,
    ) -> Painter:
        """The painter of a published model; arguments and errors as for `Published.load`.

        `packed` lays float32 weights out for this CPU (`vargpt.loading.packing`).
        """
        model = found.load(device, dtype, text_encoder, vae)
        if packed:
            pack_generator(model.generator)
        return cls(model, found.model_name, found.fingerprint(vae), negative_prompt)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) in pixels of every size that can be drawn, the default first."""
        return self.model.config.sizes

    def stream(
        self, request: ChatRequest, cancel: threading.Event | None = None, previews: bool = True
    ) -> Iterator[ChatEvent]:
        """The events of one wish as they happen; the last one is `TurnFinished`.

        Raises:
            ValueError: at once, if the request is no wish for pictures or a number in it is out of range.
        """
        self.check(request)
        return self._stream(request, previews, cancel)

    def reply_batch(self, requests: Sequence[ChatRequest]) -> list[TurnFinished]:
        """Several wishes, drawn together as far as size, settings and memory allow.

        Raises:
            ValueError: one of the requests cannot be drawn; the message says which.
        """
        for number, request in enumerate(requests):
            try:
                self.check(request)
            except ValueError as error:
                raise ValueError(f"request {number}: {error}") from None
        finished = {row: event for row, event in self._paint(requests, False, None) if isinstance(event, TurnFinished)}
        return [finished[row] for row in range(len(requests))]

    def check(self, request: ChatRequest) -> None:
        """Raises ValueError for what a model without words, eyes and memory cannot answer."""
        messages = request.messages
        if len(messages) != 1 or messages[0].role != "user" or messages[0].images or request.route == "text":
            raise ValueError(
                f"{self.model_name} draws from one sentence and does nothing else: no conversation, no questions, no "
                "changes to pictures; for those use a chat model, for instance the shipped nano"
            )
        if request.adapter:
            raise ValueError(f"{self.model_name} only draws; adapters are for chat models")
        if request.keep_scales or request.region is not None or request.faithfulness:
            raise ValueError(f"{self.model_name} draws from nothing; refining and changing pictures is for chat models")
        if not 1 <= request.n <= MAX_PICTURES:
            raise ValueError(f"n, the number of pictures, must lie between 1 and {MAX_PICTURES}, got {request.n}")
        self.model.config.layout(request.size)
        self.model.check([messages[0].text], [request.seed], request.image_sampling or self.model.config.sampling)

    def _stream(self, request: ChatRequest, previews: bool, cancel: threading.Event | None) -> Iterator[ChatEvent]:
        with closing(self._paint([request], previews, cancel)) as events:  # type: ignore[type-var]
            for _, event in events:
                yield event

    def _paint(
        self, requests: Sequence[ChatRequest], previews: bool, cancel: threading.Event | None
    ) -> Iterator[tuple[int, ChatEvent]]:
        waiting = [
            Canvas(row, index, request.messages[0].text, request.seed + index,
                   self.model.config.layout(request.size), request.image_sampling or self.model.config.sampling)
            for row, request in enumerate(requests)
            for index in range(request.n)
        ]  # fmt: skip
        parts: dict[int, list[ImagePart]] = {row: [] for row in range(len(requests))}
        with self._turn:
            while waiting and not is_set(cancel):
                together, waiting = first_batch(waiting)
                for row, event in self._batch(together, previews, cancel):
                    if isinstance(event, ImageFinished):
                        parts[row].append(event.part)
                    yield row, event
        reason: FinishReason = "cancelled" if is_set(cancel) else "stop"
        for row, pictures in parts.items():
            yield row, TurnFinished(Message("assistant", tuple(pictures)), reason)

    def _batch(
        self, canvases: Sequence[Canvas], previews: bool, cancel: threading.Event | None
    ) -> Iterator[tuple[int, ChatEvent]]:
        first = canvases[0]
        for one in canvases:
            yield one.row, ImageStarted(one.index, one.layout)
        drawing = self.model.draw(
            [one.prompt for one in canvases],
            [one.seed for one in canvases],
            size=(first.layout.height, first.layout.width),
            sampling=first.sampling,
            negative_prompts=self.negative_prompt,
        )
        with closing(drawing):  # type: ignore[type-var]
            for progress in drawing:
                if is_set(cancel):
                    return
                if progress.step == progress.total or previews:
                    yield from self._shown(canvases, progress)

    def _shown(self, canvases: Sequence[Canvas], progress: ImageProgress) -> Iterator[tuple[int, ChatEvent]]:
        images, tokens = self.model.pictures(progress.tokens), progress.tokens.to("cpu")
        for place, (one, image) in enumerate(zip(canvases, images, strict=True)):
            if progress.step < progress.total:
                yield one.row, ImagePreview(one.index, image, progress.step, progress.total)
            else:
                part = ImagePart(image, tokens.select([place]), one.seed, self._settings(one))
                yield one.row, ImageFinished(one.index, part)

    def _settings(self, canvas: Canvas) -> dict:
        marks = {"size": [canvas.layout.height, canvas.layout.width], "opening": 0, "alternative": canvas.index}
        negative = {"negative_prompt": self.negative_prompt} if self.negative_prompt else {}
        return settings_of(canvas.sampling) | marks | negative


@dataclass(frozen=True)
class Order:
    """What is asked of which model, before anything is loaded. `published` is None for a chat model."""

    model: str | None
    published: Published | None
    negative_prompt: str | None = None
    text_encoder: str | None = None
    vae: Path | None = None

    @classmethod
    def of(
        cls,
        model: str | None,
        variant: str | None = None,
        negative: str | None = None,
        text_encoder: str | None = None,
        vae: Path | None = None,
    ) -> Order:
        """From what stands on a command line.

        Raises:
            ValueError: a variant is missing or unknown, or something is asked that a chat model cannot do.
        """
        found = find_published(model, variant)
        given = {"--negative": negative, "--text-encoder": text_encoder, "--vae": vae}
        useless = [name for name, value in given.items() if value is not None]
        if found is None and useless:
            raise ValueError(
                f"{model or 'nano'} is a chat model, for which {' and '.join(useless)} can do nothing; leave it away, "
                "or name a model that only draws with --model"
            )
        return cls(model, found, negative, text_encoder, vae)

    @property
    def sampling(self) -> ImageSampling:
        """How this model draws unless told otherwise."""
        if self.published is not None:
            return self.published.variant.sampling
        return default_sampling(resolve_model(self.model, OUTLINE))

    @property
    def model_name(self) -> str:
        return self.model or "nano" if self.published is None else self.published.model_name

    @property
    def sizes(self) -> list[tuple[int, int]] | None:
        """(height, width) in pixels of what can be drawn; None where only the loaded model knows."""
        return None if self.published is None else self.published.config().sizes

    def painter(
        self,
        device: str = "auto",
        dtype: str = "auto",
        quantization: str | None = None,
        offload: bool = False,
        adapters: Sequence[str] = (),
        packed: bool = False,
    ) -> Painter:
        """Loads the model that only draws; errors as for `Published.load`.

        Raises:
            ValueError: quantisation, offloading or adapters, which are for chat models.
        """
        assert self.published is not None, "a chat model is the engine's"
        if quantization is not None or offload or adapters:
            raise ValueError(
                f"{self.model_name} only draws: of --dtype, --quantize, --offload and --adapter it takes --dtype"
            )
        return Painter.load(self.published, device, dtype, self.text_encoder, self.vae, self.negative_prompt, packed)


def first_batch(waiting: Sequence[Canvas]) -> tuple[list[Canvas], list[Canvas]]:
    """The canvases that go with the first one, no more than fit together, and the rest."""
    together: list[Canvas] = []
    rest: list[Canvas] = []
    most = max(1, TOKENS_TOGETHER // waiting[0].layout.num_tokens)
    for one in waiting:
        (together if one.kind == waiting[0].kind and len(together) < most else rest).append(one)
    return together, rest


def is_set(cancel: threading.Event | None) -> bool:
    return cancel is not None and cancel.is_set()
