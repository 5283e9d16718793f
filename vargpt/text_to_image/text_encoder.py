"""Prompts into states to be drawn from: the encoder of a T5 with its own text tokenizer (Infinity: FLAN-T5-XL).

In: strings. Out: one state per text token, right-padded, and a mask. As in Infinity's published code (arXiv 2412.04431,
section 3.1): at most 512 tokens, the end token kept, states of real tokens alone are ever attended. Divergence: padded
to the longest prompt of the batch instead of to 512, which changes nothing that is not masked.

Shape legend: N prompts, S tokens of the longest one, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel

logger = logging.getLogger(__name__)

MAX_TOKENS = 512


@dataclass(frozen=True)
class TextStates:
    """What a text encoder says of N prompts."""

    states: Float[Tensor, "N S D"]
    mask: Bool[Tensor, "N S"]  # True at real tokens; these come first in every row


class TextEncoder(nn.Module):
    """A T5 encoder that takes plain strings.

    Args:
        model: in evaluation mode from here on.
        tokenizer: the model's.
        max_tokens: what of a longer prompt is left out, with a warning; the end token counts and stays.
    """

    def __init__(self, model: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @property
    def width(self) -> int:
        """Channels of a state."""
        return int(self.model.config.d_model)

    @torch.no_grad()
    def forward(self, prompts: Sequence[str]) -> TextStates:
        """The states of the prompts, float32 as published whatever the weights are.

        Raises:
            ValueError: there is no prompt.
        """
        if not prompts:
            raise ValueError("there is no prompt to read; give at least one")
        lengths = [len(ids) for ids in self.tokenizer(list(prompts), verbose=False)["input_ids"]]
        if max(lengths) > self.max_tokens:
            logger.warning("a prompt of %d tokens is cut off after %d", max(lengths), self.max_tokens)
        tokens = self.tokenizer(
            list(prompts),
            padding="longest",
            padding_side="right",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        device = self.model.device
        ids, mask = tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
        return TextStates(self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float(), mask.bool())


def load_text_encoder(
    name: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> TextEncoder:
    """The encoder half of a T5 from a folder in the form of transformers, or by its hub id.

    Raises:
        FileNotFoundError: there is no such folder, or the hub does not give it out.
        ValueError: it is not a T5, or the weights are not whole.
    """
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise FileNotFoundError(f"{name} holds no config.json, so it is no text encoder; name one with --text-encoder")
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type != "t5":
            raise ValueError(
                f"the text encoder {name} is a {config.model_type}, but a T5 is needed; name one such as "
                "google/flan-t5-xl with --text-encoder"
            )
        tokenizer = AutoTokenizer.from_pretrained(name)
        model, info = T5EncoderModel.from_pretrained(name, dtype=dtype, output_loading_info=True)
    except OSError as error:
        raise FileNotFoundError(
            f"the text encoder {str(name)!r} is neither a local folder with config, tokenizer and weights nor a model "
            f"that the hub gives out now ({error}); download it, and name its folder with --text-encoder"
        ) from error
    wrong = {key: sorted(map(str, info[key])) for key in ("missing_keys", "mismatched_keys") if info.get(key)}
    if wrong:
        raise ValueError(f"the weights of the text encoder {name} are not whole: {wrong}; download them again")
    return TextEncoder(model.to(device), tokenizer)
