"""What the users of a load run ask, and what counts as an answer.

In: a kind of request and a number. Out: the HTTP request, the same for equal numbers; and from its response what was
answered: words, pictures, a fingerprint by which equal answers are told from different ones.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw

KINDS = ("chat", "ask", "draw", "edit")
VARIANTS = 8  # different requests of every kind; users come back to them, so that answers can be compared
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
    """What one request got: pictures and text tokens, and a fingerprint of their contents."""

    pictures: int
    tokens: int
    fingerprint: str


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
    digest = hashlib.sha256()
    if call.path.startswith("/v1/images/"):
        pictures = [base64.b64decode(entry["b64_json"]) for entry in body.get("data", ())]
        if not pictures:
            raise ValueError("no picture in the answer")
        for data in pictures:
            digest.update(pixels(data))
        return Answer(len(pictures), 0, digest.hexdigest())
    choices = body.get("choices") or [{}]
    message = choices[0].get("message") or {}
    text, images = message.get("content") or "", message.get("images") or ()
    if not text and not images:
        raise ValueError("neither words nor a picture in the answer")
    digest.update(text.encode("utf-8", "replace"))
    for image in images:
        digest.update(pixels(base64.b64decode(image["image_url"]["url"].partition(",")[2])))
    tokens = int((body.get("usage") or {}).get("completion_tokens") or 0)
    return Answer(len(images), tokens, digest.hexdigest())


def pixels(data: bytes) -> bytes:
    """Size and colours of a picture, without what the file says about itself (dates and signatures differ).

    Raises:
        ValueError: no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            rgb = image.convert("RGB")
    except OSError as error:
        raise ValueError(f"a picture in the answer cannot be read: {error}") from None
    return f"{rgb.size}".encode() + rgb.tobytes()


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
