"""The requests of OpenAI's protocol, with our extensions; a field that nobody knows is an error.

In: JSON bodies and form fields. Out: checked values. Fields that OpenAI's clients send and that mean nothing here are
accepted in the values that ask for nothing; what would change the answer, and cannot, is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from vargpt.chat.requests import MAX_OPENINGS
from vargpt.sampling import MAX_SEED
from vargpt.types import MAX_PICTURES

MAX_PARTIALS = 16
MAX_GUIDANCE = 100.0


def absent(why: str) -> AfterValidator:
    """Takes None and what asks for nothing (0, false, an empty list); all else is refused with this sentence."""

    def check(value: Any) -> Any:
        if value:
            raise ValueError(why)
        return value

    return AfterValidator(check)


def shorthand(short: type, full: Callable[[Any], Any], both: Any) -> BeforeValidator:
    """A value that may be written in short, as OpenAI allows for texts; errors then speak of one form only."""

    def lengthen(value: Any) -> Any:
        return full(value) if isinstance(value, short) else value

    return BeforeValidator(lengthen, json_schema_input_type=both)


Seed = Annotated[int | None, Field(ge=0, le=MAX_SEED)]
Guidance = Annotated[float | None, Field(ge=0, le=MAX_GUIDANCE, allow_inf_nan=False)]
Temperature = Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)]
TopK = Annotated[int | None, Field(ge=0)]
TopP = Annotated[float | None, Field(gt=0, le=1)]
Share = Annotated[float | None, Field(ge=0, le=1)]
Count = Annotated[int | None, Field(ge=1, le=MAX_PICTURES)]
Partials = Annotated[int | None, Field(ge=0, le=MAX_PARTIALS)]
Names = Annotated[list[str] | None, shorthand(str, lambda name: [name], str | list[str] | None)]


class Body(BaseModel):
    """What every request has in common. `lora` is another word for `adapter`."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    user: str | None = None
    seed: Seed = None
    guidance_scale: Guidance = None
    image_guidance_scale: Guidance = None
    adapter: Names = None
    lora: Names = None
    negative_prompt: Annotated[
        str | None, absent("a chat model draws what is asked and knows no negative prompts; say what should be there")
    ] = None

    @property
    def adapters(self) -> list[str] | None:
        return self.adapter if self.adapter is not None else self.lora


class Changes(BaseModel):
    """How closely a picture that is there already is followed."""

    faithfulness: Share = None
    keep_scales: Annotated[int | None, Field(ge=0, le=64)] = None


# -- conversations -----------------------------------------------------------------------------------------------------


class ImageUrl(BaseModel):
    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ContentPart(BaseModel):
    """A piece of a message: text, or a picture as a data URL."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: Annotated[ImageUrl | None, shorthand(str, lambda url: {"url": url}, ImageUrl | str | None)] = None


Content = Annotated[
    list[ContentPart] | None,
    shorthand(str, lambda text: [{"type": "text", "text": text}], str | list[ContentPart] | None),
]


def no_tools(role: Any) -> Any:
    if role in ("tool", "function"):
        raise ValueError(f"this model calls no tools, so there are no messages of role {role!r}")
    return role


class ChatMessage(BaseModel):
    """One message. `images` is where assistant messages carry what they drew, as they came from here."""

    role: Annotated[Literal["system", "developer", "user", "assistant"], BeforeValidator(no_tools)]
    content: Content = None
    images: list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class TextFormat(BaseModel):
    type: Literal["text"]


class ChatBody(Body, Changes):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    modalities: list[Literal["text", "image"]] | None = None
    n: Count = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Temperature = None
    top_p: TopP = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Extensions: the text's top_k, and everything about pictures.
    top_k: TopK = None
    size: str | None = None
    num_images: Count = None
    max_images: Annotated[int | None, Field(ge=1, le=MAX_OPENINGS)] = None
    image_temperature: Temperature = None
    image_top_k: TopK = None
    image_top_p: TopP = None
    partial_images: Partials = None
    # Sent by clients, in values that ask for nothing.
    frequency_penalty: Annotated[float | None, absent("words are not penalised here; leave it away")] = None
    presence_penalty: Annotated[float | None, absent("words are not penalised here; leave it away")] = None
    logit_bias: Annotated[dict[str, float] | None, absent("tokens are not weighted here; leave it away")] = None
    logprobs: Annotated[bool | None, absent("probabilities are not told here; leave it away")] = None
    top_logprobs: Annotated[int | None, absent("probabilities are not told here; leave it away")] = None
    stop: Annotated[Names, absent("replies end where the model ends them, or after max_tokens; leave it away")] = None
    tools: Annotated[list[Any] | None, absent("this model calls no tools; leave them away")] = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None


# -- pictures ----------------------------------------------------------------------------------------------------------


class PictureBody(Body):
    """What the three ways to ask for pictures have in common. `temperature`, `top_k`, `top_p` are the pictures'."""

    n: Count = None
    size: str | None = None
    response_format: Literal["b64_json", "url"] | None = None
    stream: bool | None = None
    partial_images: Partials = None
    temperature: Temperature = None
    top_k: TopK = None
    top_p: TopP = None
    # Sent by clients, in values that ask for nothing.
    quality: Literal["auto", "standard", "hd", "low", "medium", "high"] | None = None
    background: Literal["auto", "opaque"] | None = None
    output_format: Literal["png"] | None = None
    output_compression: Annotated[int | None, Field(ge=100, le=100)] = None


class GenerationBody(PictureBody):
    """POST /v1/images/generations."""

    prompt: Annotated[str, Field(min_length=1)]
    style: Literal["vivid", "natural"] | None = None
    moderation: Literal["auto", "low"] | None = None


class EditBody(PictureBody, Changes):
    """POST /v1/images/edits, the fields that are no files."""

    prompt: Annotated[str, Field(min_length=1)]
    input_fidelity: Literal["low"] | None = None


class VariationBody(PictureBody, Changes):
    """POST /v1/images/variations, the fields that are no files."""
