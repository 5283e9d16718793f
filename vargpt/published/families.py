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
from vargpt.published.vargpt_v1_1 import (
    PUBLISHED_SAMPLING,
    PUBLISHED_TYPE,
    VargptV11Config,
    config_from_published,
    load_published,
)
from vargpt.published.vargpt_v1_1_weights import modules_from_shapes
from vargpt.published.variants import INFINITY, only_draws
from vargpt.types import ImageSampling


def resolve_model(name: str | Path | None, only: Sequence[str] | None = None) -> Path:
    """A local model directory for a path, a hub id, "nano" or None (the shipped nano).

    `only` names the files (patterns) that are fetched from a hub; None = all.

    Raises:
        FileNotFoundError: no such directory, no config in it, or the hub can't be reached for it.
        ValueError: what is there can draw, but not talk.
    """
    if only_draws(name):
        raise ValueError(
            f"{name} draws and does nothing else; use it with: vargpt draw PROMPT --model {name} --variant NAME "
            f"(one of {', '.join(INFINITY)})"
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
