"""Which layers learn when an adapter is trained: attention and MLP of the language model and of the generator.

In: a model. Out: the same model with fresh LoRA weights (arXiv 2106.09685) beside these layers, which alone learn, and
a report of what learns. Nothing is unfrozen on the side: heads, norms, embeddings, ViT and image tokenizer stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vargpt.assistant.model import VARGPT
from vargpt.loading.adapters import adapted_layers, inject, lora_config_type

# Patterns of whole names of layers.
LANGUAGE_MODEL = (
    r"language_model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj",
    r"language_model\.layers\.\d+\.mlp\.(gate|up|down)_proj",
)
GENERATOR = (
    r"generator\.blocks\.\d+\.attention\.(qkv|proj)",
    r"generator\.blocks\.\d+\.cross_attention\.(query|key_value|proj)",
    r"generator\.blocks\.\d+\.mlp\.(0|2)",
)
ORGANS = {
    "language_model": LANGUAGE_MODEL,
    "generator": GENERATOR,
    "projector_in": (r"projector_in\.(0|2)",),
    "projector_out": (r"projector_out\.(0|2)",),
}
PROJECTORS = ORGANS["projector_in"] + ORGANS["projector_out"]


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The rank of what is added to each layer, and how loud it is: `alpha / rank` times."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    projectors: bool = False  # adapt the bridge between language model and generator too

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"rank >= 1 and 0 <= dropout < 1 are needed, got {self.rank} and {self.dropout}")


@dataclass(frozen=True)
class Learning:
    """What learns and what does not. `layers` are the adapted ones, `parameters` those with a gradient."""

    slot: str
    config: Any  # peft's
    layers: tuple[str, ...]
    parameters: int
    frozen: int

    def __str__(self) -> str:
        organs: dict[str, int] = {}
        for name in self.layers:
            organs[name.split(".")[0]] = organs.get(name.split(".")[0], 0) + 1
        places = ", ".join(f"{count} layers of {organ}" for organ, count in organs.items())
        return f"{self.parameters:,} parameters learn beside {places}; {self.frozen:,} keep their values"


def lora_of_rank(rank: int | None, organs: Sequence[str]) -> Any:
    """peft's config for `--lora RANK` beside what a recipe lets learn; None without a rank.

    Raises:
        ImportError: peft is not installed.
        ValueError: see `lora_config` and `LoraSettings`.
    """
    return None if rank is None else lora_config(LoraSettings(rank=rank, alpha=2.0 * rank), organs)


def lora_config(settings: LoraSettings, organs: Sequence[str] | None = None) -> Any:
    """peft's config for these settings: layers of these organs, or of those that an adapter usually sits beside.

    Raises:
        ImportError: peft is not installed.
        ValueError: an organ that no adapter is made for.
    """
    patterns = LANGUAGE_MODEL + GENERATOR + (PROJECTORS if settings.projectors else ())
    if organs is not None:
        if not organs or set(organs) - set(ORGANS):
            raise ValueError(f"adapters are made for {', '.join(ORGANS)}; got {', '.join(organs) or 'none of them'}")
        patterns = tuple(pattern for organ in organs for pattern in ORGANS[organ])
    return lora_config_type()(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules="|".join(patterns)
    )


def begin(model: VARGPT, settings: LoraSettings, seed: int = 0, slot: str = "learning") -> Learning:
    """Adds fresh LoRA weights (equal for equal seeds), which change nothing yet, and freezes all else; in place.

    Raises:
        ImportError: peft is not installed.
    """
    config = lora_config(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject(model, config, slot)
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning and all(f".{slot}." in name and "lora_" in name for name in learning), "only adapters learn"
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    layers = tuple(name for name, _ in adapted_layers(model))
    return Learning(slot, config, layers, sum(parameter.numel() for parameter in learning.values()), frozen)
