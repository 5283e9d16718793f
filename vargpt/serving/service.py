"""What the endpoints have in common: which models there are, a turn from question to last word, pictures as files.

In: `ChatRequest`s. Out: their events, within the time allowed, with every picture judged, signed and remembered.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from PIL import Image

from vargpt.chat.requests import seen_messages
from vargpt.chat.scheduler import Scheduler, Ticket
from vargpt.loading.models import OUTLINE
from vargpt.pictures.album import software
from vargpt.pictures.files import png_with_metadata
from vargpt.published.families import default_sampling, model_config, resolve_model
from vargpt.serving.conversion import check_size
from vargpt.serving.errors import NO_RETRY, ApiError, as_api_error, invalid, refused
from vargpt.serving.metrics import Metrics
from vargpt.serving.picture_store import Gallery
from vargpt.serving.settings import ServeSettings
from vargpt.serving.uploads import Uploads
from vargpt.types import ChatEvent, ChatRequest, ImagePart, ImageSampling, Message, TurnFinished


@dataclass(frozen=True)
class Picture:
    """A drawn picture as it leaves the server."""

    part: ImagePart
    png: bytes
    name: str  # of its file, below `uploads.FILES`

    @property
    def base64(self) -> str:
        return base64.b64encode(self.png).decode()

    @property
    def data_url(self) -> str:
        return f"data:image/png;base64,{self.base64}"

    @property
    def size(self) -> str:
        return f"{self.part.image.width}x{self.part.image.height}"


@dataclass(frozen=True)
class Usage:
    """Tokens read (those of pictures among them), spoken and drawn."""

    prompt: int = 0
    seen: int = 0
    text: int = 0
    image: int = 0


@dataclass(frozen=True)
class Service:
    """One model behind one scheduler, as clients see it."""

    settings: ServeSettings
    scheduler: Scheduler
    metrics: Metrics
    gallery: Gallery
    started: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def uploads(self) -> Uploads:
        return Uploads(self.settings, self.gallery)

    # -- models --------------------------------------------------------------------------------------------------------

    @property
    def adapters(self) -> tuple[str, ...]:
        engine = self.scheduler.engine
        return self.settings.adapters if engine is None else engine.adapters.names

    @property
    def models(self) -> dict[str, tuple[str, ...]]:
        """What may stand in `model`, and the adapters that this switches on."""
        name = self.settings.model_id
        return {name: ()} | {f"{name}:{adapter}": (adapter,) for adapter in self.adapters}

    def chosen(self, model: str | None, adapters: Sequence[str] | None) -> tuple[str, tuple[str, ...]]:
        """The model and the adapters of a request.

        Raises:
            ApiError: there is no such model or adapter.
        """
        model = self.settings.model_id if model is None else model
        if model not in self.models:
            there = ", ".join(self.models)
            message = f"There is no model '{model}' here; there is {there}."
            raise ApiError(404, message, "model", "model_not_found")
        if adapters is None:
            return model, self.models[model]
        unknown = [name for name in adapters if name not in self.adapters]
        if unknown:
            there = ", ".join(self.adapters) or "none"
            raise invalid(f"There is no adapter '{unknown[0]}' here; there are: {there}.", "adapter")
        return model, tuple(adapters)

    @property
    def sizes(self) -> list[tuple[int, int]] | None:
        """(height, width) of what can be drawn, the default first; None until the model is loaded."""
        engine = self.scheduler.engine
        return None if engine is None else engine.sizes

    @property
    def sampling(self) -> ImageSampling:
        """How pictures are drawn unless asked otherwise."""
        engine = self.scheduler.engine
        if engine is not None:
            return engine.image_sampling()
        return default_sampling(resolve_model(self.settings.model, OUTLINE))

    @property
    def num_scales(self) -> int:
        """Of a picture of the default size."""
        engine = self.scheduler.engine
        config = model_config(resolve_model(self.settings.model, OUTLINE)) if engine is None else engine.model.config
        return config.layout().num_scales

    @property
    def fingerprint(self) -> str | None:
        engine = self.scheduler.engine
        return None if engine is None else engine.model_hash

    # -- turns ---------------------------------------------------------------------------------------------------------

    async def check(self, messages: Sequence[Message]) -> None:
        """Raises ApiError for words and pictures that the safety check refuses."""
        safety = self.settings.safety
        if safety is None:
            return
        text = "\n".join(message.text for message in messages if message.text)
        reason = await asyncio.to_thread(safety.check_prompt, text)
        if reason is not None:
            raise refused(reason, "messages" if len(messages) > 1 else "prompt")
        for part in (part for message in messages for part in message.images):
            await self.check_image(part.image)

    async def check_image(self, image: Image.Image) -> None:
        """Raises ApiError for a picture that the safety check refuses."""
        safety = self.settings.safety
        if safety is not None and (reason := await asyncio.to_thread(safety.check_image, image)) is not None:
            raise refused(reason)

    async def events(
        self, requests: Sequence[ChatRequest], client: str, previews: bool = False
    ) -> AsyncGenerator[tuple[int, ChatEvent], None]:
        """(index of the request, event) of every turn, one turn after the other; closing it cancels them all.

        Raises:
            ApiError: whatever went wrong, the time that is allowed included.
        """
        deadline = time.monotonic() + self.settings.limits.seconds
        tickets: list[Ticket] = []
        try:
            for request in requests:
                tickets.append(self.scheduler.submit(request, client, previews))
            for index, ticket in enumerate(tickets):
                async for event in until(deadline, aiter(ticket)):
                    if isinstance(event, TurnFinished):
                        event = ended(event)
                    yield index, event
        except Exception as error:  # whatever it was, the client is told in its own language
            check_size(requests[0].size, self.sizes)  # the model may have been loaded only now
            raise as_api_error(error) from error
        finally:
            for ticket in tickets:
                ticket.cancel()

    async def picture(self, part: ImagePart, prompt: str) -> Picture:
        """A drawn picture as a file; judged first.

        Raises:
            ApiError: the safety check refuses it.
        """
        await self.check_image(part.image)
        engine = self.scheduler.engine
        details = {
            "prompt": prompt,
            "seed": part.seed,
            "settings": part.settings or None,
            "model": self.settings.model_id,
            "model_hash": None if engine is None else engine.model_hash,
            "software": software(),
        }
        png = await asyncio.to_thread(self._file, part.image, details)
        self.metrics.pictures.inc()
        return Picture(part, png, self.gallery.keep(part, png))

    async def preview(self, image: Image.Image) -> str:
        """A forming picture as a PNG file in base64; judged like a finished one."""
        await self.check_image(image)
        return base64.b64encode(await asyncio.to_thread(png_with_metadata, image, {})).decode()

    async def usage(self, request: ChatRequest, turn: TurnFinished) -> Usage:
        """What a turn took; counted for the metrics, too."""
        drawn = [part.tokens.layout.num_tokens for part in turn.message.images if part.tokens is not None]
        prompt, seen = await asyncio.to_thread(self._prompt_tokens, request)
        usage = Usage(prompt, seen, turn.num_text_tokens, sum(drawn))
        for kind in ("prompt", "text", "image"):
            self.metrics.tokens.labels(kind).inc(getattr(usage, kind))
        return usage

    def _file(self, image: Image.Image, details: dict[str, Any]) -> bytes:
        png = png_with_metadata(image, details)
        return png if self.settings.sign is None else self.settings.sign(png, details)

    def _prompt_tokens(self, request: ChatRequest) -> tuple[int, int]:
        engine = self.scheduler.engine
        if engine is None:
            return 0, 0
        ids = engine.processor.conversation_ids(seen_messages(request.messages), reply=True).input_ids
        return len(ids), ids.count(engine.processor.image_token_id)


async def until(deadline: float, events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    """The same events; TimeoutError if they have not ended by then (in `time.monotonic`)."""
    while True:
        try:
            yield await asyncio.wait_for(anext(events), max(0.0, deadline - time.monotonic()))
        except StopAsyncIteration:
            return


def ended(turn: TurnFinished) -> TurnFinished:
    """The same turn, if it came to its own end.

    Raises:
        ApiError: it was cut short, because the server stops.
    """
    if turn.reason == "cancelled":
        raise ApiError(503, "The server is stopping; ask again in a while.", code="stopping", headers=NO_RETRY)
    return turn
