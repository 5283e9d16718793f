"""POST /v1/images/generations, /edits and /variations, and the addresses of what they drew.

All three are one turn of a conversation that must end in pictures; they differ in what the user message holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from vargpt.serving.answers import PicturesAnswer, answers_with
from vargpt.serving.conversion import edit_message, edited, picture_request, variation_message, varied
from vargpt.serving.errors import ApiError, invalid, validation_error
from vargpt.serving.protocol import EditBody, GenerationBody, PictureBody, VariationBody
from vargpt.serving.service import Picture, Service, Usage
from vargpt.serving.streams import Event, event_stream, is_shown, partial_index, unless_gone
from vargpt.serving.uploads import FILES
from vargpt.types import ChatRequest, ImagePart, ImagePreview, Message, TextPart, TurnFinished

Form = TypeVar("Form", bound=PictureBody)
IMAGES = ("image", "image[]")
ENDED = {"image_generation": "image_generation.completed", "image_edit": "image_edit.completed"}

router = APIRouter()
ANSWERS = answers_with(PicturesAnswer, is_streamed=True)


def form_body(kind: type[PictureBody], *files: str) -> dict[str, Any]:
    """What an endpoint reads from a form, for the OpenAPI description; the first of the files must be there."""
    schema = kind.model_json_schema()
    schema["properties"] |= {name: {"type": "string", "format": "binary"} for name in files}
    schema["required"] = [*schema.get("required", []), files[0]]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post("/v1/images/generations", responses=ANSWERS)
async def generate(body: GenerationBody, request: Request) -> Response:
    """Draws pictures from words."""
    job = await Job.of(request, body, Message("user", (TextPart(body.prompt),)), body.prompt)
    return await job.answer(request, "image_generation")


@router.post("/v1/images/edits", responses=ANSWERS, openapi_extra=form_body(EditBody, *IMAGES, "mask"))
async def edit(request: Request) -> Response:
    """Changes a picture, everywhere or where a mask is transparent. Multipart: image or image[], mask, prompt."""
    service: Service = request.app.state.service
    async with request.form(max_files=service.settings.limits.images + 1) as form:
        body = form_fields(form, EditBody)
        sources = await pictures(form, service)
        region = await mask(form, service, sources[0])
    job = await Job.of(request, body, edit_message(body.prompt, sources), body.prompt)
    return await job.changed(edited(job.order, body, sources[0], region)).answer(request, "image_edit")


@router.post("/v1/images/variations", responses=ANSWERS, openapi_extra=form_body(VariationBody, "image"))
async def vary(request: Request) -> Response:
    """Draws a picture again, with the same things in the same places and other details. Multipart: image."""
    service: Service = request.app.state.service
    async with request.form(max_files=1) as form:
        body = form_fields(form, VariationBody)
        (source,) = await pictures(form, service, most=1)
    job = await Job.of(request, body, variation_message(source), "a variation")
    return await job.changed(varied(job.order, body, source, service.num_scales)).answer(request, "image_edit")


@router.get(FILES + "{name}")
async def file(name: str, request: Request) -> Response:
    """A picture that was drawn a while ago."""
    service: Service = request.app.state.service
    png = service.gallery.file(name)
    if png is None:
        kept = f"pictures are kept for {service.settings.keep_seconds / 60:.0f} minutes at most"
        raise ApiError(404, f"There is no such picture, or no longer: {kept}.", code="file_not_found")
    return Response(png, media_type="image/png", headers={"cache-control": "private, max-age=60"})


@dataclass(frozen=True)
class Job:
    """One demand for pictures, from its checked fields to the response."""

    service: Service
    body: PictureBody
    order: ChatRequest
    prompt: str
    client: str
    base_url: str

    @classmethod
    async def of(cls, request: Request, body: PictureBody, message: Message, prompt: str) -> Job:
        """A job that says `message` and wants pictures.

        Raises:
            ApiError: the model is unknown, a number out of range, or the safety check refuses.
        """
        service: Service = request.app.state.service
        _, adapter = service.chosen(body.model, body.adapters)
        if body.stream and body.response_format == "url":
            raise invalid("A stream carries its pictures; response_format url goes without stream.", "response_format")
        if not prompt.strip():
            raise invalid("The prompt is empty; say what should be drawn.", "prompt")
        order = picture_request(body, message, adapter, service.sizes, service.sampling, service.settings.limits)
        await service.check((message,))
        return cls(service, body, order, prompt, request.state.client, str(request.base_url).rstrip("/"))

    def changed(self, order: ChatRequest) -> Job:
        return Job(self.service, self.body, order, self.prompt, self.client, self.base_url)

    async def answer(self, request: Request, kind: str) -> Response:
        """The pictures at once, or as events of a `kind` ("image_generation", "image_edit")."""
        if self.body.stream:
            return await event_stream(request, self.events(kind))
        return JSONResponse(await unless_gone(request, self.whole()))

    async def whole(self) -> dict[str, Any]:
        """An images response."""
        async with aclosing(self.service.events([self.order], self.client)) as events:
            async for _, event in events:
                if isinstance(event, TurnFinished):
                    return await self._response(event)
        raise AssertionError("every turn ends with TurnFinished")

    async def events(self, kind: str) -> AsyncGenerator[Event, None]:
        """The partial pictures asked for, then every picture with its share of the usage."""
        partials = self.body.partial_images or 0
        async with aclosing(self.service.events([self.order], self.client, partials > 0)) as events:
            async for _, event in events:
                if isinstance(event, ImagePreview) and is_shown(event, partials):
                    place = {"index": event.index, "partial_image_index": partial_index(event, partials)}
                    image = await self.service.preview(event.image)
                    name, size = f"{kind}.partial_image", f"{event.image.width}x{event.image.height}"
                    yield name, self._about(size) | {"type": name, "b64_json": image} | place
                elif isinstance(event, TurnFinished):
                    usage, name = await self.service.usage(self.order, event), ENDED[kind]
                    for index, part in enumerate(event.message.images):
                        picture = await self.service.picture(part, self.prompt)
                        share = usage_fields(self._share(usage, index, len(event.message.images)))
                        about = self._about(picture.size) | {"type": name, "index": index, "usage": share}
                        yield name, about | {"b64_json": picture.base64} | said(picture, event)

    async def _response(self, turn: TurnFinished) -> dict[str, Any]:
        usage = await self.service.usage(self.order, turn)
        drawn = [await self.service.picture(part, self.prompt) for part in turn.message.images]
        data = [self._content(picture) | said(picture, turn) for picture in drawn]
        about = self._about(drawn[0].size)
        return {"created": about.pop("created_at"), "data": data, "usage": usage_fields(usage)} | about

    def _content(self, picture: Picture) -> dict[str, Any]:
        if self.body.response_format == "url":
            return {"url": f"{self.base_url}{FILES}{picture.name}"}
        return {"b64_json": picture.base64}

    @staticmethod
    def _about(size: str) -> dict[str, Any]:
        fixed = {"quality": "auto", "background": "opaque", "output_format": "png"}
        return {"created_at": int(time.time()), "size": size} | fixed

    @staticmethod
    def _share(usage: Usage, index: int, count: int) -> Usage:
        """What one of several pictures took: the words belong to the first."""
        image = usage.image // count
        return Usage(usage.prompt, usage.seen, usage.text, image) if index == 0 else Usage(image=image)


def said(picture: Picture, turn: TurnFinished) -> dict[str, Any]:
    """What the model announced it would draw, and the seed that draws it again."""
    return {"revised_prompt": turn.message.text.strip() or None, "seed": picture.part.seed}


def usage_fields(usage: Usage) -> dict[str, Any]:
    """OpenAI's count."""
    output = usage.text + usage.image
    return {
        "input_tokens": usage.prompt, "output_tokens": output, "total_tokens": usage.prompt + output,
        "input_tokens_details": {"text_tokens": usage.prompt - usage.seen, "image_tokens": usage.seen},
        "output_tokens_details": {"text_tokens": usage.text, "image_tokens": usage.image},
    }  # fmt: skip


