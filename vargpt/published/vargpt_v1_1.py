"""VARGPT-v1.1's published names (arXiv 2504.02949): Qwen2-VL, Infinity's organs and the two projectors in one file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.assistant.special_tokens import NAMES as CONTROL_TOKEN_NAMES
from vargpt.config import VargptConfig
from vargpt.generators.schedules import infinity_schedules
from vargpt.loading.checkpoint_files import empty_weights, load_weights, read_shapes, read_tensors, weight_files
from vargpt.loading.models import read_config
from vargpt.loading.quantization import Quantization, quantize_parameter
from vargpt.loading.weight_map import Constant, Rename, WeightMap
from vargpt.published.infinity_weights import (
    Shapes,
    autoencoder_fields,
    autoencoder_map,
    num_chunks,
    transformer_fields,
    transformer_map,
)

# What the checkpoints of VARGPT-v1.1 are built of besides Qwen2-VL: Infinity-2B's transformer and its d32 autoencoder.
PUBLISHED_DECODER: dict[str, Any] = {
    "conditioning": "pooled",
    "memory_projection": False,
    "hidden_size": 2048,
    "num_layers": 32,
    "num_heads": 16,
    "mlp_ratio": 4.0,
    "code_dim": 32,
    "num_bits": 32,
    "memory_size": 2048,
    "null_length": 512,
    "slot_projection": False,
    "corner_positions": True,
    "input_residual": False,
    "source_memory": False,
    "cross_qk_norm": False,
    "absolute_positions": False,
}
PUBLISHED_AUTOENCODER: dict[str, Any] = {
    "num_bits": 32,
    "base_channels": 128,
    "channel_multipliers": [1, 2, 4, 4, 4],
    "num_res_blocks": 2,
    "norm_groups": 32,
}
PUBLISHED_SAMPLING: dict[str, Any] = {"guidance_scale": 3.0, "temperature": 0.5, "top_p": 0.97}
PUBLISHED_TYPE = "vargpt_qwen2_vl"
CONTROL_TOKENS = tuple(CONTROL_TOKEN_NAMES.values())
TOKEN_IDS = (
    "vision_start_token_id", "vision_end_token_id", "image_token_id", "image_gen_start_token_id",
    "image_gen_end_token_id", "image_gen_pad_token_id",
)  # fmt: skip
TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act", "initializer_range",
    "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings",
)  # fmt: skip
VISION_FIELDS = (
    "depth", "embed_dim", "hidden_size", "hidden_act", "mlp_ratio", "num_heads", "patch_size", "spatial_merge_size",
    "temporal_patch_size",
)  # fmt: skip


def config_from_published(
    published: Mapping[str, Any],
    decoder: Mapping[str, Any] | None = None,
    autoencoder: Mapping[str, Any] | None = None,
    faithful: bool = True,
) -> VargptConfig:
    """Our config for a published config.json (model_type "vargpt_qwen2_vl").

    Args:
        published: the parsed file. Multimodal rotary positions are understood in both spellings.
        decoder: what differs from `PUBLISHED_DECODER`.
        autoencoder: what differs from `PUBLISHED_AUTOENCODER`.
        faithful: switch the published behaviours on that our own models do without (docs/parity.md).

    Raises:
        ValueError: something that the model cannot do without is missing; the message names it.
    """
    ids = {**published, **published.get("special_tokens", {})}
    rope = dict(published.get("rope_scaling") or published.get("rope_parameters") or {})
    missing = [name for name in ("vision_config", *TEXT_FIELDS[:6]) if name not in published]
    if missing or "mrope_section" not in rope:
        raise ValueError(f"config.json lacks {', '.join(missing or ['rope_scaling.mrope_section'])}: is it VARGPT's?")
    text = {name: published[name] for name in TEXT_FIELDS if name in published}
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": rope.get("rope_theta", published.get("rope_theta", 1e6)),
        "mrope_section": rope["mrope_section"],
    }
    return VargptConfig(
        text_config=text,
        vision_config={name: published["vision_config"][name] for name in VISION_FIELDS
                       if name in published["vision_config"]},
        image_tokenizer_config={**PUBLISHED_AUTOENCODER, **(autoencoder or {})},
        generator_config={**PUBLISHED_DECODER, **(decoder or {})},
        scale_schedules=infinity_schedules(),
        default_size="512x512",
        image_sampling=dict(PUBLISHED_SAMPLING),
        inner_projectors=True,
        slots_by_length=faithful,
        null_forgets_scales=faithful,
        trains_as_published=faithful,
        tie_word_embeddings=bool(published.get("tie_word_embeddings", False)),
        **{name: ids[name] for name in TOKEN_IDS if name in ids},
    )  # fmt: skip


def organs_from_shapes(shapes: Shapes) -> tuple[dict[str, Any], dict[str, Any], int]:
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


def load_published(
    path: Path, dtype: torch.dtype, device: torch.device, quantization: Quantization | None
) -> tuple[VARGPT, VargptProcessor]:
    """A published repository."""
    model = read_published_model(path, dtype, device, quantization)
    return model, published_processor(path, model.config)


def read_published_model(
    path: Path, dtype: torch.dtype, device: torch.device, quantization: Quantization | None = None
) -> VARGPT:
    """The model of a published repository, tensor by tensor: in memory are the model and one tensor more.

    The sizes of decoder and autoencoder, which the published config leaves to code, are read off the weights.

    Raises:
        FileNotFoundError: weights are missing.
        ValueError: weights and config do not belong together; the message names what differs.
    """
    files = weight_files(path)
    decoder, autoencoder, chunks = organs_from_shapes(read_shapes(files))
    config = config_from_published(read_config(path), decoder, autoencoder)
    with empty_weights():
        model = VARGPT(config)

    def on_complete(name: str) -> None:
        if quantization is not None:
            quantize_parameter(model, name, quantization)

    load_weights(model, vargpt_map(config, chunks), read_tensors(files), dtype, device, on_complete)
    return model


def published_processor(path: Path, config: VargptConfig) -> VargptProcessor:
    """Tokenizer and image processor of a published repository, as ours; control tokens that it lacks are appended.

    Raises:
        FileNotFoundError: the repository holds no tokenizer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{path} holds no tokenizer that can be read ({error}); "
            "download tokenizer.json and tokenizer_config.json too"
        ) from error
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in CONTROL_TOKENS if token not in vocabulary]
    tokenizer.add_tokens(missing, special_tokens=True)
    vision = config.vision_config
    if (path / "preprocessor_config.json").is_file():
        pictures = Qwen2VLImageProcessorPil.from_pretrained(path)
    else:
        pictures = Qwen2VLImageProcessorPil(patch_size=vision.patch_size, merge_size=vision.spatial_merge_size)
    template = (Path(__file__).parents[1] / "assistant" / "chat_template.jinja").read_text(encoding="utf-8")
    return VargptProcessor(
        pictures, tokenizer, chat_template=template, max_context=config.text_config.max_position_embeddings
    )
