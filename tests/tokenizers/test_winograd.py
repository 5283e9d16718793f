"""Convolutions with fewer products: equal, up to float32 rounding, to those that they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vargpt.tokenizers import strips, winograd
from vargpt.tokenizers.convnet import Decoder, ResidualBlock, Style
from vargpt.tokenizers.winograd import DoubledConv, WinogradConv, is_worthwhile

SIZES = [(1, 1), (4, 6), (5, 3), (7, 9), (8, 16)]
EXACT = {"atol": 2e-5, "rtol": 1e-5}


def decoder(patch_size: int = 1) -> Decoder:
    return Decoder(8, 16, [1, 2], 1, Style(8), patch_size=patch_size).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("height", "width"), SIZES)
@torch.no_grad()
def test_six_products_make_four_results(height: int, width: int, bias: bool) -> None:
    conv, hidden = nn.Conv2d(6, 5, 3, padding=1, bias=bias), torch.randn(2, 6, height, width)
    assert_close(WinogradConv(conv)(hidden), conv(hidden), **EXACT)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("height", "width"), SIZES)
@torch.no_grad()
def test_nine_products_make_the_four_results_of_a_doubled_cell(
    height: int, width: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv, hidden = nn.Conv2d(6, 5, 3, padding=1, bias=bias), torch.randn(2, 6, height, width)
    expected = conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
    for rows in (1, 3, 100):
        monkeypatch.setattr(winograd, "DOUBLED_BYTES", rows * 2 * 6 * width * 4)
        assert_close(DoubledConv(conv)(hidden), expected, **EXACT)


@torch.no_grad()
def test_strips_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, conv = nn.GroupNorm(2, 6, eps=1e-6), nn.Conv2d(6, 4, 3, padding=1)
    hidden, beside = 3 * torch.randn(2, 6, 11, 5) + 1, torch.randn(2, 4, 11, 5)
    expected = conv(F.silu(norm(hidden))) + beside
    for rows in (1, 3, 20):
        monkeypatch.setattr(strips, "STRIP_BYTES", rows * 2 * 6 * 5 * 4)
        assert_close(strips.swish_conv(hidden, norm, WinogradConv(conv), beside), expected, **EXACT)


@torch.no_grad()
def test_a_packed_decoder_makes_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "NARROWEST", 16)
    plain, latents = decoder(), torch.randn(2, 8, 6, 5)
    expected = plain(latents)
    plain.pack(torch.float32)
    assert any(isinstance(module, DoubledConv) for module in plain.modules())
    blocks = [module for module in plain.modules() if isinstance(module, ResidualBlock)]
    assert blocks and all(isinstance(conv, WinogradConv) for block in blocks for conv in (block.conv1, block.conv2))
    assert_close(plain(latents), expected, atol=1e-4, rtol=0)


def test_what_would_not_gain_or_not_be_exact_stays_as_it_is() -> None:
    def packed(dtype: torch.dtype, patch_size: int = 1) -> set[type]:
        one = decoder(patch_size)
        one.pack(dtype)
        return {type(module) for module in one.modules()} & {WinogradConv, DoubledConv}

    assert packed(torch.bfloat16) == set()
    assert packed(torch.float32, patch_size=4) == set()
    assert packed(torch.float32) == {DoubledConv}, "16 channels are too few for sums along rows"
    wide = {"in_channels": 256, "out_channels": 128, "kernel_size": 3, "padding": 1}
    assert is_worthwhile(nn.Conv2d(**wide))
    for change in ({"stride": 2}, {"padding": 0}, {"kernel_size": 1}, {"out_channels": 3}, {"groups": 2}):
        assert not is_worthwhile(nn.Conv2d(**(wide | change)))


@torch.no_grad()
def test_machines_without_the_kernels_take_the_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vargpt.packing.can_pack", lambda: False)
    conv, hidden = nn.Conv2d(6, 5, 3, padding=1), torch.randn(1, 6, 8, 8)
    layer = WinogradConv(conv)
    assert not any(one.packed for one in layer.convs)
    assert_close(layer(hidden), conv(hidden), **EXACT)
