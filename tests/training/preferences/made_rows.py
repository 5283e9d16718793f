"""Conversations with pictures to prefer, for the tiny model."""

from __future__ import annotations

import torch

from tests.assistant.test_model import picture
from vargpt.assistant.model import VARGPT
from vargpt.pictures.preference_rows import Preference
from vargpt.types import ImagePart, ImageTokens, Message


def drawn(model: VARGPT, seed: int, size: tuple[int, int] | None = None, bit: bool | None = None) -> ImagePart:
    """A picture with random tokens, or with all bits alike."""
    layout = model.config.layout(size)
    bits = torch.rand(1, layout.num_tokens, 8, generator=torch.Generator().manual_seed(seed)) > 0.5
    tokens = ImageTokens.from_flat(layout, bits if bit is None else torch.full_like(bits, bit))
    return ImagePart(picture(seed, (layout.width, layout.height)), tokens, seed, {"temperature": 0.5})


def preference(model: VARGPT, seed: int, **drawing: object) -> Preference:
    """An edit in even rows, a drawing in odd ones."""
    prompt = Message.of("user", picture(seed), "replace it") if seed % 2 == 0 else Message.of("user", "draw a fox")
    chosen, rejected = drawn(model, 2 * seed, **drawing), drawn(model, 2 * seed + 1, **drawing)
    return Preference(
        (prompt,),
        Message.of("assistant", "A fox.", chosen),
        Message.of("assistant", "A fox.", rejected),
        (1.0, 0.25),
    )
