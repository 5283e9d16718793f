"""What stands before all replicas of a cluster: what Ray says itself when no replica can, in OpenAI's form.

In: answers of Ray's proxy. Out: those of a replica as they are; Ray's own errors, which are plain text or nothing at
all, as JSON. The proxy imports this file by its name (`CALLBACK`), without the model: no torch in here.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"  # Ray reads it where a proxy starts
CALLBACK = "vargpt.serving.cluster.front.middlewares"
RAYS_OWN = "/-/"  # paths for load balancers, which read plain text
# status of Ray: what a client is told instead (status, code, type, message)
MEANT: dict[int, tuple[int, str, str, str]] = {
    408: (504, "timeout", "server_error", "The request took longer than this server allows."),
    429: (429, "queue_full", "rate_limit_error", "Too many requests wait already; ask again in a moment."),
    503: (503, "unavailable", "server_error", "No replica can answer at this moment; ask again in a moment."),
}
ENDED: tuple[int, str, str, str] = (
    500, "replica_ended", "server_error", "The replica that answered this request ended; ask again."
)  # fmt: skip


def middlewares() -> list[Middleware]:
    """What Ray puts around each of its proxies."""
    return [Middleware(Front)]


class Front:
    """Lets answers through; errors that no replica has written get the form that clients read."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(RAYS_OWN):
            await self.app(scope, receive, send)
            return
        started, replaced, gone = False, False, False

        async def sending(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started, replaced = True, is_plain_error(message)
                if replaced:
                    await say(send, message["status"], Headers(raw=message["headers"]))
            if not replaced:
                await send(message)

        async def receiving() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "http.disconnect"
            return message

        await self.app(scope, receiving, sending)
        if not started and not gone:  # a replica died: Ray says nothing
            await say(send, 500, Headers())


def is_plain_error(start: Message) -> bool:
    """Whether this is the beginning of an error of Ray's: the replicas write theirs as JSON."""
    kind = Headers(raw=start["headers"]).get("content-type", "")
    return start["status"] >= 400 and not kind.startswith("application/json")


async def say(send: Send, status: int, told: Headers) -> None:
    """Answers with an error.

    Args:
        send: of the request.
        status: as Ray has it.
        told: the headers that Ray sent; what concerns asking again is kept.
    """
    status, code, kind, words = MEANT.get(status, ENDED if status >= 500 else (status, *plain(status)))
    body = json.dumps({"error": {"message": words, "type": kind, "param": None, "code": code}}).encode()
    start: Message = {"type": "http.response.start", "status": status, "headers": []}
    headers = MutableHeaders(scope=start)
    headers["content-type"], headers["content-length"] = "application/json", str(len(body))
    for name in ("retry-after", "x-request-id"):
        if name in told:
            headers[name] = told[name]
    await send(start)
    await send({"type": "http.response.body", "body": body})


def plain(status: int) -> tuple[str, str, str]:
    """Code, type and words of an error that only HTTP has a name for."""
    known = status in {one.value for one in HTTPStatus}
    return "refused", "invalid_request_error", f"{HTTPStatus(status).phrase if known else 'Refused'}."
