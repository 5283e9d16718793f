"""What the server answers, for its OpenAPI description: OpenAI's objects with our extensions.

The endpoints write plain dicts; the tests hold every answer against these classes, in which no field may be unknown.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from vargpt.types import FinishReason


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


# -- errors and models -------------------------------------------------------------------------------------------------


class ErrorDetails(Answer):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Answer):
    """Every answer with a status of 400 or more."""

    error: ErrorDetails


class ModelAnswer(Answer):
    """A name that may stand in `model`: what it draws (null until it is loaded) and which adapters it means."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    adapters: list[str]
    sizes: list[str] | None
    safety: str | None


class ModelsAnswer(Answer):
    object: Literal["list"]
    data: list[ModelAnswer]


class HealthAnswer(Answer):
    status: Literal["ready", "loading"]
    waiting: int
    running: int
    model: str
    safety: str | None


# -- conversations -----------------------------------------------------------------------------------------------------


class Address(Answer):
    url: str


class DrawnEntry(Answer):
    """A picture of a reply, as it may be sent back in an assistant message."""

    type: Literal["image_url"]
    index: int
    image_url: Address
    seed: int | None
    size: str


class Reply(Answer):
    role: Literal["assistant"]
    content: str
    refusal: None
    images: list[DrawnEntry]


class Choice(Answer):
    index: int
    message: Reply
    logprobs: None
    finish_reason: FinishReason


class PromptDetails(Answer):
    image_tokens: int
    cached_tokens: int


class CompletionDetails(Answer):
    text_tokens: int
    image_tokens: int
    reasoning_tokens: int


class ChatUsage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class ChatAnswer(Answer):
    """A chat.completion. With `stream`: its chunks as server-sent events."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[Choice]
    usage: ChatUsage


# -- pictures ----------------------------------------------------------------------------------------------------------


class DrawnPicture(Answer):
    """A picture in base64 or as an address, what the model announced it would draw, and its seed."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None
    seed: int | None


class TokenDetails(Answer):
    text_tokens: int
    image_tokens: int


class PictureUsage(Answer):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: TokenDetails
    output_tokens_details: TokenDetails


class PicturesAnswer(Answer):
    """The pictures of one request. With `stream`: partial and completed ones as server-sent events."""

    created: int
    data: list[DrawnPicture]
    usage: PictureUsage
    size: str
    quality: str
    background: str
    output_format: str


ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorAnswer}, "5XX": {"model": ErrorAnswer}}


def answers_with(kind: type[Answer], is_streamed: bool = False) -> dict[int | str, dict[str, Any]]:
    """What an endpoint answers when all goes well, for its `responses`."""
    stream = {"content": {"text/event-stream": {"schema": {"type": "string"}}}} if is_streamed else {}
    return {200: {"model": kind} | stream}
