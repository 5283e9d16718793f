"""Models that only draw, from the files they were published in: what is there, which size of it, and loading that.

In: a local folder or a hub id, and the name of a variant (`weight_maps/variants.py`). Out: a `TextToImage` with real
weights on a device. Tensors are read one at a time; missing or unknown ones are an error that names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vargpt.config import InfinityConfig, InfinityTokenizerConfig, on_largest_grid, scheduled_layout
from vargpt.generators.infinity import InfinityGenerator
from vargpt.generators.schedules import infinity_schedules
from vargpt.loading.checkpoint_files import load_weights, read_tensors, weight_files
from vargpt.loading.devices import resolve_device, resolve_dtype
from vargpt.loading.hub import fetch, files_hash
from vargpt.published.infinity_weights import autoencoder_map, transformer_map
from vargpt.published.variants import INFINITY, Variant, only_draws, variants_in
from vargpt.text_to_image.pipeline import TextToImage, TextToImageConfig
from vargpt.text_to_image.text_encoder import load_text_encoder
from vargpt.tokenizers.bsq import InfinityTokenizer
from vargpt.types import ImageLayout

# Buffers that older training code saved with the transformer; masks and counters, no weights.
BUFFERS = frozenset({"lvl_1L", "attn_bias_for_masking", "Infinity_visible_kvlen", "Infinity_invisible_qlen"})
NESTED = "encoder.conv_in.conv.weight"  # in autoencoder files that call every convolution "conv"


def infinity_layouts() -> dict[str, ImageLayout]:
    """Every size that Infinity draws, by "HEIGHTxWIDTH" in pixels, with the grid that positions are rounded onto."""
    schedules = infinity_schedules()
    return {size: on_largest_grid(scheduled_layout(schedules, size), schedules) for size in schedules}


@dataclass(frozen=True)
class Published:
    """One size of a model that only draws: where it is, and which it is."""

    name: str  # as it was asked for: a folder or a hub id
    variant_name: str

    @property
    def variant(self) -> Variant:
        return INFINITY[self.variant_name]

    @property
    def is_local(self) -> bool:
        return Path(self.name).is_dir()

    @property
    def model_name(self) -> str:
        """For people: file metadata."""
        return f"{Path(self.name).resolve().name if self.is_local else self.name} {self.variant_name}"

    def config(self) -> TextToImageConfig:
        """Of what the weights are to be loaded into."""
        variant = self.variant
        return TextToImageConfig(
            generator_config=variant.generator_config,
            image_tokenizer_config=variant.image_tokenizer_config,
            layouts=infinity_layouts(),
            default_size=variant.default_size,
            sampling=variant.sampling,
        )

    def folder(self) -> Path:
        """Where the files are; from the hub, those of this variant are fetched first.

        Raises:
            FileNotFoundError: the hub does not give them out, or the folder lacks the weights.
        """
        folder = Path(self.name)
        if not self.is_local:
            instead = f"give a folder that holds {self.variant.weights} and {self.variant.autoencoder[0]}"
            folder = fetch(self.name, self.variant.patterns, instead)
        if not (folder / self.variant.weights).exists():
            here = ", ".join(variants_in(folder)) or "none"
            raise FileNotFoundError(
                f"{folder} lacks {self.variant.weights}, which variant {self.variant_name} is made of "
                f"(variants that are there: {here}); download it too, or choose another variant"
            )
        return folder


def find_published(name: str | Path | None, variant: str | None = None) -> Published | None:
    """Which published size a name and a variant mean; None if the name is that of a chat model. Loads nothing.

    Raises:
        ValueError: there are several variants and none was chosen, there is no such variant, or a variant was asked of
            a chat model.
    """
    if not only_draws(name) and (variant is None or is_chat_model(name)):
        if variant is not None:
            raise ValueError(f"{name or 'nano'} is a chat model and comes in one size; leave --variant away")
        return None
    folder = Path(str(name))
    if variant is not None and variant not in INFINITY:
        raise ValueError(f"there is no variant {variant!r} of {name}; choose one of {', '.join(INFINITY)}")
    present = variants_in(folder) if folder.is_dir() else list(INFINITY)
    if variant is None and len(present) > 1:
        raise ValueError(f"{name} holds several models; choose one with --variant: {', '.join(present)}")
    return Published(str(name), variant or present[0])


def is_chat_model(name: str | Path | None) -> bool:
    """The shipped nano, or a folder with a config, which published models that only draw do without."""
    return name in (None, "", "nano") or (Path(str(name)) / "config.json").is_file()


def load_text_to_image(
    name: str | Path,
    variant: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    text_encoder: str | Path | None = None,
    vae: str | Path | None = None,
) -> TextToImage:
    """A published model that draws from prompts, ready to draw.

    Args:
        name: a local folder with the published files, or a hub id.
        variant: which size; may be left away where there is but one.
        device: auto, cpu, cuda, cuda:1 ... or mps.
        dtype: auto, float32, bfloat16 or float16. In half precision the text encoder runs in float16, as published.
        text_encoder: folder or hub id of a T5; None = a folder of its name beside the weights, else its hub id.
        vae: file of the autoencoder; None = the one that belongs to the variant, from the same place.

    Raises:
        FileNotFoundError: something is not there; the message names it.
        ValueError: it is not clear what is meant, or files do not belong together.
    """
    found = find_published(name, variant)
    if found is None:
        raise ValueError(
            f"{name} holds no model that only draws; one such is FoundationVision/Infinity, with variants "
            f"{', '.join(INFINITY)}"
        )
    where = resolve_device(device)
    kind = resolve_dtype(dtype, where)
    folder = found.folder()
    pixels = autoencoder_file(folder, found, vae)  # what is missing shows before anything large is read
    half = kind != torch.float32 and where.type != "cpu"
    encoder = load_text_encoder(text_encoder or beside(folder, found.variant), where, torch.float16 if half else kind)
    config = found.config()
    tokenizer = load_autoencoder(config.image_tokenizer_config, pixels, where, kind)
    weights, chunks = folder / found.variant.weights, found.variant.num_chunks
    generator = load_generator(config.generator_config, weights, chunks, where, kind)
    return TextToImage(config, encoder, generator, tokenizer)


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


def beside(folder: Path, variant: Variant) -> str | Path:
    """The text encoder in a folder of its name beside the weights, else the hub id."""
    local = folder / variant.text_encoder.rpartition("/")[2]
    return local if local.is_dir() else variant.text_encoder


def autoencoder_file(folder: Path, found: Published, vae: str | Path | None) -> Path:
    """The autoencoder's file.

    Raises:
        FileNotFoundError: it is not there.
    """
    if vae is not None:
        if not Path(vae).is_file():
            raise FileNotFoundError(f"there is no file {vae}, which --vae names")
        return Path(vae)
    here = [folder / file for file in found.variant.autoencoder if (folder / file).is_file()]
    if not here:
        raise FileNotFoundError(
            f"{folder} lacks {found.variant.autoencoder[0]}, the autoencoder of variant {found.variant_name}; "
            "download it too, or name the file with --vae"
        )
    return here[0]


def fingerprint(found: Published, vae: str | Path | None = None) -> str:
    """What a picture says it was drawn by (see `files_hash`)."""
    folder = found.folder()
    return files_hash([*weight_files(folder / found.variant.weights), autoencoder_file(folder, found, vae)])
