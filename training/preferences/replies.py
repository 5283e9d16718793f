"""Conversations that end with a drawn picture, as a batch that `VARGPT.sequence_log_probs` scores.

In: conversations whose last message is the assistant's. Out: ids with one slot per image token, the exact bits of the
pictures drawn in that last message (encoded from pixels where they are not known), and the pictures that were seen
before. Pictures of earlier turns are read back through the ViT and not scored.

Shape legend: B rows, T tokens, N drawn pictures, L slots, d bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from training.data import LENGTH_STEP
from vargpt.assistant.model import VARGPT
from vargpt.assistant.picture_batch import PictureBatch
from vargpt.assistant.processor import IGNORE_INDEX, VargptProcessor, pad
from vargpt.pictures.fitting import to_pixels
from vargpt.types import ImageLayout, ImagePart, ImageTokens, Message


def layout_of(parts: Sequence[ImagePart], model: VARGPT) -> ImageLayout:
    """The one layout in which pictures are scored together: that of those with tokens, else the model's default.

    Raises:
        ValueError: there are several.
    """
    layouts = {part.tokens.layout for part in parts if part.tokens is not None}
    if len(layouts) > 1:
        sizes = ", ".join(sorted(f"{layout.width}x{layout.height}" for layout in layouts))
        raise ValueError(f"pictures of {sizes} pixels cannot be scored in one batch; keep one size per batch")
    return layouts.pop() if layouts else model.config.layout()


@torch.no_grad()
def tokens_of(part: ImagePart, model: VARGPT, processor: VargptProcessor, layout: ImageLayout) -> ImageTokens:
    """The exact tokens of a picture that was drawn; those that come closest to any other."""
    if part.tokens is not None:
        return part.tokens.to(model.device)
    image = processor.fit(part.image).convert("RGB").resize((layout.width, layout.height), Image.Resampling.LANCZOS)
    return model.image_tokenizer.encode(to_pixels([image]).to(model.device), layout)


def reply_batch(
    conversations: Sequence[Sequence[Message]], model: VARGPT, processor: VargptProcessor, score_text: bool = False
) -> dict[str, Any]:
    """Keyword arguments of `sequence_log_probs`, on the model's device.

    Args:
        conversations: each ends with a message of the assistant that holds at least one picture.
        model: whose tokenizer encodes pictures without tokens.
        processor: the model's.
        score_text: whether the words of the last message are scored too (as `labels`).

    Raises:
        ValueError: a conversation ends otherwise; pictures of different sizes.
    """
    for number, messages in enumerate(conversations):
        if not messages or messages[-1].role != "assistant" or not messages[-1].images:
            raise ValueError(f"conversation {number} does not end with a picture drawn by the assistant")
    layout = layout_of([part for messages in conversations for part in messages[-1].images], model)
    encoded = []
    for messages in conversations:
        earlier = sum(len(message.images) for message in messages[:-1] if message.role == "assistant")
        slots = set(range(earlier, earlier + len(messages[-1].images)))
        row = processor.conversation_ids(messages, layout.num_tokens, cut_last_picture=True, with_slots=slots)
        before = processor.conversation_ids(messages[:-1], with_slots=())
        row.labels[: len(before.labels)] = [IGNORE_INDEX] * len(before.labels)
        encoded.append(row)
    drawn = [tokens_of(part, model, processor, layout) for row in encoded for part in row.drawn]
    batch: dict[str, Any] = {
        "input_ids": pad([row.input_ids for row in encoded], processor.special.end_of_text, multiple=LENGTH_STEP),
        "attention_mask": pad([[1] * len(row.input_ids) for row in encoded], 0, multiple=LENGTH_STEP).bool(),
    }
    if score_text:
        batch["labels"] = pad([row.labels for row in encoded], IGNORE_INDEX, multiple=LENGTH_STEP)
    batch = {name: value.to(model.device) for name, value in batch.items()}
    batch["pictures"] = PictureBatch(
        tokens=ImageTokens.from_flat(layout, torch.cat([tokens.flat() for tokens in drawn]).bool())
    )
    return batch | processor.picture_tensors([part for row in encoded for part in row.pictures], model)
