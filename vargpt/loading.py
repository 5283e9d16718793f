"""Model directories: where they are, how they are loaded and saved, and the errors when they are not right.

In: a local directory or a hub id (default: the nano that ships with the package). Out: a model and its processor, in
evaluation mode, on a device. Loading is strict: missing or unexpected weights are an error that names them.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vargpt.model import VARGPT
from vargpt.processing import VargptProcessor
from vargpt.weight_maps.variants import INFINITY, only_draws

WEIGHTS = "model.safetensors"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def default_model_path() -> Path:
    """The nano checkpoint inside the installed package."""
    return Path(__file__).parent / "checkpoints" / "nano"


def resolve_model(name: str | Path | None) -> Path:
    """A local model directory for a path, a hub id, "nano" or None (the shipped nano).

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
        try:
            path = Path(snapshot_download(str(name)))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
            raise FileNotFoundError(
                f"{str(name)!r} is neither a local model directory nor a model that the hub gives out now ({error}); "
                "give a directory with config.json and model.safetensors, or leave --model away for the shipped nano"
            ) from error
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
    """ "auto" is bfloat16 on an accelerator and float32 on a CPU, where the decisions about bits stay exact."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r}; use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def load(name: str | Path | None = None, device: str = "auto", dtype: str = "auto") -> tuple[VARGPT, VargptProcessor]:
    """The model and its processor, ready to answer.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: weights, config and tokenizer do not belong together; the message names what differs.
    """
    path, where = resolve_model(name), resolve_device(device)
    if not any(path.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{path} has a config but no weights (*.safetensors); was it copied or trained to its end?"
        )
    try:
        model, info = VARGPT.from_pretrained(
            path,
            dtype=resolve_dtype(dtype, where),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are listed, and refused, with everything else that is wrong
        )
    except SafetensorError as error:
        raise ValueError(f"the weights in {path} cannot be read ({error}); copy or download them again") from error
    wrong = {key: sorted(map(str, names)) for key, names in info.items() if names}
    if wrong:
        raise ValueError(f"the weights in {path} are not those of this model: {wrong}")
    processor = VargptProcessor.from_pretrained(path)
    processor.check_model(model.config)
    return model.to(where).eval(), processor


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
    """The first 16 hex digits of the SHA-256 over the weight files: what a picture says it was drawn by."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")):
        with file.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()[:16]
