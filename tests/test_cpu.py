"""What this processor can do is asked, never assumed; where it cannot, everything still works."""

from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from vargpt import cpu
from vargpt.commands.doctor import bfloat16_finding
from vargpt.loading.devices import resolve_dtype
from vargpt.loading.packing import pack_linears

CPU = torch.device("cpu")
HAS_KERNELS = inspect.unwrap(cpu.has_packed_kernels)  # without what it remembers, and whatever --plain-cpu says
GAIN = inspect.unwrap(cpu.gain_over_float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_that_are_said_to_be_there_work(dtype: torch.dtype) -> None:
    if not HAS_KERNELS(dtype):
        pytest.skip(f"this CPU has no kernels for packed weights in {dtype}")
    weight = torch.ops.mkldnn._reorder_linear_weight(torch.eye(8, dtype=dtype), 4)
    rows = torch.randn(3, 8).to(dtype)
    assert torch.equal(torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], ""), rows)


@pytest.mark.parametrize("lack", ["oneDNN", "x86", "operators", "bfloat16"])
def test_a_cpu_that_lacks_something_has_no_packed_kernels(lack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if lack == "oneDNN":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    elif lack == "x86":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "NEON")
    elif lack == "operators":
        monkeypatch.setattr(cpu, "PACKED_KERNELS", ("_linear_pointwise", "_not_in_this_build"))
    else:
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not HAS_KERNELS(torch.bfloat16)
    assert lack == "bfloat16" or not HAS_KERNELS(torch.float32)


def test_a_processor_without_bfloat16_packs_and_multiplies_all_the_same() -> None:
    """In a process whose oneDNN keeps to AVX2, as on many laptops."""
    code = (
        "import torch; from torch import nn; from vargpt import cpu; from vargpt.loading.packing import pack_linears;"
        "assert not cpu.has_packed_kernels(torch.bfloat16);"
        "packed = pack_linears(nn.Sequential(nn.Linear(8, 8), nn.SiLU()), torch.bfloat16);"
        "assert not packed[0].packed and packed(torch.randn(2, 8)).dtype == torch.bfloat16"
    )
    limited = os.environ | {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=limited, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_slow_product_is_timed_once_and_a_quick_one_until_it_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {torch.float32: 0, torch.bfloat16: 0}

    def mm(matrix: torch.Tensor, _: torch.Tensor) -> None:
        counts[matrix.dtype] += 1
        time.sleep(0.001 if matrix.dtype == torch.float32 else 1.5 * cpu.ENOUGH_SECONDS)

    monkeypatch.setattr(torch, "mm", mm)
    assert 0.001 < GAIN(torch.bfloat16) < 0.1
    assert counts == {torch.float32: cpu.ROUNDS, torch.bfloat16: 1}


@pytest.mark.parametrize(("gain", "pays"), [(0.01, False), (1.0, False), (2.0, True)])
def test_bfloat16_pays_on_a_cpu_that_is_clearly_quicker_in_it(gain, pays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "gain_over_float32", lambda dtype: gain)
    assert cpu.bfloat16_pays(CPU) is pays


@pytest.mark.parametrize(("gain", "hint"), [(0.01, "keep float32"), (2.0, "larger models gain from it")])
def test_the_doctor_says_what_trainings_go_by(gain, hint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "gain_over_float32", lambda dtype: gain)
    assert bfloat16_finding().value.startswith(f"{gain:.2g} times the speed of float32 here; {hint}")


@pytest.mark.parametrize(("gain", "warned"), [(0.01, True), (2.0, False)])
def test_a_dtype_that_is_slow_here_is_given_with_one_warning(gain, warned, monkeypatch, caplog) -> None:
    monkeypatch.setattr(cpu, "gain_over_float32", lambda dtype: gain)
    cpu.warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, "vargpt.cpu"):
        for _ in range(2):
            assert resolve_dtype("bfloat16", CPU) == torch.bfloat16
            assert resolve_dtype("auto", CPU) == resolve_dtype("float32", CPU) == torch.float32
    cpu.warn_once.cache_clear()
    expected = ["bfloat16 takes about 100 times as long as float32 on this CPU: float32 is better"]
    assert [record.getMessage() for record in caplog.records] == (expected if warned else [])


def test_packing_asks_for_its_own_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(cpu, "has_packed_kernels", lambda dtype: asked.append(dtype))
    pack_linears(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.bfloat16)
    assert asked == [torch.bfloat16, torch.bfloat16]
