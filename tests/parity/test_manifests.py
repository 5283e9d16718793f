"""Full-size published checkpoints, key for key and shape for shape: our models on `meta` against the manifests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vargpt.config import InfinityConfig, InfinityTokenizerConfig
from vargpt.generators.infinity import InfinityGenerator
from vargpt.loading.weight_map import WeightMap
from vargpt.published.base import Published
from vargpt.published.infinity import INFINITY
from vargpt.published.infinity_weights import autoencoder_map, transformer_map
from vargpt.published.vargpt_v1_1 import VargptV11, config_from_published
from vargpt.published.vargpt_v1_1_weights import vargpt_map
from vargpt.tokenizers.bsq import InfinityTokenizer

MANIFESTS = Path(__file__).parent / "manifests"


def manifest(name: str) -> dict:
    return json.loads((MANIFESTS / f"manifest_{name}.json").read_text())


def shapes(entry: dict) -> dict[str, tuple[int, ...]]:
    keys = entry["keys"]
    pairs = keys.items() if isinstance(keys, dict) else ((item["key"], item) for item in keys)
    return {name: tuple(item["shape"]) for name, item in pairs}


def published_shapes(weight_map: WeightMap, module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weight_map.export(module.state_dict().items())}


def test_vargpt_v1_1() -> None:
    entry = manifest("vargpt_v1_1_7b_2b")
    with torch.device("meta"):
        model = VargptV11(config_from_published(entry["config"]["llm"]))
    assert published_shapes(vargpt_map(model.config), model) == shapes(entry)
    assert len(entry["keys"]) == 1706


@pytest.mark.parametrize(
    ("name", "depth", "width", "heads", "bits", "chunks"),
    [
        ("infinity_2b", 32, 2048, 16, 32, 8),
        ("infinity_8b", 40, 3584, 28, 56, 8),
        ("infinity_layer12_125m", 12, 768, 8, 32, 4),
    ],
)
def test_infinity(name, depth, width, heads, bits, chunks) -> None:
    changes = {"num_layers": depth, "hidden_size": width, "num_heads": heads, "num_bits": bits, "code_dim": bits}
    with torch.device("meta"):
        generator = InfinityGenerator(InfinityConfig(**changes))
    assert published_shapes(transformer_map(depth // chunks), generator) == shapes(manifest(name))


@pytest.mark.parametrize(
    ("variant", "transformer", "autoencoder"),
    [
        ("125m", None, "vae_d16"),  # its manifest was made with 32 bits a token, the published file has 16
        ("2b", "infinity_2b", "vae_d32"),
        ("8b", "infinity_8b", "vae_d14_patchify"),
        ("8b-512", "infinity_8b", "vae_d14_patchify"),
    ],
)
def test_the_stated_variants_are_the_published_ones(variant, transformer, autoencoder) -> None:
    config = Published("FoundationVision/Infinity", variant, INFINITY).config()
    pixels, chunks = config.image_tokenizer_config, INFINITY.variants[variant].num_chunks
    with torch.device("meta"):
        generator, tokenizer = InfinityGenerator(config.generator_config), InfinityTokenizer(pixels)
    names = autoencoder_map(len(pixels.channel_multipliers), pixels.feature_channels)
    assert published_shapes(names, tokenizer) == shapes(manifest(autoencoder))
    if transformer is not None:
        names = transformer_map(config.generator_config.num_layers // chunks)
        assert published_shapes(names, generator) == shapes(manifest(transformer))
    millions = {"125m": 125, "2b": 2205, "8b": 8376, "8b-512": 8376}
    assert round(sum(parameter.numel() for parameter in generator.parameters()) / 1e6) == millions[variant]
    for size in config.sizes:
        layout = config.layout(size)
        tokenizer.check_layout(layout)
        assert layout.position_grid is not None and layout.num_scales <= config.generator_config.max_scales
    assert len(config.sizes) == 60 and "x".join(map(str, config.sizes[0])) == INFINITY.variants[variant].default_size


@pytest.mark.parametrize(
    ("name", "bits", "multipliers"),
    [
        ("vae_d16", 16, [1, 2, 4, 4, 4]),
        ("vae_d24", 24, [1, 2, 4, 4, 4]),
        ("vae_d32", 32, [1, 2, 4, 4, 4]),
        ("vae_d64", 64, [1, 2, 4, 4, 4]),
        ("vae_d14_patchify", 14, [1, 2, 4, 4]),
    ],
)
def test_infinity_autoencoders(name, bits, multipliers) -> None:
    patch = 2 if "patchify" in name else 1
    changes = {"num_bits": bits * patch**2, "channel_multipliers": multipliers, "token_patch": patch}
    with torch.device("meta"):
        tokenizer = InfinityTokenizer(InfinityTokenizerConfig(**changes))
    assert published_shapes(autoencoder_map(len(multipliers), bits), tokenizer) == shapes(manifest(name))
