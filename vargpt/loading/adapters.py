"""Adapters: small additions to the weights of a loaded model, switched on and off from one request to the next.

In: a model, and folders that `save_adapter` (or peft) wrote. Out: the same model, whose adapted layers add what the
switched-on adapters have learnt (LoRA, arXiv 2106.09685). Switched off, a layer runs its own weights and nothing else,
so every bit is what it was before. Quantised layers are adapted in the same way (QLoRA, arXiv 2305.14314).
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vargpt.assistant.model import VARGPT
from vargpt.loading.models import read_json

CARD, CONFIG, WEIGHTS = "adapter.json", "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of every name in peft's files
NAMED_LAYERS = 3  # how many layers that do not fit are listed


@dataclass(frozen=True, kw_only=True)
class AdapterCard:
    """What an adapter is called and which model it was made for; None where a folder of another origin does not say."""

    name: str
    base: str | None = None
    base_hash: str | None = None
    about: dict[str, Any] = field(default_factory=dict)


class Adapters:
    """The adapters of one model: none at first, each off until it is switched on.

    Args:
        model: changed in place when the first adapter is loaded; the weights that it has stay as they are.
        base: what people call the model, for errors.
        base_hash: of its weights; None = adapters are not compared with it.
    """

    def __init__(self, model: VARGPT, base: str = "this model", base_hash: str | None = None) -> None:
        self.model, self.base, self.base_hash = model, base, base_hash
        self.default: tuple[str, ...] = ()  # what requests get that name none
        self._slots: dict[str, str] = {}  # name -> what its weights are called inside the layers
        self._count = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._slots)

    def load(self, folder: str | Path) -> str:
        """Adds the adapter in a folder, switched off, and returns its name.

        Raises:
            FileNotFoundError: the folder holds no adapter.
            ValueError: it was made for another model, or has the name of one that is there already.
            ImportError: peft is not installed.
        """
        folder = Path(folder)
        card, config, weights = read_card(folder), read_lora_config(folder), read_weights(folder)
        if card.name in self._slots:
            raise ValueError(f"there is an adapter called {card.name!r} already; {folder} needs another name")
        self._check_base(card, folder)
        self._check_layers(card, folder, weights)
        slot = f"adapter_{self._count}"
        inject(self.model, config, slot)
        self._count += 1
        try:
            fill(self.model, slot, weights)
        except ValueError as error:
            raise ValueError(f"{folder} is damaged: {error}") from None
        self._slots[card.name] = slot
        self._switch(())
        return card.name

    def chosen(self, asked: str | Sequence[str] | None) -> tuple[str, ...]:
        """The adapters that a request is answered with, by name; None asks for the default.

        Raises:
            ValueError: a name that is not loaded.
        """
        names = self.default if asked is None else (asked,) if isinstance(asked, str) else tuple(asked)
        for name in names:
            if name not in self._slots:
                there = ", ".join(map(repr, self._slots)) or "none"
                raise ValueError(f"no adapter {name!r} is loaded; there are: {there}")
        return tuple(dict.fromkeys(names))

    @contextmanager
    def switched_on(self, names: Sequence[str]) -> Iterator[None]:
        """The model with these adapters, what they add summed up; off again afterwards."""
        self._switch(names)
        try:
            yield
        finally:
            self._switch(())

    def merge(self, names: Sequence[str]) -> VARGPT:
        """Makes these adapters part of the weights for good, and forgets the others; in place.

        Raises:
            ValueError: the weights are quantised, which would round away what was learnt.
        """
        merge_layers(self.model, [self._slots[name] for name in self.chosen(names)])
        self._slots.clear()
        self.default = ()
        return self.model

    def _switch(self, names: Sequence[str]) -> None:
        if not self._slots:  # adapters that somebody else put there, to train them, are none of ours
            return
        slots = [self._slots[name] for name in names]
        for _, layer in adapted_layers(self.model):
            if slots:
                layer.set_adapter(slots, inference_mode=True)
            layer.enable_adapters(bool(slots))
            layer.requires_grad_(False)

    def _check_base(self, card: AdapterCard, folder: Path) -> None:
        if self.base_hash is not None and card.base_hash is not None and card.base_hash != self.base_hash:
            raise ValueError(
                f"the adapter in {folder} was made for {card.base} (weights {card.base_hash}), and this is {self.base} "
                f"(weights {self.base_hash}); load the model that it was made for"
            )

    def _check_layers(self, card: AdapterCard, folder: Path, weights: dict[str, Tensor]) -> None:
        wrong = []
        for name, (inputs, outputs) in layer_sizes(weights).items():
            layer = plain_layer(self.model, name)
            here = None if layer is None else (layer.in_features, layer.out_features)
            if here != (inputs, outputs):
                has = "there is no such layer here" if here is None else f"here {here[0]} -> {here[1]}"
                wrong.append(f"{name} ({inputs} -> {outputs}, {has})")
        if wrong:
            more = f" and {len(wrong) - NAMED_LAYERS} more" if len(wrong) > NAMED_LAYERS else ""
            raise ValueError(
                f"the adapter in {folder}, made for {card.base or 'another model'}, does not fit {self.base}: "
                f"{', '.join(wrong[:NAMED_LAYERS])}{more}"
            )


# -- layers ------------------------------------------------------------------------------------------------------------


def inject(model: VARGPT, config: Any, slot: str) -> None:
    """Puts fresh LoRA weights called `slot`, float32, beside the layers that a peft config names; in place.

    Everything else stops learning.
    """
    from peft import inject_adapter_in_model

    flags = quantized_kinds(model)
    for flag in flags:  # what peft asks a model before it adapts quantised layers
        setattr(model, flag, True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            inject_adapter_in_model(config, model, slot)
        for parameter in lora_weights(model, slot).values():
            parameter.data = parameter.data.float()
    finally:
        for flag in flags:
            delattr(model, flag)


def merge_layers(model: VARGPT, slots: Sequence[str]) -> None:
    """Makes adapters part of the weights, sums them up and forgets the others; in place. Everything may learn again.

    Raises:
        ValueError: the weights are quantised, which would round away what was learnt.
    """
    layers = list(adapted_layers(model))
    for name, layer in layers:
        if type(layer.get_base_layer()) is not nn.Linear:
            raise ValueError(f"{name} is quantised; load the model without quantisation to merge an adapter")
    for name, layer in layers:
        layer.merge(safe_merge=True, adapter_names=list(slots))
        model.set_submodule(name, layer.get_base_layer())
    model.requires_grad_(True)
    model.__dict__.pop("peft_config", None)


def quantized_kinds(model: nn.Module) -> list[str]:
    """The attributes by which transformers marks a model with 8-bit or 4-bit layers, for the layers that are there."""
    marks = {"Linear8bitLt": "is_loaded_in_8bit", "Linear4bit": "is_loaded_in_4bit"}
    return sorted({marks[type(module).__name__] for module in model.modules() if type(module).__name__ in marks})


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that adapters sit beside, with their names."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            yield name, module


def plain_layer(model: nn.Module, name: str) -> Any | None:
    """The linear layer of this name, below an adapter perhaps; None if there is none."""
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        return None
    layer = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    return layer if hasattr(layer, "in_features") and hasattr(layer, "weight") else None


def lora_weights(model: nn.Module, slot: str) -> dict[str, Tensor]:
    """The weights called `slot`, by the names that peft gives them in files. Inverse: `fill`."""
    return {
        PREFIX + name.replace(f".{slot}.", "."): parameter
        for name, parameter in model.named_parameters()
        if f".{slot}." in name
    }


@torch.no_grad()
def fill(model: VARGPT, slot: str, weights: dict[str, Tensor]) -> None:
    """Copies named weights into the fresh ones called `slot`.

    Raises:
        ValueError: the names are not exactly those of the slot.
    """
    own = lora_weights(model, slot)
    if set(own) != set(weights):
        raise ValueError(
            f"its weights are not those that its config names: {sorted(set(own) ^ set(weights))[:NAMED_LAYERS]} ..."
        )
    for name, parameter in own.items():
        parameter.copy_(weights[name])


def layer_sizes(weights: dict[str, Tensor]) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of every layer that LoRA weights belong to."""
    inputs, outputs = (
        {
            match[1]: value.shape[axis]
            for name, value in weights.items()
            if (match := re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_{letter}\.weight", name))
        }
        for letter, axis in (("A", 1), ("B", 0))
    )
    return {name: (inputs[name], outputs[name]) for name in inputs if name in outputs}


# -- folders -----------------------------------------------------------------------------------------------------------


def save_adapter(
    model: VARGPT, slot: str, config: Any, card: AdapterCard, folder: Path, dtype: torch.dtype = torch.bfloat16
) -> None:
    """A folder that `Adapters.load` and peft read: weights in `dtype`, peft's config, and our card."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in lora_weights(model, slot).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(folder)
    (folder / CARD).write_text(json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_card(folder: Path) -> AdapterCard:
    """What an adapter folder says about itself; peft need not be there.

    Raises:
        FileNotFoundError: it holds no adapter.
        ValueError: the card is damaged.
    """
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} holds no {file}, so it is no adapter; make one with: vargpt finetune")
    if not (folder / CARD).is_file():
        return AdapterCard(name=folder.resolve().name)
    try:
        return AdapterCard(**read_json(folder / CARD))
    except TypeError as error:
        raise ValueError(f"{folder / CARD} is damaged: {error}") from None


def read_lora_config(folder: Path) -> Any:
    """peft's config of an adapter folder.

    Raises:
        ImportError: peft is not installed.
        ValueError: it is not LoRA.
    """
    lora = lora_config_type()
    content = read_json(folder / CONFIG)
    if content.get("peft_type") != "LORA":
        raise ValueError(f"{folder} holds an adapter of kind {content.get('peft_type')!r}; only LORA can be loaded")
    if content.get("modules_to_save") or content.get("bias", "none") != "none":
        raise ValueError(f"{folder} replaces whole layers (modules_to_save, bias), which cannot be switched off and on")
    return lora.from_pretrained(folder)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of an adapter folder.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read ({error}); copy or train it again") from error


def lora_config_type() -> Any:
    """peft's `LoraConfig`.

    Raises:
        ImportError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError(f"adapters need peft ({error}): pip install 'vargpt[train]'") from error
    return LoraConfig
