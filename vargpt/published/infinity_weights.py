"""Infinity's published names (arXiv 2412.04431): the bitwise autoencoder and the next-scale transformer.

Some published autoencoder files leave the inner `conv` and `norm` out ("conv1.weight"): `UNNESTED` reads those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vargpt.loading.weight_map import Constant, Rename, WeightMap

BLOCK = (
    ("norm1.norm", "norm1"),
    ("norm2.norm", "norm2"),
    ("conv1.conv", "conv1"),
    ("conv2.conv", "conv2"),
    ("nin_shortcut.conv", "shortcut"),
)
ENDS = (("conv_in.conv", "conv_in"), ("norm_out.norm", "norm_out"), ("conv_out.conv", "conv_out"))


def blocks(theirs: str, ours: str) -> list[Rename]:
    return [Rename(f"{theirs}.{a}.{{w}}", f"{ours}.{b}.{{w}}") for a, b in BLOCK]


def bit_weights(num_bits: int) -> Tensor:
    """The powers of two by which the published quantizer makes an integer of its bits (wrapping at 64 bits)."""
    return 2 ** torch.arange(num_bits - 1, -1, -1)


def autoencoder_map(num_levels: int, num_bits: int, nested: bool = True) -> WeightMap:
    """Names of the published autoencoder of `num_levels` resolutions; its decoder counts levels fine to coarse."""
    renames = []
    for side, level in (("encoder", "down"), ("decoder", "up")):
        # i counts alike in the encoder; j is translated by `number`
        index = "i" if side == "encoder" else "j"
        renames += [Rename(f"{side}.{a}.{{w}}", f"{side}.{b}.{{w}}") for a, b in ENDS]
        renames += blocks(f"{side}.{level}.{{{index}}}.block.{{k}}", f"{side}.levels.{{{index}}}.blocks.{{k}}")
        resample = "downsample" if side == "encoder" else "upsample"
        renames.append(
            Rename(
                f"{side}.{level}.{{{index}}}.{resample}.conv.conv.{{w}}",
                f"{side}.levels.{{{index}}}.resample.conv.{{w}}",
            )
        )
        for number in (1, 2):
            renames += blocks(f"{side}.mid.block_{number}", f"{side}.middle.block{number}")
    if not nested:
        renames = [Rename(unnested(rename.theirs), rename.ours) for rename in renames]
    mask = partial(bit_weights, num_bits)
    constants = (Constant("quantizer.lfq.mask", mask), Constant("quantize.lfq.mask", mask))
    return WeightMap(tuple(renames), constants, {"j": lambda level: num_levels - 1 - level})


def unnested(name: str) -> str:
    """ "conv1.conv.weight" as "conv1.weight"."""
    return name.replace(".conv.{w}", ".{w}").replace(".norm.{w}", ".{w}")


def transformer_map(blocks_per_chunk: int = 0) -> WeightMap:
    """Names of the published transformer; its blocks stand in chunks unless there is but one."""
    block, ours = ("chunked.{i}" if blocks_per_chunk else "blocks.{i}"), "blocks.{i}"
    renames = [
        Rename("cfg_uncond", "null_memory"),
        Rename("pos_start", "start", leading=2),
        Rename("text_norm.weight", "memory_norm.weight"),
        Rename("text_proj_for_sos.ca.mat_q", "pool.query", leading=1),
        Rename("text_proj_for_sos.ca.mat_kv.weight", "pool.key_value.weight"),
        Rename("text_proj_for_sos.ca.zero_k_bias", "pool.key_value.bias", 0, 2, zero=True),
        Rename("text_proj_for_sos.ca.v_bias", "pool.key_value.bias", 1, 2),
        Rename("text_proj_for_sos.ca.proj.{w}", "pool.proj.{w}"),
        Rename("text_proj_for_ca.{k}.{w}", "memory_proj.{k}.{w}"),
        Rename("lvl_embed.weight", "level_embed.weight"),
        Rename("word_embed.{w}", "code_embed.{w}"),
        Rename("shared_ada_lin.1.{w}", "shared_modulation.1.{w}"),
        Rename("head_nm.ada_lin.1.{w}", "head_modulation.1.{w}"),
        Rename("head.{w}", "head.{w}"),
        Rename(f"{block}.ada_gss", f"{ours}.modulation", leading=2),
        Rename(f"{block}.sa.scale_mul_1H11", f"{ours}.attention.log_scale", leading=1),
        Rename(f"{block}.sa.q_bias", f"{ours}.attention.qkv.bias", 0, 3),
        Rename(f"{block}.sa.zero_k_bias", f"{ours}.attention.qkv.bias", 1, 3, zero=True),
        Rename(f"{block}.sa.v_bias", f"{ours}.attention.qkv.bias", 2, 3),
        Rename(f"{block}.sa.mat_qkv.weight", f"{ours}.attention.qkv.weight"),
        Rename(f"{block}.sa.proj.{{w}}", f"{ours}.attention.proj.{{w}}"),
        Rename(f"{block}.ca.mat_q.{{w}}", f"{ours}.cross_attention.query.{{w}}"),
        Rename(f"{block}.ca.mat_kv.weight", f"{ours}.cross_attention.key_value.weight"),
        Rename(f"{block}.ca.zero_k_bias", f"{ours}.cross_attention.key_value.bias", 0, 2, zero=True),
        Rename(f"{block}.ca.v_bias", f"{ours}.cross_attention.key_value.bias", 1, 2),
        Rename(f"{block}.ca.proj.{{w}}", f"{ours}.cross_attention.proj.{{w}}"),
        Rename(f"{block}.ca_norm.{{w}}", f"{ours}.norm_cross.{{w}}"),
        Rename(f"{block}.ffn.fc1.{{w}}", f"{ours}.mlp.0.{{w}}"),
        Rename(f"{block}.ffn.fc2.{{w}}", f"{ours}.mlp.2.{{w}}"),
    ]
    return WeightMap(tuple(renames), blocks_per_chunk=blocks_per_chunk)


Shapes = Mapping[str, Sequence[int]]  # of the tensors of a checkpoint, by their published names


def transformer_fields(shapes: Shapes) -> dict[str, Any]:
    """The sizes in `InfinityConfig` that a published transformer's own tensors tell.

    Raises:
        ValueError: a tensor that tells one of them is missing; the message names it.
    """
    try:
        width, code_dim = shapes["word_embed.weight"]
        null_length, memory_size = shapes["cfg_uncond"]
        blocks = sorted(name.removesuffix(".ada_gss") for name in shapes if name.endswith(".ada_gss"))
        inner, _ = shapes[f"{blocks[0]}.ffn.fc1.weight"]
        return {
            "hidden_size": width,
            "num_layers": len(blocks),
            "num_heads": shapes[f"{blocks[0]}.sa.scale_mul_1H11"][1],
            "mlp_ratio": inner / width,
            "code_dim": code_dim,
            "num_bits": shapes["head.weight"][0] // 2,
            "memory_size": memory_size,
            "max_scales": shapes["lvl_embed.weight"][0],
            "null_length": null_length,
        }
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"these are not the weights of a published next-scale transformer: {error} is missing"
        ) from None


def num_chunks(shapes: Shapes) -> int:
    """In how many chunks the blocks of a published transformer stand; 1 = not in chunks."""
    return len({name.split(".")[1] for name in shapes if name.startswith("block_chunks.")}) or 1


def autoencoder_fields(shapes: Shapes) -> dict[str, Any]:
    """The sizes in `InfinityTokenizerConfig` that a published autoencoder's own tensors tell, nested or not.

    Raises:
        ValueError: a tensor that tells one of them is missing; the message names it.
    """
    nested = {name.replace(".conv.", ".").replace(".norm.", "."): shape for name, shape in shapes.items()}
    blocks = [name.split(".") for name in nested if name.startswith("encoder.down.") and name.endswith("conv1.weight")]
    try:
        base = nested["encoder.conv_in.weight"][0]
        levels = 1 + max(int(parts[2]) for parts in blocks)
        widths = [nested[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)]
        return {
            "num_bits": nested["encoder.conv_out.weight"][0],
            "base_channels": base,
            "channel_multipliers": [width // base for width in widths],
            "num_res_blocks": 1 + max(int(parts[4]) for parts in blocks if parts[2] == "0"),
        }
    except (KeyError, ValueError) as error:
        raise ValueError(f"these are not the weights of a published autoencoder: {error} is missing") from None
