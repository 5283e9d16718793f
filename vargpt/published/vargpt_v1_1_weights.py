"""VARGPT-v1.1's published names (arXiv 2504.02949): Qwen2-VL, Infinity's modules and the two projectors in one file."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from vargpt.config import VargptConfig
from vargpt.loading.weight_map import Constant, Rename, WeightMap
from vargpt.published.infinity_weights import (
    Shapes,
    autoencoder_fields,
    autoencoder_map,
    num_chunks,
    transformer_fields,
    transformer_map,
)


def modules_from_shapes(shapes: Shapes) -> tuple[dict[str, Any], dict[str, Any], int]:
    """(decoder fields, autoencoder fields, chunks of the decoder), read off a published checkpoint's own tensors."""
    decoder, autoencoder = (
        {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        for prefix in ("vargpt_gen.", "vae_local.")
    )
    return transformer_fields(decoder), autoencoder_fields(autoencoder), num_chunks(decoder)


def vargpt_map(config: VargptConfig, num_chunks: int = 8) -> WeightMap:
    """The whole checkpoint. The projectors' layer norms are published but never applied: they are written as ones."""
    drawing, pixels = config.generator_config, config.image_tokenizer_config
    per_chunk = drawing.num_layers // num_chunks if num_chunks > 1 else 0
    decoder = transformer_map(per_chunk).prefixed("vargpt_gen.", "generator.")
    autoencoder = autoencoder_map(len(pixels.channel_multipliers), pixels.feature_channels)
    autoencoder = autoencoder.prefixed("vae_local.", "image_tokenizer.")
    start = config.image_gen_start_token_id
    renames = (
        Rename("visual.patch_embed.proj.weight", "vision.patch_embed.proj.weight"),
        Rename("visual.blocks.{i}.norm1.{w}", "vision.blocks.{i}.norm1.{w}"),
        Rename("visual.blocks.{i}.norm2.{w}", "vision.blocks.{i}.norm2.{w}"),
        Rename("visual.blocks.{i}.attn.qkv.{w}", "vision.blocks.{i}.attn.qkv.{w}"),
        Rename("visual.blocks.{i}.attn.proj.{w}", "vision.blocks.{i}.attn.proj.{w}"),
        Rename("visual.blocks.{i}.mlp.fc1.{w}", "vision.blocks.{i}.mlp.fc1.{w}"),
        Rename("visual.blocks.{i}.mlp.fc2.{w}", "vision.blocks.{i}.mlp.fc2.{w}"),
        Rename("visual.merger.ln_q.{w}", "vision.merger.ln_q.{w}"),
        Rename("visual.merger.mlp.{i}.{w}", "vision.merger.mlp.{i}.{w}"),
        Rename("model.embed_tokens.weight", "language_model.embed_tokens.weight"),
        *(
            Rename(f"model.layers.{{i}}.self_attn.{part}.{{w}}", f"language_model.layers.{{i}}.self_attn.{part}.{{w}}")
            for part in ("q_proj", "k_proj", "v_proj", "o_proj")
        ),
        *(
            Rename(f"model.layers.{{i}}.mlp.{part}.weight", f"language_model.layers.{{i}}.mlp.{part}.weight")
            for part in ("gate_proj", "up_proj", "down_proj")
        ),
        Rename("model.layers.{i}.input_layernorm.weight", "language_model.layers.{i}.input_layernorm.weight"),
        Rename(
            "model.layers.{i}.post_attention_layernorm.weight",
            "language_model.layers.{i}.post_attention_layernorm.weight",
        ),
        Rename("model.norm.weight", "language_model.norm.weight"),
        Rename("lm_head.weight", "lm_head.weight"),
        Rename("image_gen_projector.mlp.{i}.{w}", "projector_in.{i}.{w}"),
        Rename("image_gen_projector_out.mlp.{i}.{w}", "projector_out.{i}.{w}"),
        Rename("sos_embedding.weight", "start_state", row=start),
    )
    widths = {"image_gen_projector": drawing.hidden_size, "image_gen_projector_out": config.text_config.hidden_size}
    unused = tuple(
        Constant(f"{name}.ln_q.{part}", partial(make, width))
        for name, width in widths.items()
        for part, make in (("weight", torch.ones), ("bias", torch.zeros))
    )
    mask = tuple(constant for constant in autoencoder.constants if "quantizer" in constant.theirs)
    return WeightMap(
        (*decoder.renames, *autoencoder.renames, *renames), (*unused, *mask), autoencoder.number, per_chunk
    )
