"""Every model that a name can mean: ours in our own format, and published families as they were published.

In: a local directory or a hub id (default: the nano that ships with the package). Out: a model and its processor, in
evaluation mode, on a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig

from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.config import VargptConfig
from vargpt.loading.checkpoint_files import read_shapes, weight_files
from vargpt.loading.devices import resolve_device, resolve_dtype
from vargpt.loading.hub import fetch
from vargpt.loading.models import default_model_path, load_own, read_config
from vargpt.loading.quantization import Quantization, check_quantization, offload_layers
from vargpt.published.base import Family, Published
from vargpt.published.infinity import INFINITY
from vargpt.published.vargpt_v1_1 import (
    PUBLISHED_SAMPLING,
    PUBLISHED_TYPE,
    VargptV11Config,
    config_from_published,
    load_published,
)
from vargpt.published.vargpt_v1_1_weights import modules_from_shapes
from vargpt.text_to_image.pipeline import TextToImage
from vargpt.types import ImageSampling

FAMILIES: dict[str, Family] = {family.name: family for family in (INFINITY,)}  # of models that only draw


def drawing_family(name: str | Path | None) -> Family | None:
    """The family of models that only draw which a folder or hub id belongs to."""
    return None if name is None else next((one for one in FAMILIES.values() if one.is_meant(name)), None)


def known_variants() -> str:
    """What can be drawn with without a conversation, for messages."""
    return "; ".join(f"{one.repositories[0]}, with variants {', '.join(one.variants)}" for one in FAMILIES.values())


def find_published(name: str | Path | None, variant: str | None = None) -> Published | None:
    """Which published size a name and a variant mean; None if the name is that of a chat model. Loads nothing.

    Raises:
        ValueError: there are several variants and none was chosen, there is no such variant, or a variant was asked of
            a chat model.
    """
    family = drawing_family(name)
    if family is None and (variant is None or is_chat_model(name)):
        if variant is not None:
            raise ValueError(f"{name or 'nano'} is a chat model and comes in one size; leave --variant away")
        return None
    folder = Path(str(name))
    if family is None:  # a folder that lacks the weights of the variant that was asked for, which loading will name
        family = next((one for one in FAMILIES.values() if variant in one.variants), INFINITY)
    if variant is not None and variant not in family.variants:
        raise ValueError(f"there is no variant {variant!r} of {name}; choose one of {', '.join(family.variants)}")
    present = family.variants_in(folder) if folder.is_dir() else list(family.variants)
    if variant is None and len(present) > 1:
        raise ValueError(f"{name} holds several models; choose one with --variant: {', '.join(present)}")
    return Published(str(name), variant or present[0], family)


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
    """A published model that draws from prompts, ready to draw; the rest is `Published.load`'s.

    Args:
        name: a local folder with the published files, or a hub id.
        variant: which size; may be left away where there is but one.
        device: see `Published.load`, as all that follows.
        dtype: see `Published.load`.
        text_encoder: see `Published.load`.
        vae: see `Published.load`.

    Raises:
        FileNotFoundError: something is not there; the message names it.
        ValueError: it is not clear what is meant, or files do not belong together.
    """
    found = find_published(name, variant)
    if found is None:
        raise ValueError(f"{name} holds no model that only draws; there is {known_variants()}")
    return found.load(device, dtype, text_encoder, vae)


def resolve_model(name: str | Path | None, only: Sequence[str] | None = None) -> Path:
    """A local model directory for a path, a hub id, "nano" or None (the shipped nano).

    `only` names the files (patterns) that are fetched from a hub; None = all.

    Raises:
        FileNotFoundError: no such directory, no config in it, or the hub can't be reached for it.
        ValueError: what is there can draw, but not talk.
    """
    family = drawing_family(name)
    if family is not None:
        raise ValueError(
            f"{name} draws and does nothing else; use it with: vargpt draw PROMPT --model {name} --variant NAME "
            f"(one of {', '.join(family.variants)})"
        )
    if name in (None, "", "nano"):
        path = default_model_path()
    elif Path(str(name)).exists():
        path = Path(str(name))
    else:
        instead = "give a directory with config.json and model.safetensors, or leave --model away for the shipped nano"
        path = fetch(str(name), only, instead)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path} holds no config.json, so it is no model directory")
    return path


def load(
    name: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantization: Quantization | None = None,
    offload: bool = False,
) -> tuple[VARGPT, VargptProcessor]:
    """The model and its processor, ready to answer.

    Args:
        name: a model directory or hub id, also of a published VARGPT-v1.1; None = the shipped nano.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto", "float32", "bfloat16", "float16".
        quantization: "int8" or "nf4" for the linear layers of language model and ViT (needs bitsandbytes).
        offload: keep transformer layers in main memory, fetch each when it is its turn.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: weights, config and tokenizer do not belong together; the message names what differs.
        ImportError: `quantization` without bitsandbytes.
    """
    path, where = resolve_model(name), resolve_device(device)
    check_quantization(quantization, offload)
    read = load_published if is_published(path) else load_own
    model, processor = read(path, resolve_dtype(dtype, where), torch.device("cpu") if offload else where, quantization)
    processor.check_model(model.config)
    return (offload_layers(model, where) if offload else model.to(where)).eval(), processor


def is_published(path: Path) -> bool:
    """Whether a directory holds a model under its published names (VARGPT-v1.1).

    Raises:
        ValueError: it holds another kind of model, or a damaged config.
    """
    found = read_config(path).get("model_type")
    known = (VargptConfig.model_type, VargptV11Config.model_type, PUBLISHED_TYPE)
    if found not in known:
        raise ValueError(f"{path} holds a model of type {found!r}; vargpt knows {', '.join(map(repr, known))}")
    return found == PUBLISHED_TYPE


def default_sampling(path: Path) -> ImageSampling:
    """How the pictures of the model in a directory are drawn unless asked otherwise, without loading it."""
    fields = PUBLISHED_SAMPLING if is_published(path) else read_config(path).get("image_sampling")
    return ImageSampling(**(fields or {}))


def model_config(path: Path) -> VargptConfig:
    """The config of a model directory, also of a published one, whose weights need not be there.

    Raises:
        ValueError: it is damaged, or of another kind of model.
    """
    if not is_published(path):
        return AutoConfig.from_pretrained(path)
    try:
        decoder, autoencoder, _ = modules_from_shapes(read_shapes(weight_files(path)))
    except FileNotFoundError:  # the list of the weights alone: the sizes that were published
        decoder, autoencoder = None, None
    return config_from_published(read_config(path), decoder, autoencoder)
