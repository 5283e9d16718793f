"""Smaller weights and weights kept elsewhere: 8-bit, NF4, and offloading to main memory.

In: a model, or one parameter of a model while it is being loaded. Out: the same model with some of its linear layers
replaced, or with its layers fetched to the device one at a time. The organs that decide bits of pictures (generator,
image tokenizer, projectors) keep their precision: there a rounding error becomes another picture.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

Quantization = Literal["int8", "nf4"]
QUANTIZED = ("language_model.layers.", "vision.blocks.")
BLOCK = 64  # weights that share a scale in NF4; layers that are no multiple of it keep their precision
OFFLOADED = ("language_model.layers", "generator.blocks", "vision.blocks")


def check_quantization(kind: str | None, offload: bool = False) -> None:
    """Refuses what cannot be.

    Raises:
        ValueError: an unknown kind, or quantised weights that are to be offloaded too.
        ImportError: bitsandbytes is not installed.
    """
    if kind is None:
        return
    if kind not in get_args(Quantization):
        raise ValueError(f"unknown quantization {kind!r}; use {' or '.join(get_args(Quantization))}")
    if offload:
        raise ValueError(f"choose one of quantization ({kind}) and offload: quantised weights stay where they are")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{kind} weights need bitsandbytes ({error}): pip install 'vargpt[train]'") from error


def quantized(linear: nn.Linear, kind: Quantization) -> nn.Module:
    """The same layer with its weight in 8 bits (LLM.int8, arXiv 2208.07339) or 4 bits (NF4, arXiv 2305.14314)."""
    import bitsandbytes as bnb

    weight, has_bias = linear.weight.data, linear.bias is not None
    if kind == "nf4":
        layer = bnb.nn.Linear4bit(
            linear.in_features, linear.out_features, has_bias, weight.dtype, quant_type="nf4", device="meta"
        )
        layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", module=layer)
    else:
        layer = bnb.nn.Linear8bitLt(
            linear.in_features, linear.out_features, has_bias, has_fp16_weights=False, threshold=6.0, device="meta"
        )
        layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    layer.weight = layer.weight.to(weight.device)  # this is what quantises
    layer.bias = linear.bias
    return layer.train(linear.training)


def quantize_parameter(model: nn.Module, name: str, kind: Quantization) -> None:
    """Quantises the linear layer whose weight is `name`, if it is one that may be; in place."""
    owner, _, attribute = name.rpartition(".")
    layer = model.get_submodule(owner)
    if attribute != "weight" or not name.startswith(QUANTIZED) or type(layer) is not nn.Linear:
        return
    if layer.in_features % BLOCK == 0 and layer.out_features % (BLOCK // 2) == 0:
        model.set_submodule(owner, quantized(layer, kind))


def quantize(model: nn.Module, kind: Quantization) -> nn.Module:
    """Every layer that may be quantised, in place; the model is on its device already."""
    for name in [name for name, _ in model.named_parameters()]:
        quantize_parameter(model, name, kind)
    return model


def offload_layers(model: nn.Module, device: torch.device) -> nn.Module:
    """Keeps the transformer layers in main memory and fetches each to the device when it is its turn; in place.

    Everything else moves to the device at once. A layer's way there takes longer than its arithmetic, most of all for
    single words; pictures pass whole scales at a time and lose less.
    """
    from accelerate import cpu_offload

    stacks = [model.get_submodule(path) for path in OFFLOADED]
    layers = {id(layer) for stack in stacks for layer in stack}

    def move(module: nn.Module) -> None:
        if id(module) in layers:
            return
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(device)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
        for child in module.children():
            move(child)

    move(model)
    for stack in stacks:
        for layer in stack:
            cpu_offload(layer, execution_device=device, offload_buffers=False)
    return model
