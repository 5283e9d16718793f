"""A tiny model that says what a test wants: real weights and caches, but the next id follows from the last one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.chat.engine import ChatEngine
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import ChatEvent, ChatRequest, ImageSampling, Message, TextDelta, TextSampling

CERTAIN = 1e4


def force(model: VARGPT, following: Mapping[int, int]) -> VARGPT:
    """After the id `a` comes `following[a]`, for certain; after any other id the weights decide."""
    extend = model.extend

    def forced(state: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **more: Any) -> Any:
        after = extend(state, input_ids, attention_mask, **more)
        logits = after.logits.clone()
        for row, (ids, mask) in enumerate(zip(input_ids.tolist(), attention_mask.tolist(), strict=True)):
            real = [token_id for token_id, is_real in zip(ids, mask, strict=True) if is_real]
            if real and real[-1] in following:
                logits[row, following[real[-1]]] = CERTAIN
        return replace(after, logits=logits)

    model.extend = forced  # type: ignore[method-assign]
    return model


def drawing_engine(before: str = "ok", after: str = "!", **model: Any) -> ChatEngine:
    """Says `before`, draws, says `after` and stops; all characters must differ. Everything else is real."""
    processor = tiny_processor()
    special = processor.special
    script = [ord_of(processor, "\n"), *ids_of(processor, before), special.gen_start]
    closing = [special.vision_end, *ids_of(processor, after), special.im_end]
    following = dict(zip(script, script[1:], strict=False)) | dict(zip(closing, closing[1:], strict=False))
    return ChatEngine(force(tiny_model(**model), following), processor, "tiny", "0123abcd")


def ids_of(processor: VargptProcessor, text: str) -> list[int]:
    return [ord_of(processor, character) for character in text]


def ord_of(processor: VargptProcessor, character: str) -> int:
    (token_id,) = processor.text_ids(character)
    return token_id


def ask(*parts: Any, history: tuple[Message, ...] = (), **fields: Any) -> ChatRequest:
    """A greedy request of a few tokens."""
    fields = {
        "text_sampling": TextSampling(max_new_tokens=8),
        "image_sampling": ImageSampling(temperature=0.0),
    } | fields
    return ChatRequest(messages=(*history, Message.of("user", *(parts or ("draw a fox",)))), **fields)


def text_of(events: list[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def red_square(side: int = 40) -> Image.Image:
    return Image.new("RGB", (side, side), (220, 20, 20))
