"""What Ray says itself, in OpenAI's form; what a replica says, untouched. Ray is played by a few lines of ASGI."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from starlette.testclient import TestClient

from vargpt.serving.answers import ErrorAnswer
from vargpt.serving.cluster.front import CALLBACK, Front, middlewares


def client_of(status: int | None, kind: str = "text/plain; charset=utf-8", body: bytes = b"words") -> TestClient:
    """A client of a proxy that always answers this; None = it ends without a word."""

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        if status is None:
            return
        headers = [(b"content-type", kind.encode()), (b"retry-after", b"5"), (b"x-request-id", b"r1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return TestClient(Front(proxy), raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("status", "becomes", "code"),
    [(429, 429, "queue_full"), (503, 503, "unavailable"), (408, 504, "timeout"), (500, 500, "replica_ended"),
     (None, 500, "replica_ended"), (404, 404, "refused")],
)  # fmt: skip
def test_what_ray_says_has_openais_form(status: int | None, becomes: int, code: str) -> None:
    answer = client_of(status).post("/v1/images/generations")
    assert answer.status_code == becomes
    assert ErrorAnswer.model_validate(answer.json()).error.code == code
    assert answer.headers["content-type"] == "application/json"
    if status is not None:
        assert (answer.headers["retry-after"], answer.headers["x-request-id"]) == ("5", "r1")


@pytest.mark.parametrize(
    ("status", "kind", "path"),
    [(200, "text/plain", "/metrics"), (400, "application/json", "/v1/models"), (503, "text/plain", "/-/healthz")],
)
def test_what_is_in_form_already_passes_untouched(status: int, kind: str, path: str) -> None:
    answer = client_of(status, kind, b"as it was").get(path)
    assert (answer.status_code, answer.content) == (status, b"as it was")


def test_nothing_is_said_to_a_client_that_has_left() -> None:
    sent: list[Any] = []

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Front(proxy)({"type": "http", "path": "/v1/models", "headers": []}, receive, send))
    assert sent == []


def test_the_proxy_finds_it_by_name_and_loads_no_model_for_it() -> None:
    module, _, function = CALLBACK.rpartition(".")
    assert (module, function) == (middlewares.__module__, middlewares.__name__)
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0
