"""Layers for drawing only: weights laid out once for the matrix kernels of this CPU, in float32 or bfloat16.

In: any module. Out: the same module with its `nn.Linear`s swapped for `PackedLinear`s, in place; it can be run, but no
longer trained or saved. Two things make that quicker. PyTorch multiplies float32 matrices with MKL, which keeps to
256-bit vectors on CPUs that Intel did not make; oneDNN uses all that there is. And a weight that lies as the kernel
wants it is not rearranged at every call, which is most of the work where a scale has few tokens. In bfloat16 only
the factors are rounded: sums are formed in float32, and with `returns` everything between two products stays there.

Where torch has no such kernels (`vargpt.cpu`), the plain one serves, with the same dtypes in and out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vargpt import cpu
from vargpt.assistant.model import VARGPT
from vargpt.generators.bitwise import BitwiseGenerator

DTYPES = (torch.float32, torch.bfloat16)
Activation = tuple[str, str]  # as oneDNN names it, and its algorithm
NOTHING: Activation = ("none", "")
BATCH_HINT = 512  # rows that the packed layout is chosen for; any number may come


class PackedLinear(nn.Module):
    """What a linear layer and perhaps the GELU or SiLU after it compute, with weights that never change again.

    Args:
        linear: the layer; its own weights may be dropped afterwards.
        dtype: of both factors, float32 or bfloat16.
        returns: dtype of what comes out; None = `dtype`.
        activation: applied to the result before it leaves the kernel.
    """

    def __init__(
        self,
        linear: nn.Linear,
        dtype: torch.dtype = torch.float32,
        returns: torch.dtype | None = None,
        activation: Activation = NOTHING,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f"weights are packed in float32 or bfloat16, got {dtype}")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype, self.returns, self.activation = dtype, returns or dtype, activation
        weight = linear.weight.detach().to(dtype)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)
        self.packed = weight.device.type == "cpu" and cpu.has_packed_kernels(dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, BATCH_HINT) if self.packed else weight

    def forward(self, x: Float[Tensor, "*rows i"]) -> Float[Tensor, "*rows o"]:
        x = x.to(self.dtype)
        if self.packed:
            name, algorithm = self.activation
            y = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, name, [], algorithm)
        else:
            y = activated(F.linear(x, self.weight, self.bias), self.activation)
        return y.to(self.returns)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.dtype}, {'packed' if self.packed else 'as it is'}"


def compile_blocks(generator: nn.Module) -> None:
    """What is done instead of packing where that gains nothing: torch.compile fuses what lies between the products of
    every block, in place, when it is first used (on a CPU that needs a C++ compiler). Shapes are free, so that scales
    and batches share graphs. Packed blocks cannot be compiled.
    """
    for block in generator.blocks:  # type: ignore[union-attr]
        block.compile(dynamic=True)


def activated(x: Tensor, activation: Activation) -> Tensor:
    """The activation as an operation of its own."""
    name, algorithm = activation
    if name == "gelu":
        return F.gelu(x, approximate=algorithm)
    return F.silu(x) if name == "swish" else x


def activation_of(module: nn.Module | None) -> Activation:
    """How oneDNN calls it; NOTHING for what it is not asked to do."""
    if isinstance(module, nn.GELU):
        return "gelu", module.approximate
    return ("swish", "") if isinstance(module, nn.SiLU) else NOTHING


def pack_linears(
    module: nn.Module, dtype: torch.dtype = torch.float32, returns: torch.dtype | None = None
) -> nn.Module:
    """Swaps every `nn.Linear` below `module`, together with the activation that follows it in an `nn.Sequential`.

    A module that is a linear layer itself is returned packed. Weights of the swapped layers are let go.

    Raises:
        ValueError: `dtype` is neither float32 nor bfloat16.
    """
    if isinstance(module, nn.Linear):
        return PackedLinear(module, dtype, returns)
    children = list(module.named_children())
    followers = [child for _, child in children[1:]] + [None]
    for (name, child), after in zip(children, followers, strict=False):
        if not isinstance(child, nn.Linear):
            pack_linears(child, dtype, returns)
            continue
        activation = activation_of(after) if isinstance(module, nn.Sequential) else NOTHING
        # between two products nothing happens in the wider dtype that would be worth the way there and back
        wide = None if activation != NOTHING else returns
        setattr(module, name, PackedLinear(child, dtype, wide, activation))
        if activation != NOTHING:
            module[int(name) + 1] = nn.Identity()
    return module


def pack(model: VARGPT, dtype: torch.dtype = torch.float32) -> None:
    """Lays a model's weights out for drawing on this CPU, in place; it can then be run, but not trained or saved.

    In bfloat16, factors of matrix products are rounded, and nothing else (`pack_generator`); the decoder computes in
    bfloat16 throughout, the encoder stays as it is.
    """
    pack_generator(model.generator, dtype)
    for name in ("language_model", "projector_in", "projector_out"):
        setattr(model, name, pack_linears(getattr(model, name), dtype, torch.float32))
    model.image_tokenizer.decoder.to(dtype)


def pack_generator(generator: BitwiseGenerator, dtype: torch.dtype = torch.float32) -> None:
    """The same for a generator alone.

    In bfloat16 the factors of matrix products are rounded; the residual stream, norms, attention and the head, on which
    the signs of the bits depend, stay in float32.
    """
    for name in ("blocks", "memory_proj", "slot_proj"):
        if hasattr(generator, name):
            setattr(generator, name, pack_linears(getattr(generator, name), dtype, torch.float32))
