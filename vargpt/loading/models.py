"""Model directories in our own format: reading, writing, and clear errors for what is not right.

In: a local directory. Out: a model and its processor. Loading is strict: missing or unexpected weights are an error
that names them. Published families are read by `vargpt/published/`, which also decides what a name means.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.loading.checkpoint_files import weight_files
from vargpt.loading.hub import files_hash
from vargpt.loading.quantization import Quantization, quantize

OUTLINE = ("*.json", "*.jinja")  # files that say what a model is
WEIGHTS = "model.safetensors"


def default_model_path() -> Path:
    """The nano checkpoint inside the installed package."""
    return Path(__file__).parents[1] / "checkpoints" / "nano"


def load_own(
    path: Path, dtype: torch.dtype, device: torch.device, quantization: Quantization | None
) -> tuple[VARGPT, VargptProcessor]:
    """A directory written by `save` or by transformers."""
    if not any(path.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{path} has a config but no weights (*.safetensors); was it copied or trained to its end?"
        )
    try:
        model, info = AutoModel.from_pretrained(
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
