"""Answers on their way: server-sent events, the first of which decides the status, and clients that leave early.

In: asynchronous work. Out: responses. A client that is gone ends the work, whether or not it was streaming.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from vargpt.serving.errors import ApiError, as_api_error
from vargpt.types import ImagePreview

Result = TypeVar("Result")
Event = tuple[str | None, dict[str, Any]]  # the name of an event, if it has one, and its data
GONE = 499  # what nginx calls the status of a request whose client left
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # proxies are to pass every event on at once


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client disconnects. The body must have been read.

    Raises:
        ApiError: the client left; nobody will read it.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(GONE, "The client left before the answer.", code="client_disconnected")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def event_stream(
    request: Request, events: AsyncGenerator[Event, None], closing: str | None = None
) -> StreamingResponse:
    """Streams events to a client; what goes wrong before the first one is raised, later it becomes the last one.

    Args:
        request: whose body has been read.
        events: closed when the client leaves.
        closing: a last line after the last event.
    """
    first = await unless_gone(request, _next(events))

    async def lines() -> AsyncIterator[bytes]:
        async with aclosing(events):
            try:
                yield as_line(*first)
                async for name, data in events:
                    yield as_line(name, data)
                if closing is not None:
                    yield f"data: {closing}\n\n".encode()
            except Exception as error:  # the status is sent already
                yield as_line("error", as_api_error(error).body)

    return StreamingResponse(lines(), media_type="text/event-stream", headers=HEADERS)


def as_line(name: str | None, data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


async def _next(events: AsyncGenerator[Event, None]) -> Event:
    return await anext(events)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def is_shown(preview: ImagePreview, count: int) -> bool:
    """Whether a preview is one of the `count` that are spread evenly over the scales before the last one."""
    return preview.step in shown_steps(preview.total, count)


def partial_index(preview: ImagePreview, count: int) -> int:
    """0, 1 ... of a preview that is shown."""
    return shown_steps(preview.total, count).index(preview.step)


def shown_steps(total: int, count: int) -> list[int]:
    """At most `count` steps from 1 to `total` - 1, evenly spread: (8, 3) -> [2, 4, 6]."""
    return sorted({round(total * place / (count + 1)) for place in range(1, count + 1)} - {0, total})
