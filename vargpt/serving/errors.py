"""Everything that can go wrong, in the one form that OpenAI's clients understand.

In: exceptions. Out: {"error": {"message", "type", "param", "code"}} with the status that fits.
"""

from __future__ import annotations

import difflib
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from vargpt.chat.engine import ContextFullError
from vargpt.chat.scheduler import QueueFullError
from vargpt.serving.trust.safety import SafetyCheckError

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5  # what a client is told that finds the queue full
CODES = {400: None, 401: "invalid_api_key", 404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


class ApiError(HTTPException):
    """An answer that is an error.

    Args:
        status: of HTTP.
        message: what is wrong and what to do, for a person.
        param: the field of the request that is to blame, if one is.
        code: for programs.
        kind: OpenAI's `type`; None follows from the status.
        headers: sent along.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        kind: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.param, self.code = param, code or CODES.get(status)
        self.kind = kind or ("server_error" if status >= 500 else "invalid_request_error")

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.detail, "type": self.kind, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None, code: str = "invalid_value") -> ApiError:
    """A field of the request that cannot be."""
    return ApiError(400, message, param, code)


def refused(reason: str, param: str | None = None) -> ApiError:
    """What a safety check refused."""
    return ApiError(400, reason, param, "content_policy_violation", "image_generation_user_error")


def as_api_error(error: Exception) -> ApiError:
    """What the model and its queue raise, as an answer. Unknown errors keep what they say to the log."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=dict(error.headers or {}))
    if isinstance(error, ContextFullError):
        return ApiError(400, f"{error}.", "messages", "context_length_exceeded")
    if isinstance(error, ValueError):
        return invalid(f"{error}.", None)
    if isinstance(error, QueueFullError):
        return ApiError(
            429, f"{error}.", code="queue_full", kind="rate_limit_error", headers={"retry-after": str(RETRY_SECONDS)}
        )
    if isinstance(error, TimeoutError):
        return ApiError(504, "The request took longer than this server allows.", code="timeout", headers=NO_RETRY)
    if isinstance(error, MemoryError):
        return ApiError(503, f"{error}.", code="out_of_memory", headers=NO_RETRY)
    if isinstance(error, SafetyCheckError):
        return ApiError(503, f"{error}.", code="safety_check_failed", headers=NO_RETRY)
    if isinstance(error, FileNotFoundError | ImportError):
        return ApiError(503, f"The model could not be loaded: {error}.", code="model_not_loaded", headers=NO_RETRY)
    logger.error("a request failed: %s", error, exc_info=error)
    return ApiError(500, "The server made a mistake; its log says more.", code="internal_error")


NO_RETRY = {"x-should-retry": "false"}  # OpenAI's clients ask again after errors of the server, unless told so


def validation_error(error: ValidationError | RequestValidationError, known: tuple[str, ...] = ()) -> ApiError:
    """The first thing that is wrong with the fields of a request; for an unknown field, the likeliest known one."""
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"] if part != "body")
    if first["type"] == "json_invalid":
        return ApiError(400, "The body is not JSON that can be read.", None, "invalid_json")
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(param.split(".")[-1], known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        return ApiError(400, f"There is no field '{param}' here{hint}", param, "unknown_parameter")
    if first["type"] == "missing":
        what = f"'{param}' is missing" if param else "the body is missing; send JSON with content-type application/json"
        return ApiError(400, f"{what[0].upper()}{what[1:]}.", param or None, "missing_required_parameter")
    message = str(first["msg"]).removeprefix("Value error, ")
    return invalid(f"{param}: {message}." if param else f"{message}.", param or None)


def answer(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status_code, error.headers)


def add_handlers(app: FastAPI) -> None:
    """Makes every error of an app one of OpenAI's form."""

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        return answer(as_api_error(_friendlier(request, error)))

    async def on_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        field = getattr(request.scope.get("route"), "body_field", None)
        fields = getattr(getattr(field, "field_info", None), "annotation", None)
        return answer(validation_error(error, tuple(getattr(fields, "model_fields", ()))))

    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(Exception, on_http)


def _friendlier(request: Request, error: Exception) -> Exception:
    """What the web framework says of addresses and methods, as sentences."""
    if isinstance(error, HTTPException) and not isinstance(error, ApiError):
        path = request.url.path
        if error.status_code == 404:
            return ApiError(404, f"There is nothing at {path}; the endpoints are listed at /openapi.json.")
        if error.status_code == 405:
            headers = dict(error.headers or {})
            return ApiError(405, f"{path} does not answer {request.method} requests.", headers=headers)
    return error
