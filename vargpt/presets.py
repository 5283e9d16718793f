"""Every named size, stated in full."""

from __future__ import annotations

import copy

from vargpt.assistant.special_tokens import SpecialTokens, config_fields
from vargpt.config import NANO_SCHEDULES, VargptConfig
from vargpt.published.vargpt_v1_1 import config_from_published


def nano(special: SpecialTokens, vocab_size: int) -> VargptConfig:
    """About 9M parameters: 64 px pictures of 130 tokens of 32 bits, drawn in six steps; 64 patches to see one."""
    width = 192
    return VargptConfig(
        text_config={
            "vocab_size": vocab_size,
            "bos_token_id": special.end_of_text,
            "eos_token_id": special.im_end,
            "pad_token_id": special.end_of_text,
            "hidden_size": width,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
        },
        vision_config={
            "depth": 4,
            "embed_dim": width,
            "hidden_size": width,
            "mlp_ratio": 3,
            "num_heads": 3,
            "patch_size": 8,
            "spatial_merge_size": 1,
        },
        image_tokenizer_config={
            "num_bits": 32,
            "base_channels": 64,
            "channel_multipliers": [1, 2],
            "num_res_blocks": 1,
            "patch_size": 4,
        },
        generator_config={
            "hidden_size": width,
            "num_layers": 6,
            "num_heads": 4,
            "mlp_ratio": 4.0,
            "code_dim": 32,
            "num_bits": 32,
            "memory_size": width,
        },
        scale_schedules={"64x64": NANO_SCHEDULES["64x64"]},
        default_size="64x64",
        image_sampling={"guidance_scale": 3.0, "temperature": 0.3},
        initializer_range=0.06,  # about 1/sqrt(width); with 0.02, attention stays uniform for hours
        **config_fields(special),
    )


def vargpt_v1_1() -> VargptConfig:
    """The published VARGPT-v1.1, 10.6B parameters: Qwen2-VL-7B, Infinity-2B's decoder and its d32 autoencoder.

    The published file counts 10.9B: its start embedding has 151,664 rows, of which one is used.
    """
    return config_from_published(
        {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "initializer_range": 0.02,
            "attention_dropout": 0.0,
            "max_position_embeddings": 32768,
            "rope_scaling": {"type": "mrope", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
            "tie_word_embeddings": False,
            "bos_token_id": 151643,
            "eos_token_id": 151645,
            "pad_token_id": None,
            "vision_start_token_id": 151652,
            "vision_end_token_id": 151653,
            "image_token_id": 151655,
            "special_tokens": {
                "image_gen_start_token_id": 151657,
                "image_gen_end_token_id": 151658,
                "image_gen_pad_token_id": 151659,
            },
            "vision_config": {
                "depth": 32,
                "embed_dim": 1280,
                "hidden_size": 3584,
                "hidden_act": "quick_gelu",
                "mlp_ratio": 4,
                "num_heads": 16,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            },
        }
    )


def half_billion(nano: VargptConfig) -> VargptConfig:
    """Nano's pictures and words under a language model like Qwen2-0.5B and a generator of 0.27 B."""
    config = copy.deepcopy(nano)
    text, drawing = config.text_config, config.generator_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 896, 4864, 24
    text.layer_types = ["full_attention"] * text.num_hidden_layers
    text.num_attention_heads, text.num_key_value_heads = 14, 2
    config.vision_config.hidden_size = drawing.memory_size = 896
    drawing.hidden_size, drawing.num_layers, drawing.num_heads = 1024, 16, 16
    return config
