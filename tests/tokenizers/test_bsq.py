"""The bitwise quantiser against its published definition, and the tokenizer around it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from training.tokenizer.bsq_losses import BsqWeights, entropy_loss, reconstruct
from vargpt.config import BsqTokenizerConfig, InfinityTokenizerConfig
from vargpt.tokenizers.bsq import (
    BsqTokenizer,
    InfinityTokenizer,
    SignTokenizer,
    bits_to_codes,
    codes_to_bits,
    quantize,
)
from vargpt.tokenizers.multiscale import average_down, resample
from vargpt.types import Bits, ImageLayout, ImageTokens

SCALES = ((1, 1), (2, 2), (3, 3), (4, 4))
SQUARE = ImageLayout(16, 16, SCALES)
WIDE = ImageLayout(16, 24, ((1, 1), (1, 2), (3, 4), (4, 6)))


SHAPE = {"base_channels": 8, "channel_multipliers": (1, 2, 2), "num_res_blocks": 1}


def small_tokenizer(num_bits: int = 8, **changes: object) -> SignTokenizer:
    return BsqTokenizer(BsqTokenizerConfig(num_bits=num_bits, **(SHAPE | changes))).eval()


def published_tokenizer(num_bits: int = 8, **changes: object) -> SignTokenizer:
    config = InfinityTokenizerConfig(num_bits=num_bits, **(SHAPE | {"norm_groups": 4} | changes))
    return InfinityTokenizer(config).eval()


@pytest.fixture(scope="module", params=[small_tokenizer, published_tokenizer])
def tokenizer(request) -> SignTokenizer:
    torch.manual_seed(0)
    return request.param()


def random_bits(layout: ImageLayout, num_bits: int = 8, num_images: int = 2) -> ImageTokens:
    return ImageTokens(layout, tuple(torch.rand(num_images, h, w, num_bits) < 0.5 for h, w in layout.scales))


def test_two_scales_worked_out_by_hand_give_the_published_bits_and_codes() -> None:
    # One image, four channels, so a code is +-0.5. Channel means over the 2x2 grid: 0.25, 0, -0.25, 1.
    features = torch.tensor(
        [
            [[1.0, 0.0], [0.0, 0.0]],
            [[1.0, -1.0], [0.5, -0.5]],
            [[0.0, -1.0], [0.0, 0.0]],
            [[1.0, 1.0], [1.0, 1.0]],
        ]
    )[None]
    found = quantize(features, ((1, 1), (2, 2)))
    assert found.targets[0].flatten().tolist() == [True, False, False, True]  # a residual of exactly zero is 0
    # Residuals after +-0.5: [.5 -.5 -.5 -.5], [1.5 -.5 1 0], [.5 -.5 .5 .5], [.5 .5 .5 .5]
    by_cell = found.targets[1][0].permute(2, 0, 1).flatten(1).int().tolist()
    assert by_cell == [[1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1], [1, 1, 1, 1]]
    expected = [[1, 0, 0, 0], [0, -1, 0, -1], [0, -1, 0, 0], [1, 1, 1, 1]]
    torch.testing.assert_close(found.summed[0].flatten(1), torch.tensor(expected).float())


def test_residuals_go_down_by_area_and_codes_up_linearly_between_cell_centres() -> None:
    row = torch.tensor([0.0, 0.0, 6.0, 0.0]).view(1, 1, 1, 4)
    torch.testing.assert_close(average_down(row, (1, 2)).flatten(), torch.tensor([0.0, 3.0]))
    pair = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    torch.testing.assert_close(resample(pair, (1, 4)).flatten(), torch.tensor([0.0, 0.25, 0.75, 1.0]))
    # Going down linearly looks at the two cells around each new centre only, without averaging.
    eight = torch.tensor([9.0, 1.0, 2.0, 9.0, 9.0, 3.0, 4.0, 9.0]).view(1, 1, 1, 8)
    torch.testing.assert_close(resample(eight, (1, 2)).flatten(), torch.tensor([1.5, 3.5]))


def test_linear_resampling_of_a_picture_is_trilinear_resampling_of_one_frame() -> None:
    codes = torch.randn(2, 8, 3, 5)
    for scale in ((6, 8), (2, 3), (3, 5)):
        frame = torch.nn.functional.interpolate(codes[:, :, None], (1, *scale), mode="trilinear")[:, :, 0]
        torch.testing.assert_close(resample(codes, scale), frame, atol=1e-6, rtol=1e-6)


@given(st.integers(8, 64), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_bits_come_back_from_their_codes_and_every_code_has_length_one(num_bits: int, seed: int) -> None:
    bits = torch.rand(3, 2, 2, num_bits, generator=torch.Generator().manual_seed(seed)) < 0.5
    codes = bits_to_codes(bits)
    assert torch.equal(codes_to_bits(codes), bits)
    torch.testing.assert_close(codes.norm(dim=-1), torch.ones(3, 2, 2))


@pytest.mark.parametrize("layout", [SQUARE, WIDE])
def test_quantising_once_more_what_remains_never_makes_the_error_of_the_last_scale_larger_than_the_residual(
    layout: ImageLayout,
) -> None:
    features = torch.randn(2, 8, *layout.final_scale)
    found = quantize(features, layout.scales)
    left = features - found.summed
    step = 1 / 8**0.5
    expected = found.residuals[-1].abs() - step  # the code has the sign of the residual and length step
    torch.testing.assert_close(left.abs(), expected.abs())


@pytest.mark.parametrize("layout", [SQUARE, WIDE])
def test_latents_of_the_tokens_are_the_sum_that_the_quantiser_left(
    tokenizer: SignTokenizer, layout: ImageLayout
) -> None:
    features = torch.randn(2, 8, *layout.final_scale)
    found = quantize(features, layout.scales)
    latents = tokenizer.latents(ImageTokens(layout, found.targets))
    torch.testing.assert_close(latents.permute(0, 3, 1, 2), found.summed)


def test_tokens_whose_codes_are_the_features_are_found_again() -> None:
    # With one scale the sum is the code itself, so that encoding is exact; a finer grid of equal codes keeps it.
    bits = torch.rand(2, 4, 4, 8) < 0.5
    codes = bits_to_codes(bits).permute(0, 3, 1, 2)
    assert torch.equal(quantize(codes, ((4, 4),)).targets[0], bits)


@pytest.mark.parametrize("layout", [SQUARE, WIDE])
def test_pixels_become_bits_of_the_layout_and_bits_become_pixels(tokenizer: SignTokenizer, layout: ImageLayout) -> None:
    pixel_values = torch.rand(2, 3, layout.height, layout.width) * 2 - 1
    with torch.no_grad():
        tokens = tokenizer.encode(pixel_values, layout)
        pictures = [tokenizer.decode(tokens.prefix(k + 1)) for k in range(layout.num_scales)]
    assert tokens.is_complete
    assert all(grid.dtype == torch.bool for grid in tokens.grids)
    assert [grid.shape for grid in tokens.grids] == [(2, *scale, 8) for scale in layout.scales]
    assert all(picture.shape == pixel_values.shape and picture.abs().max() <= 1 for picture in pictures)
    assert not torch.equal(pictures[0], pictures[-1])


@pytest.mark.parametrize("layout", [SQUARE, WIDE])
def test_the_input_of_a_scale_does_not_move_when_that_scale_or_a_finer_one_changes(
    tokenizer: SignTokenizer, layout: ImageLayout
) -> None:
    tokens = random_bits(layout)
    for k in range(1, layout.num_scales):
        grids = tokens.grids[:k] + tuple(~grid for grid in tokens.grids[k:])
        before, after = tokenizer.next_input(tokens, k), tokenizer.next_input(ImageTokens(layout, grids), k)
        assert before.shape == (2, *layout.scales[k], 8)
        assert torch.equal(before, after)
        assert torch.equal(before, tokenizer.next_input(tokens.prefix(k), k))
        changed = (*tokens.grids[: k - 1], ~tokens.grids[k - 1], *tokens.grids[k:])
        assert not torch.equal(before, tokenizer.next_input(ImageTokens(layout, changed), k))


def test_all_scale_inputs_at_once_are_the_inputs_one_by_one(tokenizer: SignTokenizer) -> None:
    tokens = random_bits(WIDE)
    together = tokenizer.scale_inputs(tokens)
    assert len(together) == WIDE.num_scales - 1
    for k, scale_input in enumerate(together, start=1):
        assert torch.equal(scale_input, tokenizer.next_input(tokens, k))


def test_gradients_reach_the_encoder_straight_through_the_signs(tokenizer: SignTokenizer) -> None:
    pixel_values = torch.rand(2, 3, 16, 16) * 2 - 1
    tokenizer.zero_grad()
    rebuilt = reconstruct(tokenizer, pixel_values, SQUARE, BsqWeights())
    rebuilt.pixel_values.square().mean().backward()
    gradient = tokenizer.encoder.conv_in.weight.grad
    assert gradient is not None and gradient.abs().sum() > 0
    with torch.no_grad():  # the picture is the one of the tokens, only the gradient pretends
        tokens = tokenizer.encode(pixel_values, SQUARE)
        codes = tokenizer.latents(tokens).permute(0, 3, 1, 2)
        torch.testing.assert_close(tokenizer.decoder(codes), rebuilt.pixel_values, atol=1e-5, rtol=1e-5)


def test_a_picture_that_stops_early_is_decoded_from_that_prefix(tokenizer: SignTokenizer) -> None:
    pixel_values = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        rebuilt = reconstruct(tokenizer, pixel_values, SQUARE, BsqWeights(), stop_after=torch.tensor([2, 4]))
        tokens = tokenizer.encode(pixel_values, SQUARE)
        expected = [tokenizer.decode(tokens.select([0]).prefix(2)), tokenizer.decode(tokens.select([1]))]
    torch.testing.assert_close(rebuilt.pixel_values.clamp(-1, 1), torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_entropy_tells_undecided_from_decided_and_constant_from_varied_bits() -> None:
    undecided = torch.tensor([1e-4, -1e-4] * 4).view(1, 8, 1, 1).repeat(6, 1, 2, 2)
    undecided[:, 0] = 1.0  # the normalised rest is then close to zero
    decided = torch.where(torch.rand(64, 8, 2, 2) < 0.5, 1.0, -1.0)
    decided_entropy, used = entropy_loss((decided,), 1.0)
    assert decided_entropy < 0.2 and used > 0.95
    constant_entropy, constant_used = entropy_loss((torch.ones(64, 8, 2, 2),), 1.0)
    assert constant_used < 0.2 and torch.isclose(constant_entropy, constant_used)
    assert entropy_loss((undecided,), 1.0)[0] > 0.8


@pytest.mark.parametrize("num_bits", [8, 20, 64])
@pytest.mark.parametrize("make", [small_tokenizer, published_tokenizer])
def test_any_number_of_bits_and_more_blocks_build_and_run(make, num_bits: int) -> None:
    tokenizer = make(num_bits, num_res_blocks=2)
    with torch.no_grad():
        tokens = tokenizer.encode(torch.zeros(1, 3, 16, 24), WIDE)
        assert tokenizer.decode(tokens).shape == (1, 3, 16, 24)
    assert tokens.grids[-1].shape == (1, 4, 6, num_bits)
    assert tokenizer.space == Bits(num_bits) and tokenizer.code_dim == num_bits and tokenizer.downsample_factor == 4


def test_wrong_sizes_and_settings_are_refused_with_what_is_allowed(tokenizer: SignTokenizer) -> None:
    with pytest.raises(ValueError, match="factor 4"):
        tokenizer.encode(torch.zeros(1, 3, 32, 32), ImageLayout(32, 32, SCALES))
    with pytest.raises(ValueError, match="resize"):
        tokenizer.encode(torch.zeros(1, 3, 16, 24), SQUARE)
    with pytest.raises(ValueError, match="scale 0 has no input"):
        tokenizer.next_input(random_bits(SQUARE), 0)
    with pytest.raises(ValueError, match="2 grids are given"):
        tokenizer.next_input(random_bits(SQUARE).prefix(2), 3)
    with pytest.raises(ValueError, match="norm_groups=3"):
        published_tokenizer(norm_groups=3)
    with pytest.raises(ValueError, match="has no such form: {'norm_groups': 8}; .*{'norm_groups': 0}"):
        small_tokenizer(norm_groups=8)


def test_what_is_left_of_a_picture_has_the_signs_of_its_next_bits(tokenizer) -> None:
    """At the last scale exactly, and of a picture of another size too; at none it is the picture itself."""
    tokens = random_bits(SQUARE)
    latents = tokenizer.latents(tokens)
    last = tokenizer.residual(latents, SQUARE, tokens.grids[:-1])
    assert torch.equal(last > 0, tokens.grids[-1])
    first = tokenizer.residual(latents, SQUARE, ())
    assert_close(first[:, 0, 0], latents.mean((1, 2)))
    assert tokenizer.residual(latents, WIDE, random_bits(WIDE).grids[:1]).shape[1:3] == WIDE.scales[1]
