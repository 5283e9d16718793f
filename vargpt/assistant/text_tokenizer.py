"""A byte-level BPE of our own: any text is representable, nothing is ever unknown.

In: an iterator over texts. Out: a transformers tokenizer with the control tokens of `special_tokens`.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vargpt.assistant.special_tokens import NAMES

# Letters, digits one by one, everything else; a leading space belongs to the word.
SPLIT = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def train_text_tokenizer(texts: Iterable[str], vocab_size: int, min_frequency: int = 2) -> PreTrainedTokenizerFast:
    """Learns merges from `texts`; `vocab_size` counts the 256 bytes and the control tokens.

    Raises:
        ValueError: the vocabulary has no room for bytes and control tokens.
    """
    if vocab_size < 256 + len(NAMES):
        raise ValueError(f"vocab_size must be at least {256 + len(NAMES)} (bytes and control tokens), got {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(NAMES.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=NAMES["im_end"],
        pad_token=NAMES["end_of_text"],
        additional_special_tokens=[name for key, name in NAMES.items() if key not in ("im_end", "end_of_text")],
        clean_up_tokenization_spaces=False,
    )
