"""What the users of a load run ask, what counts as an answer, and when two answers are the same.

In: a kind of request and a number. Out: the HTTP request, the same for equal numbers; and from its response the words
and pictures that were answered.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageChops, ImageDraw

KINDS = ("chat", "ask", "draw", "edit")
VARIANTS = 8  # different requests of every kind; users come back to them, so that answers can be compared
ROUNDING = 2  # of 255
THINGS = ("fox", "red car", "pine tree", "blue house", "cat", "yellow boat", "green apple", "owl")
CHATS = (
    "hello, who are you?", "what can you do?", "what can you draw?", "thank you, that was nice",
    "good morning!", "tell me about yourself", "how do you make pictures?", "goodbye",
)  # fmt: skip
QUESTIONS = ("what is in the picture?", "which colour is the square?", "how many things are there?", "is it night?")


@dataclass(frozen=True)
class Call:
    """One HTTP request: a path, and either a JSON body or a form with files."""

    kind: str
    number: int
    path: str
    body: dict[str, Any] = field(default_factory=dict)
    files: dict[str, tuple[str, bytes, str]] | None = None

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of an HTTP client's `post`."""
        if self.files is None:
            return {"json": self.body}
        return {"data": {key: str(value) for key, value in self.body.items()}, "files": self.files}


@dataclass(frozen=True)
class Answer:
    """What one request got."""

    text: str
    pictures: tuple[Image.Image, ...]
    tokens: int = 0  # that the server counts as said and drawn in a chat

    def is_like(self, other: Answer) -> bool:
        """Whether words and pictures are the same; colours may differ by `ROUNDING`, as sums in other batches do."""
        if self.text != other.text or len(self.pictures) != len(other.pictures):
            return False
        return all(_alike(mine, theirs) for mine, theirs in zip(self.pictures, other.pictures, strict=True))


def call(kind: str, number: int, model: str, seed: int = 0) -> Call:
    """Request `number` of a kind; numbers wrap around after `VARIANTS`.

    Raises:
        ValueError: there is no such kind.
    """
    number %= VARIANTS
    common = {"model": model, "seed": seed + number}
    thing = THINGS[number]
    if kind == "draw":
        return Call(kind, number, "/v1/images/generations", {**common, "prompt": f"draw a {thing}", "n": 1})
    if kind == "edit":
        files = {"image": ("picture.png", png(picture(number)), "image/png")}
        return Call(kind, number, "/v1/images/edits", {**common, "prompt": f"add a {thing}", "n": 1}, files)
    if kind == "chat":
        content: Any = CHATS[number]
    elif kind == "ask":
        address = f"data:image/png;base64,{base64.b64encode(png(picture(number))).decode()}"
        content = [
            {"type": "image_url", "image_url": {"url": address}},
            {"type": "text", "text": QUESTIONS[number % len(QUESTIONS)]},
        ]
    else:
        raise ValueError(f"requests are of the kinds {', '.join(KINDS)}, not {kind!r}")
    body = {**common, "messages": [{"role": "user", "content": content}], "max_tokens": 64, "modalities": ["text"]}
    return Call(kind, number, "/v1/chat/completions", body)


def answer(call: Call, body: Mapping[str, Any]) -> Answer:
    """What a successful response holds.

    Raises:
        ValueError: it is no answer to this request: no words, no picture, or one that cannot be read.
    """
    if call.path.startswith("/v1/images/"):
        drawn = tuple(opened(entry["b64_json"]) for entry in body.get("data", ()))
        if not drawn:
            raise ValueError("no picture in the answer")
        return Answer("", drawn)
    message = (body.get("choices") or [{}])[0].get("message") or {}
    text, images = message.get("content") or "", message.get("images") or ()
    if not text and not images:
        raise ValueError("neither words nor a picture in the answer")
    tokens = int((body.get("usage") or {}).get("completion_tokens") or 0)
    return Answer(text, tuple(opened(one["image_url"]["url"].partition(",")[2]) for one in images), tokens)


def opened(encoded: str) -> Image.Image:
    """A picture from base64.

    Raises:
        ValueError: it is none.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            return image.convert("RGB")
    except OSError as error:
        raise ValueError(f"a picture in the answer cannot be read: {error}") from None


def _alike(one: Image.Image, other: Image.Image) -> bool:
    if one.size != other.size:
        return False
    too_far = ImageChops.difference(one, other).point([int(value > ROUNDING) * 255 for value in range(256)] * 3)
    return too_far.getbbox() is None


def picture(number: int) -> Image.Image:
    """A page to look at and to change: a square on the ground, another colour and place for every number."""
    image = Image.new("RGB", (64, 64), (160, 205, 240))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 44, 63, 63), fill=(110, 170, 90))
    left, colour = 6 + 5 * (number % VARIANTS), ((210, 40, 40), (40, 60, 200), (240, 200, 40), (130, 60, 160))
    draw.rectangle((left, 28, left + 18, 50), fill=colour[number % len(colour)])
    return image


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
