"""The least time that a machine could take: what must be multiplied and read, and how fast it multiplies and reads.

In: configs and a layout. Out: `Work` per organ and scale, a `Machine`, and from both a limit in seconds. Counted are
matrix products, attention and convolutions as a good implementation does them: the keys of the memory once, a doubled
grid never formed (`tokenizers.strips`). A product of m x k and k x n is 2 m k n operations. Bytes are weights and
cached keys and values, each once per scale.

Shape legend: G guidance branches, l tokens of a scale, S keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from vargpt.benchmarks.speed import wait_for
from vargpt.config import InfinityConfig, InfinityTokenizerConfig, VargptConfig
from vargpt.loading.packing import PackedLinear
from vargpt.types import ImageLayout

SIDE = 2048  # of the square matrices that show how fast the machine multiplies
ROWS = 512
BANDWIDTH_BYTES = 256 * 2**20
REPEATS = 5


@dataclass(frozen=True)
class Work:
    """Operations (a multiplication and an addition are two) and values that must be read from memory."""

    flops: float
    values: float

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.values + other.values)

    def __mul__(self, times: float) -> Work:
        return Work(self.flops * times, self.values * times)


NO_WORK = Work(0, 0)


@dataclass(frozen=True)
class Machine:
    """What was measured: operations per second in one dtype (of the fastest kernel), bytes per second."""

    flops_per_s: float
    bytes_per_s: float
    bytes_per_value: int
    matmul_flops_per_s: float  # of torch.matmul, which is not always the fastest

    def with_matmul(self) -> Machine:
        """The same machine, if nothing multiplied faster than torch.matmul."""
        return replace(self, flops_per_s=self.matmul_flops_per_s)

    def seconds(self, work: Work) -> float:
        """The least time: whichever takes longer of multiplying and reading, if both go on at once."""
        return max(work.flops / self.flops_per_s, work.values * self.bytes_per_value / self.bytes_per_s)


def measure_machine(dtype: torch.dtype, device: torch.device | str = "cpu") -> Machine:
    """The best of some products by either of PyTorch's matrix kernels, and of some copies of a large tensor."""
    device = torch.device(device)
    square = torch.randn(SIDE, SIDE, device=device).to(dtype)
    rows = torch.randn(ROWS, SIDE, device=device).to(dtype)
    packed = PackedLinear(nn.Linear(SIDE, SIDE, bias=False, device=device).requires_grad_(False), dtype)
    matmul = 2 * SIDE**3 / fastest(lambda: square @ square, device)
    best = max(matmul, 2 * SIDE**2 * ROWS / fastest(lambda: packed(rows), device))
    source = torch.ones(BANDWIDTH_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * BANDWIDTH_BYTES / fastest(lambda: target.copy_(source), device)
    return Machine(best, bandwidth, torch.empty(0, dtype=dtype).element_size(), matmul)


@torch.no_grad()
def fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the quickest of some runs."""
    work()
    times = []
    for _ in range(REPEATS):
        wait_for(device)
        started = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return min(times)


def linear(rows: float, inputs: int, outputs: int) -> Work:
    return Work(2 * rows * inputs * outputs, inputs * outputs)


def attention(queries: float, keys: float, width: int, caches: float = 1, kv_width: int | None = None) -> Work:
    """`queries` rows in all, each over `keys` keys; `caches` rows of keys and values are read."""
    return Work(4 * queries * keys * width, 2 * caches * keys * (kv_width or width))


def generator_work(
    config: InfinityConfig, layout: ImageLayout, k: int, memory_length: int, projected: bool, branches: int = 2
) -> Work:
    """Scale k of one image through a pooled generator.

    `projected`: the memory is projected to the generator's width first. What happens once counts at scale 0: the memory
    and its keys, but not the pool over it, which is next to nothing.
    """
    width, inner = config.hidden_size, config.mlp_size
    length, seen = layout.offsets[k + 1] - layout.offsets[k], layout.offsets[k + 1]
    rows, states = branches * length, branches * memory_length
    keys_from = width if projected else config.memory_size
    layer = (
        linear(rows, width, 3 * width)
        + linear(rows, width, width) * 3  # out of self-attention, into and out of cross-attention
        + linear(rows, width, inner) * 2
        + attention(rows, seen, width, branches)
        + attention(rows, memory_length, width, branches)
    )
    once = linear(branches, width, 6 * width)
    if k == 0:
        layer += linear(states, keys_from, 2 * width)
        if projected:
            once += linear(states, config.memory_size, width) + linear(states, width, width)
    total = layer * config.num_layers + linear(branches, width, 2 * width) + linear(rows, width, 2 * config.num_bits)
    return total + (once if k == 0 else linear(length, config.code_dim, width))


def language_work(
    config: VargptConfig, layout: ImageLayout, k: int, prompt_length: int, branches: int = 2, forgets: bool = True
) -> Work:
    """Scale k of one image through the language model and both projectors, without a head.

    `forgets`: the unconditional branch sees its own scale only.
    """
    text, drawing = config.text_config, config.generator_config
    width, heads = text.hidden_size, text.num_attention_heads
    head = width // heads
    grouped = text.num_key_value_heads * head
    length, seen = layout.offsets[k + 1] - layout.offsets[k], layout.offsets[k + 1]
    rows = branches * length
    null_keys = length if forgets else seen
    layer = (
        linear(rows, width, width) * 2
        + linear(rows, width, grouped) * 2
        + linear(rows, width, text.intermediate_size) * 3
        + attention(length, prompt_length + seen, width, 1, grouped)
        + attention((branches - 1) * length, null_keys, width, branches - 1, grouped)
    )
    total = layer * text.num_hidden_layers
    for before, after in ((drawing.hidden_size, width), (width, drawing.memory_size)):
        total += linear(rows, before, before) + linear(rows, before, after)
    return total


def decoder_work(config: InfinityTokenizerConfig, layout: ImageLayout, doubled: bool = False) -> Work:
    """One picture through the decoder. `doubled`: with the grids formed that upsampling repeats, as written in papers.

    Values count weights, and what enters and leaves every convolution.
    """
    widths = [config.base_channels * multiplier for multiplier in reversed(config.channel_multipliers)]
    cells = layout.height * layout.width // 4 ** (len(widths) - 1)

    def conv(before: int, after: int, kernel: int = 9) -> Work:
        return Work(2 * cells * before * after * kernel, before * after * kernel + cells * (before + after))

    total = conv(config.feature_channels, widths[0]) + conv(widths[0], widths[0]) * 4
    before = widths[0]
    for number, width in enumerate(widths):
        for _ in range(config.num_res_blocks + 1):
            total += conv(before, width) + conv(width, width)
            total += conv(before, width, 1) if before != width else NO_WORK
            before = width
        if number < len(widths) - 1:
            cells *= 4
            total += conv(width, width, 9 if doubled else 4)
    return total + conv(widths[-1], 3)
