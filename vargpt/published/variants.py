"""Published models that only draw, every named size stated in full: what it is built of, and in which files it lies.

Source: the repository FoundationVision/Infinity, its files and the settings that its scripts and notebooks draw with
(arXiv 2412.04431). Nothing is read here but the names of files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vargpt.config import InfinityConfig, InfinityTokenizerConfig
from vargpt.types import ImageSampling

REPOSITORIES = frozenset({"foundationvision/infinity"})  # hub ids, in lower case
FLAN_T5_XL = "google/flan-t5-xl"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One published size. `weights` is a file, or a folder of shards with an index.

    `autoencoder` lists the names under which one file is known; the first that is there is taken. `num_chunks` is into
    how many chunks the published names divide the blocks. The text encoder is not in the repository.
    """

    weights: str
    autoencoder: tuple[str, ...]
    generator_config: InfinityConfig
    image_tokenizer_config: InfinityTokenizerConfig
    num_chunks: int
    default_size: str  # HEIGHTxWIDTH in pixels: what this size was trained on last
    sampling: ImageSampling
    text_encoder: str = FLAN_T5_XL

    @property
    def patterns(self) -> list[str]:
        """What of the repository must be downloaded."""
        return [self.weights, f"{self.weights}/*", *self.autoencoder]


def drawn_by(hidden_size: int, num_layers: int, num_heads: int, num_bits: int) -> InfinityConfig:
    """Infinity's transformer; what does not differ between sizes is at its defaults."""
    return InfinityConfig(
        hidden_size=hidden_size, num_layers=num_layers, num_heads=num_heads, num_bits=num_bits, code_dim=num_bits
    )


# 14 bits on cells of 8 pixels, of which 2 x 2 make a token of 56 bits.
D56 = InfinityTokenizerConfig(num_bits=56, channel_multipliers=[1, 2, 4, 4], token_patch=2)

INFINITY: dict[str, Variant] = {
    "125m": Variant(
        weights="infinity_125M_256x256.pth",
        autoencoder=("infinity_vae_d16.pth",),
        generator_config=drawn_by(hidden_size=768, num_layers=12, num_heads=8, num_bits=16),
        image_tokenizer_config=InfinityTokenizerConfig(num_bits=16),
        num_chunks=4,
        default_size="256x256",
        sampling=ImageSampling(guidance_scale=4.0, temperature=0.5, top_p=0.97),
    ),
    "2b": Variant(
        weights="infinity_2b_reg.pth",
        autoencoder=("infinity_vae_d32reg.pth", "infinity_vae_d32_reg.pth"),
        generator_config=drawn_by(hidden_size=2048, num_layers=32, num_heads=16, num_bits=32),
        image_tokenizer_config=InfinityTokenizerConfig(num_bits=32),
        num_chunks=8,
        default_size="1024x1024",
        sampling=ImageSampling(guidance_scale=3.0, temperature=0.5, top_p=0.97),
    ),
    "8b": Variant(
        weights="infinity_8b_weights",
        autoencoder=("infinity_vae_d56_f8_14_patchify.pth",),
        generator_config=drawn_by(hidden_size=3584, num_layers=40, num_heads=28, num_bits=56),
        image_tokenizer_config=D56,
        num_chunks=8,
        default_size="1024x1024",
        sampling=ImageSampling(guidance_scale=3.0, temperature=1.0, top_p=0.97),
    ),
}
INFINITY["8b-512"] = replace(INFINITY["8b"], weights="infinity_8b_512x512_weights", default_size="512x512")


def variants_in(folder: Path) -> list[str]:
    """The variants whose weights lie in a folder."""
    return [name for name, variant in INFINITY.items() if (folder / variant.weights).exists()]


def only_draws(name: str | Path | None) -> bool:
    """Whether a folder or hub id holds a model that draws and does nothing else."""
    if name is None:
        return False
    folder = Path(name)
    return bool(variants_in(folder)) if folder.is_dir() else str(name).lower() in REPOSITORIES
