r"""Messages to tensors: ChatML, placeholders for pictures, the loss mask; and pixels back to pictures.

In: conversations (lists of `Message`). Out: token ids with placeholders; patches, grids and latents of the input
pictures; labels for training. User text is encoded piece by piece with control tokens split, so that no text can
inject them.

    <|im_start|>user\n  <|vision_start|>[image]*64<|vision_end|>text <|im_end|>\n
    <|im_start|>assistant\n  text <|image_gen_start|> [slots] <|image_gen_end|>
                                   <|vision_start|>[image]*64<|vision_end|> <|im_end|>\n

Slots exist in training only; a drawn picture of an earlier turn is read through the ViT like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, ProcessorMixin
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vargpt.assistant.special_tokens import SpecialTokens, config_fields
from vargpt.config import VargptConfig
from vargpt.pictures.fitting import Box, fitted, on_paper, place_on, to_pixels
from vargpt.tokenizers.base import to_pictures
from vargpt.types import ImageLayout, ImagePart, Message, TextPart

if TYPE_CHECKING:
    from vargpt.assistant.model import VARGPT

IGNORE_INDEX = -100


class ContextFullError(ValueError):
    """The conversation is longer than the model's context; drop the oldest pictures or start a new one."""


@dataclass
class EncodedConversation:
    """One conversation as ids. `pictures` are the input pictures in order, `drawn` the pictures that have slots."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    pictures: list[ImagePart] = field(default_factory=list)
    drawn: list[ImagePart] = field(default_factory=list)

    def add(self, ids: Sequence[int], learn: bool = False) -> None:
        self.input_ids.extend(ids)
        self.labels.extend(ids if learn else [IGNORE_INDEX] * len(ids))


class VargptProcessor(ProcessorMixin):
    """Tokenizer and image processor of one model.

    Args:
        image_processor: Qwen2-VL's (Pillow back end).
        tokenizer: one with the control tokens of `SpecialTokens`.
        chat_template: Jinja template (only for `apply_chat_template`; `encode` builds ids itself).
        fixed_size: side in pixels of the square on which every input picture is fitted (nano), or None to keep sizes.
        max_context: tokens a conversation may have, the reply included.
    """

    attributes = ["image_processor", "tokenizer"]

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        fixed_size: int | None = None,
        max_context: int = 2048,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)
        self.fixed_size = fixed_size
        self.max_context = max_context
        self.special = SpecialTokens.of(tokenizer)
        self.image_token, self.image_token_id = "<|image_pad|>", self.special.image

    # -- text ------------------------------------------------------------------------------------------------------

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text; what looks like a control token is spelled out, never obeyed.

        Halves of characters (lone surrogates, which JSON can carry) are no text and become question marks.
        """
        text = text.encode("utf-8", "replace").decode("utf-8")
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def _header(self, role: str) -> list[int]:
        return [self.special.im_start, *self.text_ids(f"{role}\n")]

    def conversation_ids(
        self,
        messages: Sequence[Message],
        num_slots: int = 0,
        reply: bool = False,
        cut_last_picture: bool = False,
        with_slots: Collection[int] | None = None,
        text_only: bool = False,
    ) -> EncodedConversation:
        """One conversation as ids and labels.

        Args:
            messages: in order; system messages may stand anywhere.
            num_slots: tokens per drawn picture (training); 0 leaves the slots out (inference).
            reply: end with the header of an assistant message, to be answered.
            cut_last_picture: end a training row right after the slots of a closing drawn picture.
            with_slots: which of the drawn pictures (0, 1 ...) get slots; None = all. The others are only read back.
            text_only: leave out what pictures take (placeholders and slots): language alone, for its own training.
        """
        special, encoded, opened = self.special, EncodedConversation(), 0
        for number, message in enumerate(messages):
            encoded.add(self._header(message.role))
            learn = message.role == "assistant"
            for index, part in enumerate(message.parts):
                if isinstance(part, TextPart):
                    encoded.add(self.text_ids(part.text), learn)
                    continue
                if learn:
                    encoded.add([special.gen_start], learn=True)
                    if not text_only and (with_slots is None or opened in with_slots):
                        encoded.add([special.gen_pad] * num_slots)
                        encoded.drawn.append(part)
                    opened += 1
                    closing = number == len(messages) - 1 and index == len(message.parts) - 1
                    if cut_last_picture and closing:
                        return encoded
                    encoded.add([special.gen_end])
                if text_only:
                    continue
                encoded.add([special.vision_start, *[special.image] * self.placeholders(part), special.vision_end])
                encoded.pictures.append(part)
            encoded.add([special.im_end], learn)
            encoded.add(self.text_ids("\n"))
        if reply:
            encoded.add(self._header("assistant"))
        return encoded

    # -- pictures --------------------------------------------------------------------------------------------------

    def fit(self, image: Image.Image) -> Image.Image:
        """The picture as the ViT will see it: on a square of paper if the model has one size, else unchanged."""
        if self.fixed_size is None:
            return image
        return fitted(on_paper(image), (self.fixed_size, self.fixed_size))

    def page(self, image: Image.Image, layout: ImageLayout) -> Image.Image:
        """The picture as a page of this layout holds it, in the layout's pixels: what its tokens are made of."""
        size = (layout.width, layout.height)
        if self.fixed_size is None:
            return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
        return fitted(on_paper(image), size)

    def place(self, image: Image.Image, layout: ImageLayout) -> Box:
        """Where on its page (`page`) the picture lies: all of it, or what is left between two bands of paper."""
        size = (layout.width, layout.height)
        return (0, 0, *size) if self.fixed_size is None else place_on(image.size, size)

    def placeholders(self, part: ImagePart) -> int:
        """How many merged patches, that is placeholders, a picture takes."""
        unit = self.image_processor.patch_size * self.image_processor.merge_size
        if self.fixed_size is not None:
            return (self.fixed_size // unit) ** 2
        grid = self.image_processor(images=[part.image], return_tensors="pt")["image_grid_thw"]
        return int(grid.prod()) // self.image_processor.merge_size**2

    def picture_tensors(self, parts: Sequence[ImagePart], model: VARGPT) -> dict[str, Tensor]:
        """Patches, grids and (for edits) unrounded latents of input pictures, on the model's device."""
        if not parts:
            return {}
        images = [self.fit(part.image) for part in parts]
        features = self.image_processor(images=images, return_tensors="pt")
        tensors = {name: features[name].to(model.device) for name in ("pixel_values", "image_grid_thw")}
        size = (model.config.layout().width, model.config.layout().height)
        pixels = to_pixels([self.fit(part.image).resize(size, Image.Resampling.LANCZOS) for part in parts])
        sources = model.edit_sources(pixels.to(model.device))
        return tensors if sources is None else tensors | {"image_latents": sources}

    def to_pil(self, pixel_values: Tensor) -> list[Image.Image]:
        """Pixels "N 3 H W" in [-1, 1] as pictures. Inverse: `to_pixels`."""
        return to_pictures(pixel_values)

    # -- whole batches ---------------------------------------------------------------------------------------------

    def encode(self, conversations: Sequence[Sequence[Message]], model: VARGPT) -> dict[str, Tensor]:
        """Conversations waiting for a reply, left-padded, as keyword arguments of `model.extend(None, ...)`.

        Raises:
            ContextFullError: a conversation leaves no room for a reply.
            ValueError: a conversation does not end with something said by a user.
        """
        return self.tensors_of([self.waiting_ids(messages) for messages in conversations], model)

    def waiting_ids(self, messages: Sequence[Message]) -> EncodedConversation:
        """One conversation waiting for a reply; errors as for `encode`."""
        if not messages or messages[-1].role != "user":
            raise ValueError("a conversation to be answered ends with a user message")
        if not messages[-1].text.strip() and not messages[-1].images:
            raise ValueError("the message is empty; write something or attach a picture")
        encoded = self.conversation_ids(messages, reply=True)
        if len(encoded.input_ids) >= self.max_context:
            raise ContextFullError(
                f"the conversation takes {len(encoded.input_ids)} tokens and the model reads at most "
                f"{self.max_context}, reply included; drop its oldest pictures or turns, or start a new conversation"
            )
        return encoded

    def tensors_of(self, encoded: Sequence[EncodedConversation], model: VARGPT) -> dict[str, Tensor]:
        """Conversations as ids, left-padded, as keyword arguments of `model.extend`."""
        batch = pad([one.input_ids for one in encoded], self.special.end_of_text, left=True)
        mask = pad([[1] * len(one.input_ids) for one in encoded], 0, left=True).bool()
        tensors = {"input_ids": batch.to(model.device), "attention_mask": mask.to(model.device)}
        return tensors | self.picture_tensors([part for one in encoded for part in one.pictures], model)

    def after(self, encoded: EncodedConversation, length: int) -> EncodedConversation:
        """What of a conversation follows its first `length` ids, which must not end inside a picture."""
        done = encoded.input_ids[:length].count(self.special.vision_start)
        return EncodedConversation(encoded.input_ids[length:], encoded.labels[length:], encoded.pictures[done:])

    def encode_drawn(self, parts: Sequence[ImagePart | None], model: VARGPT) -> dict[str, Tensor]:
        """What follows a drawn picture, row by row, for `model.extend(state, ...)`; None = nothing for this row."""
        special = self.special
        rows = [[] if part is None else self.drawn_ids(part) for part in parts]
        tensors = {
            "input_ids": pad(rows, special.end_of_text).to(model.device),
            "attention_mask": pad([[1] * len(row) for row in rows], 0).bool().to(model.device),
        }
        return tensors | self.picture_tensors([part for part in parts if part is not None], model)

    def drawn_ids(self, part: ImagePart) -> list[int]:
        """What follows a drawn picture: its end, and the places at which it is read back."""
        special = self.special
        return [special.gen_end, special.vision_start, *[special.image] * self.placeholders(part), special.vision_end]

    def check_model(self, config: VargptConfig) -> None:
        """Raises ValueError where the tokenizer is not the one the model was built with: control tokens, vocabulary."""
        # bos, eos and pad are left out: a config may list several, or none
        ours = {
            name: token
            for name, token in config_fields(self.special).items()
            if name[:4] not in ("bos_", "eos_", "pad_")
        }
        wrong = {name: (token, getattr(config, name)) for name, token in ours.items() if token != getattr(config, name)}
        if wrong:
            raise ValueError(f"tokenizer and model disagree on control tokens (tokenizer, model): {wrong}")
        known = config.text_config.vocab_size
        if len(self.tokenizer) > known:
            raise ValueError(
                f"the tokenizer has {len(self.tokenizer)} tokens and the model knows {known}; "
                "load the tokenizer that was saved with the model"
            )


def pad(rows: Sequence[Sequence[int]], value: int, left: bool = False, multiple: int = 1) -> Tensor:
    """Rows of ids as one long tensor "B T", T a multiple of `multiple`."""
    length = max((len(row) for row in rows), default=0)
    length += -length % multiple
    padded = [
        [value] * (length - len(row)) + list(row) if left else [*row, *[value] * (length - len(row))] for row in rows
    ]
    return torch.tensor(padded, dtype=torch.long).reshape(len(rows), length)


def square_image_processor(side: int, patch_size: int = 4, merge_size: int = 2) -> Qwen2VLImageProcessorPil:
    """Qwen2-VL's image processor for squares of one size; its normalisation maps pixels to [-1, 1]."""
    return Qwen2VLImageProcessorPil(
        patch_size=patch_size,
        merge_size=merge_size,
        size={"shortest_edge": side * side, "longest_edge": side * side},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


AutoProcessor.register(VargptConfig, VargptProcessor)
