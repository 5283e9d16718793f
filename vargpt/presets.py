"""Every named size, stated in full."""

from __future__ import annotations

from vargpt.config import NANO_SCHEDULES, VargptConfig
from vargpt.processing import SpecialTokens
from vargpt.processing.special_tokens import config_fields


def nano(special: SpecialTokens, vocab_size: int) -> VargptConfig:
    """About 8M parameters: 64 px pictures of 130 tokens of 32 bits, drawn in six steps; 64 patches to see one."""
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
            "linear_path": True,
            "encoder_kernel_size": 1,
            "norm_groups": 0,
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
        vision_norm=True,
        image_sampling={"guidance_scale": 3.0, "temperature": 0.3},
        initializer_range=0.06,  # about 1/sqrt(width); with 0.02, attention stays uniform for hours
        **config_fields(special),
    )
