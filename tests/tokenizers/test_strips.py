"""Shortcuts of decoding: equal, up to float32 rounding, to the operations they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vargpt.tokenizers import strips
from vargpt.tokenizers.convnet import CellNorm, Decoder, GroupNorm, Style


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 6), (5, 3)])
@torch.no_grad()
def test_a_convolution_of_the_doubled_picture_needs_no_doubled_picture(height: int, width: int) -> None:
    conv, hidden = nn.Conv2d(6, 4, 3, padding=1), torch.randn(2, 6, height, width)
    expected = conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
    assert_close(strips.doubled_conv(hidden, conv), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 6, eps=1e-6), CellNorm(6)], ids=["groups", "cells"])
@torch.no_grad()
def test_strips_join_without_a_seam(norm: nn.Module, kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for parameter in norm.parameters():
        parameter.add_(torch.rand_like(parameter))
    conv, hidden = nn.Conv2d(6, 4, kernel, padding=kernel // 2), 3 * torch.randn(2, 6, 11, 5) + 1
    beside = torch.randn(2, 4, 11, 5)
    expected = conv(F.silu(norm(hidden))) + beside
    for rows in (1, 3, 20):
        monkeypatch.setattr(strips, "STRIP_BYTES", rows * 2 * 6 * 5 * 4)
        assert_close(strips.swish_conv(hidden, norm, conv, beside), expected, atol=1e-5, rtol=1e-5)
        assert_close(strips.swish_conv(hidden, norm, conv), expected - beside, atol=1e-5, rtol=1e-5)


def test_a_decoder_by_strips_makes_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, latents = Decoder(8, 16, [1, 2], 1, Style(8)).requires_grad_(False), torch.randn(1, 8, 6, 4)
    expected = decoder(latents)  # gradients are on: no shortcuts
    with torch.no_grad():
        short = decoder(latents)
        monkeypatch.setattr(strips, "LARGE_BYTES", 0)
        monkeypatch.setattr(strips, "STRIP_BYTES", 2048)
        long = decoder(latents)
    assert_close(short, expected, atol=1e-4, rtol=0)
    assert_close(long, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_group_norms_are_precise_in_every_memory_layout(mean: float, layout: torch.memory_format) -> None:
    norm, hidden = GroupNorm(4, 32, eps=1e-6), torch.randn(2, 32, 96, 96) + mean
    for parameter in norm.parameters():
        parameter.data.add_(torch.rand_like(parameter))
    hidden = hidden.contiguous(memory_format=layout).requires_grad_()
    exact = hidden.detach().double().contiguous().requires_grad_()
    expected = F.group_norm(exact, 4, norm.weight.double(), norm.bias.double(), 1e-6)
    found = norm(hidden)
    assert_close(found.double(), expected, atol=2e-5, rtol=0)  # torch's own kernel: 1e-2 for channels-last data
    direction = torch.randn_like(found)
    found.backward(direction)
    expected.backward(direction.double())
    assert hidden.grad is not None and exact.grad is not None
    assert_close(hidden.grad.double(), exact.grad, atol=2e-5, rtol=0)
