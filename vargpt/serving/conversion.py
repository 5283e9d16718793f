"""OpenAI's requests to ours: messages with their parts, the way a reply is sampled, what is drawn and what is kept.

In: checked bodies. Out: `Message`s and `ChatRequest`s. What a body asks beyond the server's limits is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from vargpt.sampling import new_seed
from vargpt.serving.errors import invalid
from vargpt.serving.protocol import ChatBody, ChatMessage, ContentPart, EditBody, PictureBody, VariationBody
from vargpt.serving.settings import Limits
from vargpt.serving.uploads import Uploads
from vargpt.types import ChatRequest, ImagePart, ImageSampling, Message, Part, Role, Route, TextPart, TextSampling

VARIATION = "Draw this picture again."  # what stands beside a picture that is to be varied
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


# -- conversations -----------------------------------------------------------------------------------------------------


def read_messages(messages: Sequence[ChatMessage], uploads: Uploads) -> tuple[Message, ...]:
    """The conversation in our words; decodes pictures, so call it from a thread.

    Raises:
        ApiError: it does not end with something a user said, or a picture in it is none.
    """
    if messages[-1].role != "user":
        raise invalid("A conversation to be answered ends with a user message.", "messages")
    count = sum(part.type == "image_url" for message in messages for part in (message.content or [])) + sum(
        len(message.images or ()) for message in messages
    )
    if count > (most := uploads.settings.limits.images):
        raise invalid(f"The conversation has {count} pictures; this server takes {most}.", "messages")
    read = tuple(read_message(message, f"messages.{number}", uploads) for number, message in enumerate(messages))
    if not read[-1].text.strip() and not read[-1].images:
        raise invalid("The last message is empty; write something or attach a picture.", "messages")
    return read


def read_message(message: ChatMessage, param: str, uploads: Uploads) -> Message:
    """One message; drawn pictures that come back in `images` follow the words."""
    if message.images and message.role != "assistant":
        raise invalid("Only assistant messages have images; send yours as parts of content.", f"{param}.images")
    parts = [
        read_part(part, f"{param}.{name}.{number}", uploads)
        for name, given in (("content", message.content), ("images", message.images))
        for number, part in enumerate(given or ())
    ]
    return Message(ROLES[message.role], tuple(chosen(parts, message.role == "assistant")))


def read_part(part: ContentPart, param: str, uploads: Uploads) -> Part:
    if part.type == "text":
        if part.text is None:
            raise invalid("A part of type text has its words in the field text.", f"{param}.text")
        return TextPart(part.text)
    if part.image_url is None:
        raise invalid("A part of type image_url has its picture in the field image_url.", f"{param}.image_url")
    return uploads.from_url(part.image_url.url, f"{param}.image_url.url")


def chosen(parts: Sequence[Part], drawn_here: bool) -> list[Part]:
    """Of several pictures drawn for one wish the model sees one: the first of those that the client sent back.

    Where they stand in a message of the user's, or alone, each is a picture of its own.
    """
    seen: set[Any] = set()
    result: list[Part] = []
    for part in parts:
        if isinstance(part, ImagePart) and part.settings:
            opening = part.settings.get("opening")
            number = len(result) if drawn_here and opening in seen else 0
            seen.add(opening)
            part = replace(part, settings=part.settings | {"alternative": number})
        result.append(part)
    return result


def chat_requests(
    body: ChatBody,
    messages: tuple[Message, ...],
    adapter: tuple[str, ...],
    sizes: Sequence[tuple[int, int]] | None,
    default: ImageSampling,
    limits: Limits,
) -> list[ChatRequest]:
    """One request per choice; choice i has the seed of the first plus i times the pictures of a reply.

    Raises:
        ApiError: a number is beyond the limits, or a size is none of the model's.
    """
    choices, pictures = body.n or 1, body.num_images or 1
    check_count(choices * pictures, "n" if choices > 1 else "num_images", limits)
    seed = new_seed() if body.seed is None else body.seed
    changes = {
        "guidance_scale": body.guidance_scale, "image_guidance_scale": body.image_guidance_scale,
        "temperature": body.image_temperature, "top_k": body.image_top_k, "top_p": body.image_top_p,
    }  # fmt: skip
    request = ChatRequest(
        messages=messages,
        text_sampling=text_sampling(body, limits),
        image_sampling=image_sampling(changes, default),
        route=route_of(body.modalities),
        size=parse_size(body.size, sizes),
        n=pictures,
        max_images=body.max_images or 1,
        adapter=adapter,
        faithfulness=body.faithfulness or 0.0,
        **kept(body.keep_scales, [part for message in messages for part in message.images][-1:]),
    )
    return [replace(request, seed=seed + choice * pictures) for choice in range(choices)]


def route_of(modalities: Sequence[str] | None) -> Route:
    """["text"] forbids pictures, ["image"] demands one, both or nothing leaves it to the model."""
    asked = set(modalities or ())
    if asked == {"text"}:
        return "text"
    return "image" if asked == {"image"} else "auto"


def text_sampling(body: ChatBody, limits: Limits) -> TextSampling:
    """How the words are chosen: the likeliest ones, unless a temperature is given."""
    given: dict[str, Any] = {"temperature": body.temperature, "top_k": body.top_k, "top_p": body.top_p}
    for name in ("max_completion_tokens", "max_tokens"):
        tokens = getattr(body, name)
        if tokens is not None:
            if tokens > limits.tokens:
                raise invalid(f"{name} may be at most {limits.tokens} here, got {tokens}.", name)
            given.setdefault("max_new_tokens", tokens)
    return replace(TextSampling(), **{name: value for name, value in given.items() if value is not None})


def image_sampling(changes: dict[str, Any], default: ImageSampling) -> ImageSampling | None:
    """The model's own way to draw with some settings changed; None where nothing was asked."""
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(default, **given) if given else None


