"""Infinity (arXiv 2412.04431) as it was published: every size stated in full, and loading one.

Source: the repository FoundationVision/Infinity, its files and the settings that its scripts and notebooks draw with.
Tensors are read one at a time; missing or unknown ones are an error that names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from vargpt.config import InfinityConfig, InfinityTokenizerConfig, on_largest_grid, scheduled_layout
from vargpt.generators.infinity import InfinityGenerator
from vargpt.generators.schedules import infinity_schedules
from vargpt.loading.checkpoint_files import load_weights, read_tensors, weight_files
from vargpt.loading.devices import resolve_device, resolve_dtype
from vargpt.published.base import Family, Published, Variant
from vargpt.published.infinity_weights import autoencoder_map, transformer_map
from vargpt.text_to_image.pipeline import TextToImage, TextToImageConfig
from vargpt.text_to_image.text_encoder import load_text_encoder
from vargpt.tokenizers.bsq import InfinityTokenizer
from vargpt.types import ImageLayout, ImageSampling

FLAN_T5_XL = "google/flan-t5-xl"
# Buffers that older training code saved with the transformer; masks and counters, no weights.
BUFFERS = frozenset({"lvl_1L", "attn_bias_for_masking", "Infinity_visible_kvlen", "Infinity_invisible_qlen"})
NESTED = "encoder.conv_in.conv.weight"  # in autoencoder files that call every convolution "conv"


@dataclass(frozen=True, kw_only=True)
class InfinityVariant(Variant):
    """One size. `beside` lists the names under which the autoencoder's file is known; the first that is there is taken.

    `num_chunks` is into how many chunks the published names divide the blocks. The text encoder is not in the
    repository.
    """

    generator_config: InfinityConfig
    image_tokenizer_config: InfinityTokenizerConfig
    num_chunks: int
    text_encoder: str = FLAN_T5_XL


def drawn_by(hidden_size: int, num_layers: int, num_heads: int, num_bits: int) -> InfinityConfig:
    """Infinity's transformer; what does not differ between sizes is at its defaults."""
    return InfinityConfig(
        hidden_size=hidden_size, num_layers=num_layers, num_heads=num_heads, num_bits=num_bits, code_dim=num_bits
    )


# 14 bits on cells of 8 pixels, of which 2 x 2 make a token of 56 bits.
D56 = InfinityTokenizerConfig(num_bits=56, channel_multipliers=[1, 2, 4, 4], token_patch=2)

VARIANTS: dict[str, InfinityVariant] = {
    "125m": InfinityVariant(
        weights="infinity_125M_256x256.pth",
        beside=("infinity_vae_d16.pth",),
        generator_config=drawn_by(hidden_size=768, num_layers=12, num_heads=8, num_bits=16),
        image_tokenizer_config=InfinityTokenizerConfig(num_bits=16),
        num_chunks=4,
        default_size="256x256",
        sampling=ImageSampling(guidance_scale=4.0, temperature=0.5, top_p=0.97),
    ),
    "2b": InfinityVariant(
        weights="infinity_2b_reg.pth",
        beside=("infinity_vae_d32reg.pth", "infinity_vae_d32_reg.pth"),
        generator_config=drawn_by(hidden_size=2048, num_layers=32, num_heads=16, num_bits=32),
        image_tokenizer_config=InfinityTokenizerConfig(num_bits=32),
        num_chunks=8,
        default_size="1024x1024",
        sampling=ImageSampling(guidance_scale=3.0, temperature=0.5, top_p=0.97),
    ),
    "8b": InfinityVariant(
        weights="infinity_8b_weights",
        beside=("infinity_vae_d56_f8_14_patchify.pth",),
        generator_config=drawn_by(hidden_size=3584, num_layers=40, num_heads=28, num_bits=56),
        image_tokenizer_config=D56,
        num_chunks=8,
        default_size="1024x1024",
        sampling=ImageSampling(guidance_scale=3.0, temperature=1.0, top_p=0.97),
    ),
}
VARIANTS["8b-512"] = replace(VARIANTS["8b"], weights="infinity_8b_512x512_weights", default_size="512x512")


