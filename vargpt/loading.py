"""Model directories: where they are, how they are loaded and saved, and the errors when they are not right.

In: a local directory or a hub id (default: the nano that ships with the package). Out: a model and its processor, in
evaluation mode, on a device. Loading is strict: missing or unexpected weights are an error that names them. Published
repositories of VARGPT-v1.1 are read as they are, shard by shard.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vargpt.config import VargptConfig
from vargpt.cpu import warn_if_slow
from vargpt.hub import fetch, files_hash
from vargpt.model import VARGPT
from vargpt.processing import VargptProcessor
from vargpt.processing.special_tokens import NAMES as CONTROL_TOKEN_NAMES
from vargpt.quantization import Quantization, check_quantization, offload_layers, quantize, quantize_parameter
from vargpt.types import ImageSampling
from vargpt.weight_maps.stream import empty_weights, load_weights, read_shapes, read_tensors, weight_files
from vargpt.weight_maps.vargpt import PUBLISHED_SAMPLING, config_from_published, organs_from_shapes, vargpt_map
from vargpt.weight_maps.variants import INFINITY, only_draws

OUTLINE = ("*.json", "*.jinja")  # files that say what a model is
PUBLISHED_TYPE = "vargpt_qwen2_vl"
CONTROL_TOKENS = tuple(CONTROL_TOKEN_NAMES.values())
WEIGHTS = "model.safetensors"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def default_model_path() -> Path:
    """The nano checkpoint inside the installed package."""
    return Path(__file__).parent / "checkpoints" / "nano"


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


def resolve_device(name: str = "auto") -> torch.device:
    """ "auto" is cuda, else mps, else cpu.

    Raises:
        ValueError: the device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:1 ... or mps") from error
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device.type, False):
        raise ValueError(f"device {name!r} is not available here; use --device auto or cpu")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is bfloat16 on an accelerator and float32 on a CPU, where the decisions about bits stay exact.

    Anything else works on every CPU; where it is slower than float32, a warning says so once.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r}; use auto, {', '.join(DTYPES)}")
    warn_if_slow(DTYPES[name], device)
    return DTYPES[name]


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


def load_own(
    path: Path, dtype: torch.dtype, device: torch.device, quantization: Quantization | None
) -> tuple[VARGPT, VargptProcessor]:
    """A directory written by `save` or by transformers."""
    if not any(path.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{path} has a config but no weights (*.safetensors); was it copied or trained to its end?"
        )
    try:
        model, info = VARGPT.from_pretrained(
            path,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are listed, and refused, with everything else that is wrong
        )
    except SafetensorError as error:
        raise ValueError(f"the weights in {path} cannot be read ({error}); copy or download them again") from error
    wrong = {key: sorted(map(str, names)) for key, names in info.items() if names}
    if wrong:
        raise ValueError(f"the weights in {path} are not those of this model: {wrong}")
    if quantization is not None:
        quantize(model.to(device), quantization)
    return model, VargptProcessor.from_pretrained(path)


def is_published(path: Path) -> bool:
    """Whether a directory holds a model under its published names (VARGPT-v1.1).

    Raises:
        ValueError: it holds another kind of model, or a damaged config.
    """
    found = read_config(path).get("model_type")
    if found not in (VargptConfig.model_type, PUBLISHED_TYPE):
        raise ValueError(
            f"{path} holds a model of type {found!r}; vargpt knows {VargptConfig.model_type!r} and {PUBLISHED_TYPE!r}"
        )
    return found == PUBLISHED_TYPE


def default_sampling(path: Path) -> ImageSampling:
    """How the pictures of the model in a directory are drawn unless asked otherwise, without loading it."""
    fields = PUBLISHED_SAMPLING if is_published(path) else read_config(path).get("image_sampling")
    return ImageSampling(**(fields or {}))


def read_config(path: Path) -> dict[str, Any]:
    """The content of config.json."""
    return read_json(path / "config.json")


def read_json(file: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object.

    Raises:
        ValueError: it is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); copy or download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} should hold a JSON object, not {type(content).__name__}")
    return content


def model_config(path: Path) -> VargptConfig:
    """The config of a model directory, also of a published one, whose weights need not be there.

    Raises:
        ValueError: it is damaged, or of another kind of model.
    """
    if not is_published(path):
        return VargptConfig.from_pretrained(path)
    try:
        decoder, autoencoder, _ = organs_from_shapes(read_shapes(weight_files(path)))
    except FileNotFoundError:  # the list of the weights alone: the sizes that were published
        decoder, autoencoder = None, None
    return config_from_published(read_config(path), decoder, autoencoder)


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
    template = (Path(__file__).parent / "processing" / "chat_template.jinja").read_text(encoding="utf-8")
    return VargptProcessor(
        pictures, tokenizer, chat_template=template, max_context=config.text_config.max_position_embeddings
    )


def save(model: VARGPT, processor: VargptProcessor, path: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """A model directory that `load` reads: weights in `dtype`, config, tokenizer and processor."""
    path.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    weights = load_file(path / WEIGHTS)
    rounded = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
    save_file(rounded, path / WEIGHTS, metadata={"format": "pt"})


@lru_cache(maxsize=8)
def model_hash(path: Path) -> str:
    """What a picture says it was drawn by (see `files_hash`)."""
    return files_hash(weight_files(path))