# -- forms -------------------------------------------------------------------------------------------------------------


def form_fields(form: FormData, kind: type[Form]) -> Form:
    """The fields of a form that are no files.

    Raises:
        ApiError: one is missing, unknown, or has a value that cannot be.
    """
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name not in (*IMAGES, "mask"):
            if isinstance(value, UploadFile):
                raise invalid(f"'{name}' is a file, but files are sent as image, image[] or mask.", name)
            fields.setdefault(name.removesuffix("[]"), []).append(value)
    single = {name: values if len(values) > 1 else values[0] for name, values in fields.items()}
    try:
        return kind.model_validate(single)
    except ValidationError as error:
        raise validation_error(error, tuple(kind.model_fields)) from None


async def pictures(form: FormData, service: Service, most: int | None = None) -> list[ImagePart]:
    """The pictures of a form, in order.

    Raises:
        ApiError: there is none, there are too many, or one is no picture.
    """
    given = [value for name, value in form.multi_items() if name in IMAGES]
    most = service.settings.limits.images if most is None else most
    if not given:
        raise ApiError(400, "A picture is missing: send it as the file image.", "image", "missing_required_parameter")
    if len(given) > most:
        raise invalid(f"{len(given)} pictures were sent; this takes {most}.", "image")
    return [await asyncio.to_thread(service.uploads.from_bytes, await content(one, "image"), "image") for one in given]


async def mask(form: FormData, service: Service, source: ImagePart) -> Any:
    """The mask of a form, "L" with white where the picture may change; None if there is none."""
    given = form.get("mask")
    if given is None:
        return None
    return await asyncio.to_thread(service.uploads.mask, await content(given, "mask"), source.image)


async def content(value: UploadFile | str, name: str) -> bytes:
    if isinstance(value, str):
        raise invalid(f"'{name}' must be sent as a file of multipart/form-data.", name)
    return await value.read()
