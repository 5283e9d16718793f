"""A conversation played from a file, without a person: for tests, demonstrations and documentation.

In: turns.jsonl, one user message per line. Out: events.jsonl, one chat event per line, with the pictures as PNG files.
The last event of a turn holds the whole reply with its exact tokens, as a document of the archive in `messages/`.

    {"text": "draw a fox", "seed": 7}
    {"text": "how many animals are there?", "images": ["other.png"], "route": "text"}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vargpt.chat.engine import ChatEngine
from vargpt.pictures.album import save_picture
from vargpt.pictures.archive import Archive
from vargpt.pictures.files import open_picture
from vargpt.types import (
    ChatEvent,
    ChatRequest,
    ImageFinished,
    ImagePreview,
    ImageStarted,
    Message,
    TextDelta,
    TurnFinished,
)

EVENTS = "events.jsonl"
MESSAGES = "messages"
FIELDS = {"text": str, "images": list, "route": str, "seed": int, "n": int}


def read_script(path: Path) -> list[dict[str, Any]]:
    """The turns of a script, checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no JSON object with known fields; the message names file and line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    turns = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            turn = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
        problem = _problem(turn)
        if problem:
            raise ValueError(f"{path}, line {number}: {problem}")
        turns.append(turn | {"line": number})
    if not turns:
        raise ValueError(f'{path} holds no turn; write one per line, as in {{"text": "draw a fox"}}')
    return turns


def play(engine: ChatEngine, script: Path, out: Path, template: ChatRequest) -> Iterator[ChatEvent]:
    """Plays a script and writes `events.jsonl` and PNG files into `out`; yields every event on the way.

    Pictures named in the script are looked up beside it. A turn without a seed has the template's.

    Raises:
        FileNotFoundError: the script, or a picture named in it, does not exist.
        ValueError: a line of the script cannot be played; the message names it.
    """
    turns = read_script(script)
    (out / MESSAGES).mkdir(parents=True, exist_ok=True)
    messages: tuple[Message, ...] = ()
    with (out / EVENTS).open("w", encoding="utf-8") as log:
        for number, turn in enumerate(turns, start=1):
            try:
                prompt = _message(turn, script.parent)
                changes = {name: turn[name] for name in ("route", "seed", "n") if name in turn}
                request = replace(template, messages=(*messages, prompt), **changes)
                for event in engine.stream(request):
                    entry = {"turn": number} | describe(event, number, prompt.text, engine, out)
                    log.write(json.dumps(entry, ensure_ascii=False) + "\n")
                    log.flush()
                    yield event
                    if isinstance(event, TurnFinished):
                        messages = (*request.messages, event.message)
            except ValueError as error:
                raise ValueError(f"{script}, line {turn['line']}: {error}") from error


def describe(event: ChatEvent, turn: int, prompt: str, engine: ChatEngine, out: Path) -> dict[str, Any]:
    """One event as JSON; its picture is saved into `out` and appears by its file name."""
    if isinstance(event, TextDelta):
        return {"event": "text_delta", "text": event.text}
    if isinstance(event, ImageStarted):
        layout = event.layout
        size = {"width": layout.width, "height": layout.height, "scales": layout.num_scales}
        return {"event": "image_started", "index": event.index} | size
    if isinstance(event, ImagePreview):
        name = f"turn-{turn}-picture-{event.index + 1}-scale-{event.step}.png"
        event.image.save(out / name)
        progress = {"step": event.step, "total": event.total}
        return {"event": "image_preview", "index": event.index, "file": name} | progress
    if isinstance(event, ImageFinished):
        path = save_picture(out / f"turn-{turn}-picture-{event.index + 1}.png", event.part, prompt, engine)
        made = {"seed": event.part.seed, "settings": event.part.settings}
        return {"event": "image_finished", "index": event.index, "file": path.name} | made
    message = event.message
    ending = {"reason": event.reason, "num_text_tokens": event.num_text_tokens}
    said = {"text": message.text, "num_images": len(message.images), "message": Archive(out / MESSAGES).write(message)}
    return {"event": "turn_finished"} | said | ending


def _problem(turn: Any) -> str | None:
    if not isinstance(turn, dict):
        return f"a turn is a JSON object, got {turn!r}"
    unknown = sorted(turn.keys() - FIELDS.keys())
    if unknown:
        return f"unknown fields {unknown}; known are {sorted(FIELDS)}"
    for name, value in turn.items():
        if not isinstance(value, FIELDS[name]) or isinstance(value, bool):
            return f"{name} must be of type {FIELDS[name].__name__}, got {value!r}"
    if not all(isinstance(image, str) for image in turn.get("images", [])):
        return "images must be a list of paths"
    return None


def _message(turn: dict[str, Any], folder: Path) -> Message:
    pictures = [open_picture(folder / name) for name in turn.get("images", [])]
    return Message.of("user", *pictures, turn.get("text", ""))
