"""A language model with more layers, on the weights it has: what it says and draws is at first the same to the bit.

In: a model. Out: a new one whose language model has more layers and as many key-value heads as query heads.

- *New layers* stand between the old ones, evenly, and begin as the identity: both of their output projections are zero
  (Chen et al., Net2Net, arXiv 1511.05641; Bachlechner et al., ReZero, arXiv 2003.04887).
- *Key-value heads* that several query heads shared are repeated for each of them, and can differ from there on.

`python -m training.surgery.deepen MODEL --layers 8 --out DEEPER` writes such a model; `--start-from DEEPER` trains it
further.
"""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vargpt.assistant.model import VARGPT
from vargpt.config import VargptConfig
from vargpt.loading.models import save
from vargpt.published.families import load

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
    deeper = VARGPT(deepened_config(model.config, num_layers)).to(model.device, model.dtype)
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.surgery.deepen", description="More layers for a language model."
    )
    parser.add_argument("model", type=Path, help="the model folder to begin with")
    parser.add_argument("--layers", type=int, required=True, help="of the language model, more than it has")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    chosen = parser.parse_args(arguments)
    model, processor = load(chosen.model, device="cpu", dtype="float32")
    try:
        deeper = deepen(model, chosen.layers)
    except ValueError as error:
        parser.error(str(error))
    save(deeper, processor, chosen.out)


if __name__ == "__main__":
    main()