def kept(keep_scales: int | None, pictures: Sequence[ImagePart]) -> dict[str, Any]:
    """The fields of a request that keeps the coarse scales of a picture."""
    if not keep_scales:
        return {}
    if not pictures:
        raise invalid("keep_scales keeps scales of a picture, but there is none in the conversation.", "keep_scales")
    return {"given": pictures[0], "keep_scales": keep_scales}


# -- pictures alone ----------------------------------------------------------------------------------------------------


def picture_request(
    body: PictureBody,
    message: Message,
    adapter: tuple[str, ...],
    sizes: Sequence[tuple[int, int]] | None,
    default: ImageSampling,
    limits: Limits,
) -> ChatRequest:
    """A demand for `n` pictures, with seeds that count up; nothing is kept of the pictures in the message.

    Raises:
        ApiError: a number is beyond the limits, or a size is none of the model's.
    """
    names = ("guidance_scale", "image_guidance_scale", "temperature", "top_k", "top_p")
    check_count(body.n or 1, "n", limits)
    return ChatRequest(
        messages=(message,),
        image_sampling=image_sampling({name: getattr(body, name) for name in names}, default),
        route="image",
        size=parse_size(body.size, sizes),
        n=body.n or 1,
        seed=new_seed() if body.seed is None else body.seed,
        adapter=adapter,
    )


def edit_message(prompt: str, pictures: Sequence[ImagePart]) -> Message:
    """OpenAI's first picture is the one to be changed; the model changes the last one before it draws."""
    source, *others = pictures
    return Message("user", (*others, source, TextPart(prompt)))


def edited(request: ChatRequest, body: EditBody, source: ImagePart, region: Image.Image | None) -> ChatRequest:
    """The demand for pictures as a change of one: only in `region`, as faithfully as asked."""
    return replace(request, region=region, faithfulness=body.faithfulness or 0.0, **kept(body.keep_scales, [source]))


def variation_message(source: ImagePart) -> Message:
    return Message("user", (source, TextPart(VARIATION)))


def varied(request: ChatRequest, body: VariationBody, source: ImagePart, num_scales: int) -> ChatRequest:
    """The demand for pictures as variations of one: its coarse scales are kept, the finer ones are drawn anew.

    Half of the model's scales, if nothing else is asked: where things are, and not what they look like.
    """
    keep = num_scales // 2 if body.keep_scales is None else body.keep_scales
    return replace(request, faithfulness=body.faithfulness or 0.0, **kept(keep, [source]))


# -- values ------------------------------------------------------------------------------------------------------------


def check_count(count: int, param: str, limits: Limits) -> None:
    if count > limits.n:
        raise invalid(f"This server gives at most {limits.n} choices or pictures at once; {count} were asked.", param)


def parse_size(text: str | None, sizes: Sequence[tuple[int, int]] | None) -> tuple[int, int] | None:
    """ "64x48" (width x height) -> (48, 64); None and "auto" leave the size to the model.

    `sizes` are those of the model, (height, width), or None while nobody knows them.
    """
    if text is None or text == "auto":
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text, re.ASCII)
    if match is None:
        raise invalid(f"size is WIDTHxHEIGHT in pixels, as in 64x64, or auto; got {text!r}.", "size")
    size = int(match[2]), int(match[1])
    check_size(size, sizes)
    return size


def check_size(size: tuple[int, int] | None, sizes: Sequence[tuple[int, int]] | None) -> None:
    """Raises ApiError for a size that the model does not draw."""
    if size is not None and sizes is not None and size not in sizes:
        known = ", ".join(f"{width}x{height}" for height, width in sizes)
        raise invalid(f"This model draws no pictures of {size[1]}x{size[0]}; choose one of {known}, or auto.", "size")
