"""POST /v1/chat/completions: a turn of a conversation, at once or as it happens."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from vargpt.serving.answers import ChatAnswer, answers_with
from vargpt.serving.conversion import chat_requests, read_messages
from vargpt.serving.protocol import ChatBody
from vargpt.serving.service import Picture, Service, Usage
from vargpt.serving.streams import Event, event_stream, is_shown, unless_gone
from vargpt.types import ChatRequest, ImageFinished, ImagePreview, TextDelta, TurnFinished

router = APIRouter()


@router.post("/v1/chat/completions", responses=answers_with(ChatAnswer, is_streamed=True))
async def complete(body: ChatBody, request: Request) -> Response:
    """Answers a conversation with words and pictures."""
    service: Service = request.app.state.service
    model, adapter = service.chosen(body.model, body.adapters)
    messages = await asyncio.to_thread(read_messages, body.messages, service.uploads)
    requests = chat_requests(body, messages, adapter, service.sizes, service.sampling, service.settings.limits)
    await service.check(messages)
    reply = Reply(service, body, requests, request.state.client, model)
    if body.stream:
        return await event_stream(request, reply.chunks(), "[DONE]")
    return JSONResponse(await unless_gone(request, reply.whole()))


class Reply:
    """The answer to one request: `n` turns, as one object or as chunks."""

    def __init__(
        self, service: Service, body: ChatBody, requests: Sequence[ChatRequest], client: str, model: str
    ) -> None:
        self.service, self.body, self.requests, self.client, self.model = service, body, requests, client, model
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        self.prompt = requests[0].messages[-1].text

    async def whole(self) -> dict[str, Any]:
        """A chat.completion."""
        choices, usage = [], Usage()
        async with aclosing(self.service.events(self.requests, self.client)) as events:
            async for index, event in events:
                if isinstance(event, TurnFinished):
                    usage = added(usage, await self.service.usage(self.requests[index], event))
                    choices.append(await self._choice(index, event))
        return self._head("chat.completion") | {"choices": choices, "usage": usage_fields(usage)}

    async def chunks(self) -> AsyncGenerator[Event, None]:
        """The chat.completion.chunks of all choices."""
        partials, usage, begun = self.body.partial_images or 0, Usage(), -1
        async with aclosing(self.service.events(self.requests, self.client, partials > 0)) as events:
            async for index, event in events:
                if index > begun:
                    begun = index
                    yield self._chunk(index, {"role": "assistant", "content": ""})
                if isinstance(event, TextDelta):
                    yield self._chunk(index, {"content": event.text})
                elif isinstance(event, ImagePreview) and is_shown(event, partials):
                    entry = image_entry(f"data:image/png;base64,{await self.service.preview(event.image)}", event.index)
                    yield self._chunk(index, {"partial_images": [entry | {"step": event.step, "total": event.total}]})
                elif isinstance(event, ImageFinished):
                    picture = await self.service.picture(event.part, self.prompt)
                    yield self._chunk(index, {"images": [drawn_entry(picture, event.index)]})
                elif isinstance(event, TurnFinished):
                    usage = added(usage, await self.service.usage(self.requests[index], event))
                    yield self._chunk(index, {}, event.reason)
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield None, self._head("chat.completion.chunk") | {"choices": [], "usage": usage_fields(usage)}

    async def _choice(self, index: int, turn: TurnFinished) -> dict[str, Any]:
        pictures = [await self.service.picture(part, self.prompt) for part in turn.message.images]
        images = [drawn_entry(picture, place) for place, picture in enumerate(pictures)]
        message = {"role": "assistant", "content": turn.message.text, "refusal": None, "images": images}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": turn.reason}

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None = None) -> Event:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return None, self._head("chat.completion.chunk") | {"choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": self.service.fingerprint,
        }  # fmt: skip


def image_entry(url: str, index: int) -> dict[str, Any]:
    """A picture as it stands in `images`, and may be sent back there."""
    return {"type": "image_url", "index": index, "image_url": {"url": url}}


def drawn_entry(picture: Picture, index: int) -> dict[str, Any]:
    return image_entry(picture.data_url, index) | {"seed": picture.part.seed, "size": picture.size}


def added(total: Usage, turn: Usage) -> Usage:
    """The usage of several choices: what they read is one and the same."""
    return Usage(turn.prompt, turn.seen, total.text + turn.text, total.image + turn.image)


def usage_fields(usage: Usage) -> dict[str, Any]:
    """OpenAI's count; the tokens of drawn pictures are part of the completion."""
    completion = usage.text + usage.image
    details = {"text_tokens": usage.text, "image_tokens": usage.image, "reasoning_tokens": 0}
    return {
        "prompt_tokens": usage.prompt, "completion_tokens": completion, "total_tokens": usage.prompt + completion,
        "prompt_tokens_details": {"image_tokens": usage.seen, "cached_tokens": 0},
        "completion_tokens_details": details,
    }  # fmt: skip
