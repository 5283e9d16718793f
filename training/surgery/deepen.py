"""A language model with more layers, on the weights it has: what it says and draws is at first the same to the bit.

In: a model. Out: a new one whose language model has more layers and as many key-value heads as query heads.

- *New layers* stand between the old ones, evenly, and begin as the identity: both of their output projections are zero
  (Chen et al., Net2Net, arXiv 1511.05641; Bachlechner et al., ReZero, arXiv 2003.04887).
- *Key-value heads* that several query heads shared are repeated for each of them, and can differ from there on.

`python -m training.surgery.deepen MODEL --layers 8 --out DEEPER` writes such a model; `--start-from DEEPER` trains it
further.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.command_line import Positional, read_command, user_errors
from vargpt.assistant.model import VARGPT
from vargpt.config import VargptConfig
from vargpt.loading.models import save
from vargpt.published.families import load

PROG = "python -m training.surgery.deepen"
LAYER = re.compile(r"^(language_model\.layers\.)(\d+)(\..+)$")
OUTPUTS = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
SHARED = tuple(f"self_attn.{name}_proj.{kind}" for name in "kv" for kind in ("weight", "bias"))


def deepened_config(config: VargptConfig, num_layers: int) -> VargptConfig:
    """The config of the deeper model.

    Raises:
        ValueError: it would not have more layers than before.
    """
    deeper = copy.deepcopy(config)
    text = deeper.text_config
    if num_layers <= text.num_hidden_layers:
        raise ValueError(f"the model has {text.num_hidden_layers} layers already; ask for more than that")
    text.num_hidden_layers = num_layers
    text.layer_types = [text.layer_types[0]] * num_layers
    text.num_key_value_heads = text.num_attention_heads
    return deeper


def places(num_old: int, num_new: int) -> list[int]:
    """Where the old layers stand among the new ones: evenly, the last one last."""
    return [(index + 1) * num_new // num_old - 1 for index in range(num_old)]


@torch.no_grad()
def deepen(model: VARGPT, num_layers: int) -> VARGPT:
    """A model with `num_layers` layers in its language model; the one that came in stays as it was.

    Raises:
        ValueError: see `deepened_config`.
    """
    deeper = type(model)(deepened_config(model.config, num_layers)).to(model.device, model.dtype)
    text = model.config.text_config
    stand = places(text.num_hidden_layers, num_layers)
    repeats = text.num_attention_heads // text.num_key_value_heads
    weights = deeper.state_dict()
    for name, weight in weights.items():
        if name.endswith(OUTPUTS) and LAYER.match(name):
            weight.zero_()
    for name, weight in model.state_dict().items():
        if match := LAYER.match(name):
            name = f"{match[1]}{stand[int(match[2])]}{match[3]}"
            if name.endswith(SHARED):
                weight = repeated_heads(weight, text.num_key_value_heads, repeats)
        weights[name].copy_(weight)
    return deeper.train(model.training)


def repeated_heads(weight: Tensor, num_heads: int, repeats: int) -> Tensor:
    """Weights of `num_heads` heads "(h d) ..." with every head `repeats` times, next to each other."""
    heads = weight.unflatten(0, (num_heads, -1))
    return heads.repeat_interleave(repeats, dim=0).flatten(0, 1)


@dataclass(frozen=True, kw_only=True)
class DeepenCommand:
    """Give a language model more layers; at first it says and draws the same."""

    model: Positional[Path]
    """The model folder to begin with."""
    layers: int
    """Of the language model, more than it has."""
    out: Path
    """The model folder to write."""


def main(arguments: Sequence[str] | None = None) -> None:
    command = read_command(DeepenCommand, PROG, arguments)
    with user_errors(PROG):
        model, processor = load(command.model, device="cpu", dtype="float32")
        save(deepen(model, command.layers), processor, command.out)


if __name__ == "__main__":
    main()
