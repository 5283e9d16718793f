"""What every request passes before it is read: the key, the size of the body, a number of its own, and the counters.

Plain ASGI, so that streams pass through untouched and a stranger's body is never read.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vargpt.serving.errors import ApiError, answer
from vargpt.serving.metrics import Metrics
from vargpt.serving.settings import ServeSettings
from vargpt.serving.uploads import FILES


class Door:
    """Lets requests in; errors leave in OpenAI's form."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self._keys = [key.encode() for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, started = 500, time.monotonic()  # 500 is what an exception becomes further out
        number = f"req_{secrets.token_hex(12)}"

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = number
            await send(message)

        try:
            headers = Headers(scope=scope)
            key = self._key(scope["path"], headers)
            scope.setdefault("state", {})["client"] = client_of(key, scope)
            self._check_length(headers)
            await self.app(scope, self._limited(receive), sending)
        except ApiError as error:
            await answer(error)(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.monotonic() - started)

    def _key(self, path: str, headers: Headers) -> bytes:
        """The key of a request, b"" where none is asked for. A picture's address is a secret of its own."""
        if not self._keys or not path.startswith("/v1/") or path.startswith(FILES):
            return b""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode() if scheme.lower() == "bearer" else b""
        if not given:
            hint = {"www-authenticate": "Bearer"}
            raise ApiError(
                401,
                "This server asks for an API key: send Authorization: Bearer KEY.",
                None,
                "missing_api_key",
                None,
                hint,
            )
        if not any([hmac.compare_digest(given, known) for known in self._keys]):  # a list: all are compared, always
            raise ApiError(401, "This API key is not known here.", None, "invalid_api_key")
        return given

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.settings.limits.body_bytes:
            raise self._too_large()

    def _limited(self, receive: Receive) -> Receive:
        """The same body, until it grows too large: a length may be missing, or a lie."""
        total = 0

        async def receiving() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self.settings.limits.body_bytes:
                raise self._too_large()
            return message

        return receiving

    def _too_large(self) -> ApiError:
        most = self.settings.limits.body_bytes
        return ApiError(413, f"The request has more than the {most:,} bytes that this server reads.")


def client_of(key: bytes, scope: Scope) -> str:
    """Who takes turns with others: the holders of a key, or else a host."""
    if key:
        return hashlib.sha256(key).hexdigest()[:16]
    return scope["client"][0] if scope.get("client") else ""
