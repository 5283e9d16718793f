"""The control tokens of a conversation, by the names that Qwen2-VL and VARGPT-v1.1 published."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMES = {
    "end_of_text": "<|endoftext|>",
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
    "image": "<|image_pad|>",
    "gen_start": "<|image_gen_start|>",
    "gen_end": "<|image_gen_end|>",
    "gen_pad": "<|image_gen_pad|>",
}


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the control tokens in one tokenizer."""

    end_of_text: int
    im_start: int
    im_end: int
    vision_start: int
    vision_end: int
    image: int
    gen_start: int
    gen_end: int
    gen_pad: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
        """Looks the ids up.

        Raises:
            ValueError: the tokenizer lacks some of the tokens; the message names them.
        """
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in NAMES.values() if token not in vocabulary]
        if missing:
            raise ValueError(f"the tokenizer lacks the control tokens {missing}; add them with add_special_tokens")
        return cls(**{name: vocabulary[token] for name, token in NAMES.items()})

    @property
    def all(self) -> frozenset[int]:
        return frozenset(getattr(self, field.name) for field in fields(self))

    @property
    def never_sampled(self) -> frozenset[int]:
        """Tokens that only the processor writes; the model may answer with text, `gen_start` and `im_end` alone."""
        return self.all - {self.gen_start, self.im_end}


def config_fields(special: SpecialTokens) -> dict[str, int]:
    """The fields of `VargptConfig` that name control tokens."""
    return {
        "vision_start_token_id": special.vision_start,
        "vision_end_token_id": special.vision_end,
        "image_token_id": special.image,
        "image_gen_start_token_id": special.gen_start,
        "image_gen_end_token_id": special.gen_end,
        "image_gen_pad_token_id": special.gen_pad,
        "bos_token_id": special.end_of_text,
        "eos_token_id": special.im_end,
        "pad_token_id": special.end_of_text,
    }
