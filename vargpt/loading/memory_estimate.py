"""How much memory a model will take, told before it is loaded: weights by organ and precision, and what work needs.

In: a config. Out: bytes. The weights are counted exactly (the model is built without memory); what attention, caches
and pictures need on top is an estimate from their shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import AutoModel

from vargpt.assistant.model import VARGPT  # noqa: F401 - registered with AutoModel
from vargpt.config import VargptConfig
from vargpt.loading.checkpoint_files import empty_weights
from vargpt.loading.quantization import OFFLOADED, QUANTIZED

CARDS = (12, 16, 24, 40, 80)  # GiB that graphics cards come with
RESERVED = 700 * 2**20  # what CUDA and its libraries take of them
BRANCHES = 2  # of guidance: the conversation, and without it
FEATURE_MAPS = 4  # alive at once, at the full size of the picture, while it is decoded


@dataclass(frozen=True)
class Mode:
    """A way to hold the weights: bytes per weight in the layers below `layers`, and everywhere else.

    `options` are those of the command line; layers of 0 bytes are kept in main memory but for one.
    """

    name: str
    options: str
    plain: float
    layers: tuple[str, ...] = ()
    inside: float = 0.0


MODES = (  # the closest to the original first
    Mode("float32", "--dtype float32", 4),
    Mode("bfloat16", "--dtype bfloat16", 2),
    Mode("int8", "--dtype bfloat16 --quantize int8", 2, QUANTIZED, 1),
    Mode("nf4", "--dtype bfloat16 --quantize nf4", 2, QUANTIZED, 0.5 + 4 / 64),  # one float32 scale for 64 weights
    Mode("offload", "--dtype bfloat16 --offload", 2, tuple(f"{path}." for path in OFFLOADED), 0),
)


def parameter_counts(config: VargptConfig) -> dict[str, int]:
    """Numbers per parameter, by name, without making any of them; tied ones count once."""
    with empty_weights():
        model = AutoModel.from_config(config)
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


def weight_bytes(counts: Mapping[str, int], mode: Mode) -> int:
    """What the weights take on the device."""
    inside = {name for name in counts if name.startswith(mode.layers)} if mode.layers else set()
    plain = sum(number for name, number in counts.items() if name not in inside)
    total = plain * mode.plain + sum(counts[name] for name in inside) * mode.inside
    if mode.inside == 0 and inside:  # one layer is there when it is its turn
        total += mode.plain * largest_layer(counts, mode.layers)
    return round(total)


def largest_layer(counts: Mapping[str, int], stacks: tuple[str, ...]) -> int:
    """Parameters of the largest single layer of the stacks."""
    sizes: dict[str, int] = {}
    for name, number in counts.items():
        for stack in stacks:
            if name.startswith(stack):
                layer = stack + name.removeprefix(stack).split(".")[0]
                sizes[layer] = sizes.get(layer, 0) + number
    return max(sizes.values(), default=0)


def working_bytes(config: VargptConfig, bytes_per_value: float, context: int) -> int:
    """What one conversation of `context` tokens and one picture being drawn take: caches, and decoding it."""
    text, drawing, pixels, layout = (
        config.text_config, config.generator_config, config.image_tokenizer_config, config.layout(),
    )  # fmt: skip
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head_width + text.hidden_size
    spoken = per_token * (context + BRANCHES * (context + layout.num_tokens))
    memory = 2 * drawing.num_layers * drawing.hidden_size * BRANCHES
    drawn = memory * (layout.num_tokens + context)
    decoded = FEATURE_MAPS * 2 * pixels.base_channels * layout.height * layout.width // pixels.patch_size**2
    return round((spoken + drawn + decoded) * bytes_per_value)


def needed_bytes(config: VargptConfig, counts: Mapping[str, int], mode: Mode, context: int) -> int:
    """Weights and work together."""
    return weight_bytes(counts, mode) + working_bytes(config, mode.plain, context)


def best_mode(
    config: VargptConfig, counts: Mapping[str, int], memory: int, context: int, modes: Sequence[Mode] = MODES
) -> Mode | None:
    """The first mode, the one closest to the original, that fits into `memory` bytes; None where none does."""
    return next((mode for mode in modes if needed_bytes(config, counts, mode, context) <= memory), None)
