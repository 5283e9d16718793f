"""Packed linear layers compute what the layers they replace compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vargpt import cpu
from vargpt.loading.packing import PackedLinear, pack_linears

TOLERANCE = {torch.float32: {"atol": 1e-5, "rtol": 1e-5}, torch.bfloat16: {"atol": 3e-2, "rtol": 3e-2}}


@pytest.fixture(params=["packed", "plain"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Packed where this CPU has such kernels, and as on a CPU without them."""
    if request.param == "plain":
        monkeypatch.setattr(cpu, "has_packed_kernels", lambda dtype: False)
    return request.param


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", [nn.GELU("tanh"), nn.GELU(), nn.SiLU(), nn.ReLU()], ids=str)
@torch.no_grad()
def test_a_packed_module_computes_the_same(activation: nn.Module, dtype: torch.dtype, kernels: str) -> None:
    if kernels == "packed" and not cpu.has_packed_kernels(dtype):
        pytest.skip(f"this CPU has no kernels for packed weights in {dtype}")
    module = nn.Sequential(nn.Linear(24, 40), activation, nn.Linear(40, 16, bias=False))
    x = torch.randn(2, 5, 24)
    expected = module(x)
    packed = pack_linears(module, dtype, torch.float32)
    assert not any(isinstance(part, nn.Linear) for part in packed.modules())
    assert packed[0].packed == packed[2].packed == (kernels == "packed")
    assert packed(x).dtype == torch.float32
    assert_close(packed(x), expected, **TOLERANCE[dtype])
    assert_close(packed(x[:1, :1]), expected[:1, :1], **TOLERANCE[dtype])


def test_a_lone_layer_comes_back_packed_and_returns_its_own_dtype() -> None:
    packed = pack_linears(nn.Linear(4, 4), torch.bfloat16)
    assert isinstance(packed, PackedLinear) and packed(torch.randn(1, 4)).dtype == torch.bfloat16


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        pack_linears(nn.Linear(4, 4), torch.float16)
