"""A model that only draws, written to disk in the form and under the names in which Infinity is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vargpt.config import InfinityConfig, InfinityTokenizerConfig
from vargpt.loading.weight_map import WeightMap
from vargpt.published.infinity import VARIANTS, InfinityVariant
from vargpt.published.infinity_weights import autoencoder_map, transformer_map
from vargpt.testing import TINY_AUTOENCODER, TINY_DECODER, tiny_t5_tokenizer, tiny_text_to_image
from vargpt.text_to_image.pipeline import TextToImage
from vargpt.types import ImageSampling

NUM_CHUNKS = 2
SAMPLING = ImageSampling(guidance_scale=3.0, temperature=0.5, top_p=0.97)


def tiny_variant(weights: str, default_size: str = "256x256") -> InfinityVariant:
    return InfinityVariant(
        weights=weights,
        beside=("vae.pth", "vae_.pth"),
        generator_config=InfinityConfig(**TINY_DECODER),
        image_tokenizer_config=InfinityTokenizerConfig(**TINY_AUTOENCODER),
        num_chunks=NUM_CHUNKS,
        default_size=default_size,
        sampling=SAMPLING,
    )


TINY_VARIANTS = {"small": tiny_variant("small.pth"), "sharded": tiny_variant("sharded_weights", "144x432")}


def publishable_model() -> TextToImage:
    """Keys of attention have no bias in published weights."""
    model = tiny_text_to_image()
    for name, parameter in model.generator.named_parameters():
        if name.endswith("key_value.bias"):
            parameter.data.chunk(2)[0].zero_()
        elif name.endswith("qkv.bias"):
            parameter.data.chunk(3)[1].zero_()
    return model


def exported(module: nn.Module, names: WeightMap) -> dict[str, Tensor]:
    return {name: value.detach().clone().contiguous() for name, value in names.export(module.named_parameters())}


def generator_weights(model: TextToImage) -> dict[str, Tensor]:
    return exported(model.generator, transformer_map(TINY_DECODER["num_layers"] // NUM_CHUNKS))


def autoencoder_weights(model: TextToImage, nested: bool = True) -> dict[str, Tensor]:
    return exported(model.image_tokenizer, autoencoder_map(5, 8, nested))


def write_small(model: TextToImage, folder: Path) -> None:
    torch.save(generator_weights(model) | {"lvl_1L": torch.zeros(3)}, folder / "small.pth")


def write_sharded(model: TextToImage, folder: Path) -> None:
    """As transformers shards: safetensors and an index."""
    weights, shards = generator_weights(model), folder / "sharded_weights"
    shards.mkdir()
    halves: list[dict[str, Tensor]] = [{}, {}]
    for number, (name, value) in enumerate(weights.items()):
        halves[number % 2][name] = value
    files = [f"model-{number + 1:05d}-of-00002.safetensors" for number in range(2)]
    for file, half in zip(files, halves, strict=True):
        save_file(half, shards / file)
    index: dict[str, Any] = {name: files[number % 2] for number, name in enumerate(weights)}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def write_autoencoder(model: TextToImage, folder: Path, nested: bool = True) -> None:
    torch.save({"vae": autoencoder_weights(model, nested), "epoch": 3}, folder / "vae.pth")


def write_text_encoder(model: TextToImage, folder: Path) -> None:
    """Under the name of the published one, where it is looked for."""
    model.conditions.text_encoder.model.save_pretrained(folder / "flan-t5-xl")
    tiny_t5_tokenizer().save_pretrained(folder / "flan-t5-xl")


def write_published(model: TextToImage, folder: Path) -> Path:
    """Everything."""
    folder.mkdir(parents=True, exist_ok=True)
    for write in (write_small, write_sharded, write_autoencoder, write_text_encoder):
        write(model, folder)
    return folder


def use_tiny_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, Infinity comes in two tiny variants."""
    for name in list(VARIANTS):
        monkeypatch.delitem(VARIANTS, name)
    for name, variant in TINY_VARIANTS.items():
        monkeypatch.setitem(VARIANTS, name, variant)
