"""Tiny models with random weights: complete, quick, and the same on every machine. Shipped, used by every test."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, T5Tokenizer

from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor, square_image_processor
from vargpt.assistant.special_tokens import SpecialTokens, config_fields
from vargpt.assistant.text_tokenizer import train_text_tokenizer
from vargpt.config import InfinityConfig, InfinityTokenizerConfig, VargptConfig
from vargpt.generators.infinity import InfinityGenerator
from vargpt.published.infinity import infinity_layouts
from vargpt.text_to_image.pipeline import TextToImage, TextToImageConfig
from vargpt.text_to_image.text_encoder import TextEncoder
from vargpt.tokenizers.bsq import InfinityTokenizer
from vargpt.types import ImageSampling

TEXTS = (
    "draw a fox next to a pine tree at night",
    "how many animals are there? There are two animals.",
    "replace the fox with a cat, please",
    "A small red car on the left and a pine tree on the right.",
)
TINY_SCHEDULES = {
    "16x16": [[1, 1], [2, 2]],
    "32x32": [[1, 1], [2, 2], [4, 4]],
    "16x32": [[1, 1], [1, 2], [2, 4]],
}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 tokens."""
    return train_text_tokenizer(TEXTS * 4, vocab_size=300)


def tiny_config(special: SpecialTokens | None = None, **overrides: Any) -> VargptConfig:
    """All organs at the smallest useful size: pictures of 16x16, 32x32 (default) or 16x32 pixels, 8 bits a token."""
    special = special or SpecialTokens.of(tiny_tokenizer())
    fields: dict[str, Any] = {
        "text_config": {
            "vocab_size": 300,
            "bos_token_id": special.end_of_text,
            "eos_token_id": special.im_end,
            "pad_token_id": None,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        },
        "vision_config": {
            "depth": 2,
            "embed_dim": 16,
            "hidden_size": 32,
            "mlp_ratio": 2,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
        },
        "image_tokenizer_config": {
            "num_bits": 8,
            "base_channels": 8,
            "channel_multipliers": [1, 1, 2, 2],
            "num_res_blocks": 1,
        },
        "generator_config": {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "code_dim": 8,
            "num_bits": 8,
            "memory_size": 24,
        },
        "scale_schedules": {name: list(schedule) for name, schedule in TINY_SCHEDULES.items()},
        "default_size": "32x32",
        **config_fields(special),
    }
    return VargptConfig(**(fields | overrides))


def tiny_model(seed: int = 0, **overrides: Any) -> VARGPT:
    """Random weights, evaluation mode; equal seeds give equal weights. The global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VARGPT(tiny_config(**overrides))
        for parameter in model.parameters():  # biases and gates too: nothing may hide behind a zero
            parameter.data += torch.randn_like(parameter) * 0.05
    return model.eval()


def tiny_processor(max_context: int = 1024) -> VargptProcessor:
    """Fits `tiny_model`: every input picture is seen on a square of 32 pixels."""
    return VargptProcessor(square_image_processor(32), tiny_tokenizer(), fixed_size=32, max_context=max_context)


# -- models that only draw ---------------------------------------------------------------------------------------------

TINY_DECODER = {
    "hidden_size": 64,
    "num_layers": 4,
    "num_heads": 4,
    "code_dim": 8,
    "num_bits": 8,
    "memory_size": 32,
    "null_length": 40,
}
TINY_AUTOENCODER = {
    "num_bits": 8,
    "base_channels": 8,
    "channel_multipliers": [1, 1, 1, 2, 2],
    "num_res_blocks": 1,
    "norm_groups": 4,
}


def tiny_t5_tokenizer() -> T5Tokenizer:
    """Whole words of `TEXTS`, and letters for all others."""
    words = sorted({f"\u2581{word}" for text in TEXTS for word in text.lower().split()})
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz0123456789.,?!-"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((word, -4.0) for word in words)]
    known = {piece for piece, _ in pieces}
    pieces += [(letter, -8.0) for letter in letters if letter not in known]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def tiny_text_encoder(seed: int = 0, width: int = 32) -> TextEncoder:
    """A T5 of two layers with random weights."""
    tokenizer = tiny_t5_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TextEncoder(T5EncoderModel(config), tokenizer)


def tiny_text_to_image(seed: int = 0) -> TextToImage:
    """Infinity's form at the smallest useful size: random weights, every published size of picture, 8 bits a token."""
    config = TextToImageConfig(
        generator_config=InfinityConfig(**TINY_DECODER),
        image_tokenizer_config=InfinityTokenizerConfig(**TINY_AUTOENCODER),
        layouts=infinity_layouts(),
        default_size="256x256",
        sampling=ImageSampling(guidance_scale=3.0, temperature=0.5, top_p=0.97),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = InfinityGenerator(config.generator_config)
        tokenizer = InfinityTokenizer(config.image_tokenizer_config)
        for parameter in (*generator.parameters(), *tokenizer.parameters()):
            parameter.data += torch.randn_like(parameter) * 0.05
    return TextToImage(config, tiny_text_encoder(seed), generator, tokenizer)
