"""Bitwise self-correction: what is flipped, and what is then asked for."""

from __future__ import annotations

import pytest
import torch

from tests.tokenizers.test_bsq import SQUARE, WIDE, small_tokenizer
from vargpt.tokenizers.bit_correction import BitFlip, CorrectedTokens, draw_flips
from vargpt.tokenizers.bsq import SignTokenizer, quantize
from vargpt.tokenizers.multiscale import average_down
from vargpt.types import ImageLayout, ImageTokens


@pytest.fixture(scope="module")
def tokenizer() -> SignTokenizer:
    torch.manual_seed(0)
    return small_tokenizer()


def flipped(
    tokenizer: SignTokenizer, pixel_values: torch.Tensor, layout: ImageLayout, flip: BitFlip
) -> CorrectedTokens:
    features = tokenizer.features(pixel_values, layout)
    return tokenizer.correct(features, layout, draw_flips(layout, len(features), tokenizer.code_dim, flip))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("layout", [SQUARE, WIDE])
def test_flipping_nothing_is_plain_encoding(tokenizer: SignTokenizer, layout: ImageLayout) -> None:
    pixel_values = torch.rand(2, 3, layout.height, layout.width) * 2 - 1
    with torch.no_grad():
        plain = tokenizer.encode(pixel_values, layout)
        corrected = flipped(tokenizer, pixel_values, layout, BitFlip(0.0))
    for k in range(layout.num_scales):
        assert torch.equal(plain.grids[k], corrected.inputs.grids[k])
        assert torch.equal(plain.grids[k], corrected.targets.grids[k])


@pytest.mark.parametrize("layout", [SQUARE, WIDE])
def test_targets_are_the_signs_of_what_the_flipped_inputs_left(tokenizer: SignTokenizer, layout: ImageLayout) -> None:
    features = torch.randn(3, 8, *layout.final_scale)
    flips = draw_flips(layout, 3, 8, BitFlip(0.5, seeded()))
    corrected = tokenizer.correct(features, layout, flips)
    for k, scale in enumerate(layout.scales):
        seen = tokenizer.latents(corrected.inputs.prefix(k)).permute(0, 3, 1, 2) if k else 0
        expected = average_down(features - seen, scale).permute(0, 2, 3, 1) > 0
        assert torch.equal(corrected.targets.grids[k], expected)
        assert torch.equal(corrected.inputs.grids[k], corrected.targets.grids[k] ^ flips[k])


def test_later_scales_repair_part_of_what_flips_spoilt() -> None:
    layout = ImageLayout(16, 16, ((1, 1), (2, 2), (4, 4), (4, 4)))
    features = 0.3 * torch.randn(16, 8, 4, 4)
    flips = draw_flips(layout, 16, 8, BitFlip(0.6, seeded()))
    repaired = quantize(features, layout.scales, flips)
    # The same flips on bits that were decided without looking at them.
    blind = quantize(features, layout.scales)
    grids = tuple(bits ^ flip for bits, flip in zip(blind.targets, flips, strict=True))
    spoilt = small_tokenizer().latents(ImageTokens(layout, grids))
    error = (features - repaired.summed).square().mean()
    assert error < 0.8 * (features - spoilt.permute(0, 3, 1, 2)).square().mean()


def test_the_share_of_flips_is_uniform_up_to_the_strength_per_image_and_scale() -> None:
    layout = ImageLayout(128, 128, ((32, 32), (32, 32)))
    first, last = draw_flips(layout, 200, 8, BitFlip(0.4, seeded()))
    shares = first.float().mean(dim=(1, 2, 3))
    assert abs(shares.mean() - 0.2) < 0.03 and shares.max() < 0.43 and shares.min() < 0.02
    assert not last.any()  # nobody's input


def test_each_image_can_have_its_own_strength() -> None:
    first, *_ = draw_flips(WIDE, 2, 64, BitFlip(torch.tensor([0.0, 1.0]), seeded(3)))
    assert not first[0].any() and first[1].any()
    with pytest.raises(ValueError, match="2 flip strengths do not fit 3 images"):
        draw_flips(WIDE, 3, 8, BitFlip(torch.tensor([0.0, 1.0])))


def test_equal_generators_give_equal_tokens_and_others_do_not(tokenizer: SignTokenizer) -> None:
    pixel_values = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        first, again, other = (flipped(tokenizer, pixel_values, SQUARE, BitFlip(0.5, seeded(s))) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.inputs.grids, again.inputs.grids, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.inputs.grids, other.inputs.grids, strict=True))


@pytest.mark.parametrize("strength", [-0.1, 1.5, torch.tensor([0.1, 2.0])])
def test_a_strength_that_is_no_share_is_refused(strength: object) -> None:
    with pytest.raises(ValueError, match="share of the bits"):
        BitFlip(strength)