def infinity_layouts() -> dict[str, ImageLayout]:
    """Every size that Infinity draws, by "HEIGHTxWIDTH" in pixels, with the grid that positions are rounded onto."""
    schedules = infinity_schedules()
    return {size: on_largest_grid(scheduled_layout(schedules, size), schedules) for size in schedules}


class InfinityFamily(Family[InfinityVariant]):
    name: ClassVar[str] = "Infinity"
    repositories: ClassVar[tuple[str, ...]] = ("FoundationVision/Infinity",)
    variants: Mapping[str, InfinityVariant] = VARIANTS

    def config(self, variant: InfinityVariant) -> TextToImageConfig:
        return TextToImageConfig(
            generator_config=variant.generator_config,
            image_tokenizer_config=variant.image_tokenizer_config,
            layouts=infinity_layouts(),
            default_size=variant.default_size,
            sampling=variant.sampling,
        )

    def load(
        self, found: Published, device: str, dtype: str, text_encoder: str | Path | None, vae: str | Path | None
    ) -> TextToImage:
        """In half precision the text encoder runs in float16, as published."""
        where = resolve_device(device)
        kind, variant, folder = resolve_dtype(dtype, where), self.variants[found.variant_name], found.folder()
        pixels = self.autoencoder_file(folder, found, vae)  # what is missing shows before anything large is read
        half = kind != torch.float32 and where.type != "cpu"
        encoder = load_text_encoder(text_encoder or beside(folder, variant), where, torch.float16 if half else kind)
        tokenizer = load_autoencoder(variant.image_tokenizer_config, pixels, where, kind)
        weights = folder / variant.weights
        generator = load_generator(variant.generator_config, weights, variant.num_chunks, where, kind)
        return TextToImage(self.config(variant), encoder, generator, tokenizer)

    def files(self, found: Published, vae: str | Path | None) -> list[Path]:
        folder = found.folder()
        return [*weight_files(folder / found.variant.weights), self.autoencoder_file(folder, found, vae)]

    def autoencoder_file(self, folder: Path, found: Published, vae: str | Path | None) -> Path:
        """The autoencoder's file.

        Raises:
            FileNotFoundError: it is not there.
        """
        if vae is not None:
            if not Path(vae).is_file():
                raise FileNotFoundError(f"there is no file {vae}, which --vae names")
            return Path(vae)
        here = [folder / file for file in found.variant.beside if (folder / file).is_file()]
        if not here:
            raise FileNotFoundError(
                f"{folder} lacks {found.variant.beside[0]}, the autoencoder of variant {found.variant_name}; "
                "download it too, or name the file with --vae"
            )
        return here[0]


INFINITY = InfinityFamily()


def load_generator(
    config: InfinityConfig, weights: Path, num_chunks: int, device: torch.device | str, dtype: torch.dtype
) -> InfinityGenerator:
    """The transformer from a file, or from a folder of shards, whose names divide the blocks into `num_chunks`.

    Raises:
        ValueError: the weights are not those of this config; the message names what differs.
    """
    with torch.device("meta"):
        generator = InfinityGenerator(config)
    tensors = (pair for pair in read_tensors(weight_files(weights)) if pair[0] not in BUFFERS)
    names = transformer_map(config.num_layers // num_chunks if num_chunks > 1 else 0)
    load_weights(generator, names, tensors, dtype, device)
    return generator.eval().requires_grad_(False)


def load_autoencoder(
    config: InfinityTokenizerConfig, file: Path, device: torch.device | str, dtype: torch.dtype
) -> InfinityTokenizer:
    """The image tokenizer from its file, in either of the two namings that are around.

    Raises:
        ValueError: the weights are not those of this config; the message names what differs.
    """
    with torch.device("meta"):
        tokenizer = InfinityTokenizer(config)
    nested = any(name == NESTED for name, _ in read_tensors([file]))
    names = autoencoder_map(len(config.channel_multipliers), config.feature_channels, nested)
    load_weights(tokenizer, names, read_tensors([file]), dtype, device)
    return tokenizer.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def beside(folder: Path, variant: InfinityVariant) -> str | Path:
    """The text encoder in a folder of its name beside the weights, else the hub id."""
    local = folder / variant.text_encoder.rpartition("/")[2]
    return local if local.is_dir() else variant.text_encoder
