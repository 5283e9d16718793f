"""What this processor can do: whatever is meant for one kind of CPU asks here first, and goes the plain way on a no.

In: a dtype, perhaps a device. Out: yes or no, or how much is gained. Nothing is read off a processor's name: torch says
which kernels it has, and one small matrix product is timed. Each question is asked once per process.
"""

from __future__ import annotations

import logging
import math
import time
from functools import cache

import torch

logger = logging.getLogger(__name__)

PACKED_KERNELS = (
    "_reorder_linear_weight",
    "_linear_pointwise",
)  # of oneDNN, which torch.compile uses for frozen models
SIDE, ROUNDS = 256, 5  # of the product that is timed
ENOUGH_SECONDS = 0.05  # for one dtype; where it is slow, a single product takes longer
PAYS = 1.2  # times the speed of float32
SLOW = 0.8


@cache
def has_packed_kernels(dtype: torch.dtype) -> bool:
    """Whether torch can multiply with weights that were laid out for this CPU once, in this dtype.

    On x86 in float32, and in bfloat16 where the processor computes in it; on other CPUs nobody has tried.
    """
    if not torch.backends.mkldnn.is_available() or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in PACKED_KERNELS):
        return False
    if dtype == torch.bfloat16:
        asked = "_is_mkldnn_bf16_supported"
        return hasattr(torch.ops.mkldnn, asked) and bool(getattr(torch.ops.mkldnn, asked)())
    return dtype == torch.float32


@cache
def gain_over_float32(dtype: torch.dtype) -> float:
    """How many times as fast as in float32 this CPU multiplies matrices: some gain from half precision, others take a
    hundred times as long. Takes less than 0.2 s either way.
    """
    return product_seconds(torch.float32) / product_seconds(dtype)


def product_seconds(dtype: torch.dtype) -> float:
    """The quickest of some matrix products. The first one prepares kernels and hardly ever is."""
    matrix = torch.ones(SIDE, SIDE, dtype=dtype)
    best, begun = math.inf, time.perf_counter()
    for _ in range(ROUNDS):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        now = time.perf_counter()
        best = min(best, now - started)
        if now - begun > ENOUGH_SECONDS:
            break
    return best


def bfloat16_pays(device: torch.device) -> bool:
    """Whether training gains by bfloat16 arithmetic: on a CPU it is measured, accelerators are asked."""
    if device.type == "cpu":
        return gain_over_float32(torch.bfloat16) > PAYS
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "mps" or torch.backends.mps.is_macos_or_newer(14, 0)


def warn_if_slow(dtype: torch.dtype, device: torch.device) -> None:
    """Says once what a dtype that was asked for costs here, if it is slower than float32."""
    if device.type == "cpu" and dtype != torch.float32:
        warn_once(dtype)


@cache
def warn_once(dtype: torch.dtype) -> None:
    gain = gain_over_float32(dtype)
    if gain < SLOW:
        name = str(dtype).removeprefix("torch.")
        logger.warning("%s takes about %.0f times as long as float32 on this CPU: float32 is better", name, 1 / gain)
