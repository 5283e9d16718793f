"""The published bitwise autoencoder: its weights load, and its features, bits, inputs and pictures are ours too."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from tests.parity.cases_on_disk import Case
from tests.parity.published import published_flips
from vargpt.config import InfinityTokenizerConfig
from vargpt.loading.weight_map import fill
from vargpt.published.infinity_weights import autoencoder_map, unnested
from vargpt.tokenizers.bit_correction import BitFlip, CorrectedTokens, draw_flips
from vargpt.tokenizers.bsq import InfinityTokenizer, bits_to_codes, quantize
from vargpt.types import ImageLayout, ImageTokens

pytestmark = pytest.mark.cases_of("infinity", "vae")


def build(case: Case) -> InfinityTokenizer:
    config = case.config
    tokenizer = InfinityTokenizer(
        InfinityTokenizerConfig(
            num_bits=config["codebook_dim"],
            base_channels=config["base_ch"],
            channel_multipliers=tuple(config["ch_mult"]),
            num_res_blocks=config["num_res_blocks"],
            norm_groups=32,
        )
    )
    return tokenizer.eval()


@pytest.fixture(scope="module")
def tokenizer(case: Case) -> InfinityTokenizer:
    built = build(case)
    weight_map = autoencoder_map(len(case.config["ch_mult"]), built.code_dim)
    ours = built.state_dict()
    for name, tensor in case.weights("vae").items():
        place = weight_map.place(name)
        if place is not None:
            fill(ours[place.name], place, tensor)
    return built


@pytest.fixture(scope="module")
def layout(case: Case) -> ImageLayout:
    height, width = case.input("img_u8").shape[-2:]
    return ImageLayout(height, width, tuple((h, w) for _, h, w in case.config["scale_schedule"]))


@pytest.fixture(scope="module")
def pixels(case: Case) -> torch.Tensor:
    return case.input("img_u8").float() / 255 * 2 - 1


def bits(case: Case, layout: ImageLayout, name: str = "bits") -> ImageTokens:
    pairs = zip(case.outputs(name), layout.scales, strict=True)
    grids = [grid.reshape(-1, h, w, grid.shape[-1]).bool() for grid, (h, w) in pairs]
    return ImageTokens(layout, tuple(grids))


@pytest.mark.recorded("raw_features", "bits", "z")
@torch.no_grad()
def test_features_and_bits_are_the_published_ones(case, tokenizer, layout, pixels) -> None:
    features = tokenizer.features(pixels, layout)
    case.check(features, "raw_features")
    found = quantize(features, layout.scales)
    case.check(found.summed, "z")
    assert ImageTokens(layout, found.targets) == bits(case, layout)


@pytest.mark.recorded("decode_crop", "decode_from_indices_crop", "decode_from_indices_summed")
@torch.no_grad()
def test_pictures_are_the_published_ones(case, tokenizer, layout) -> None:
    tokens = bits(case, layout)
    case.check(tokenizer.latents(tokens).permute(0, 3, 1, 2)[:, :, None], "decode_from_indices_summed")
    picture = tokenizer.decoder(tokenizer.latents(tokens).permute(0, 3, 1, 2))
    for name in ("decode_crop", "decode_from_indices_crop"):
        rows, columns = case.output(name).shape[-2:]
        # the published decode clamps the second only
        expected = case.output(name)
        ours = picture[..., :rows, :columns]
        assert_close(ours.clamp(expected.min(), expected.max()), expected, **case.tolerance)


@pytest.mark.recorded("bsc*_x_BLC_wo_prefix", "bsc*_gt_bits")
@torch.no_grad()
def test_inputs_and_corrected_targets_of_every_scale_are_the_published_ones(case, tokenizer, layout, pixels) -> None:
    features = tokenizer.features(pixels, layout)
    for name in [name.removesuffix("_x_BLC_wo_prefix") for name in case.names("bsc*_x_BLC_wo_prefix")]:
        strength = float(name.removeprefix("bsc"))
        corrected = corrected_as_recorded(case, tokenizer, features, layout, name, strength)
        inputs = torch.cat([grid.flatten(1, 2) for grid in tokenizer.scale_inputs(corrected.inputs)], dim=1)
        case.check(inputs, f"{name}_x_BLC_wo_prefix")


def corrected_as_recorded(case, tokenizer, features, layout, name: str, strength: float) -> CorrectedTokens:
    """The tokens whose targets are the recorded ones, with the seed that the case says (or one that people take)."""
    for seed in case.seeds(name):
        flips = published_flips(layout.scales, len(features), tokenizer.code_dim, strength, seed)
        corrected = tokenizer.correct(features, layout, flips)
        pairs = zip(corrected.targets.grids, case.outputs(f"{name}_gt_bits"), strict=True)
        if all(torch.equal(grid.flatten(1, 2), bits.bool()) for grid, bits in pairs):
            return corrected
    raise AssertionError(f"{name}: other targets with all of the seeds {list(case.seeds(name))}")


@pytest.mark.recorded("var_inputs_area")
@torch.no_grad()
def test_the_published_area_inputs_follow_from_our_bits(case, layout) -> None:
    summed = torch.zeros(1)
    for k, expected in enumerate(case.outputs("var_inputs_area")):
        code = bits_to_codes(bits(case, layout).grids[k]).permute(0, 3, 1, 2)
        summed = summed + torch.nn.functional.interpolate(code, layout.final_scale, mode="bilinear")
        ours = torch.nn.functional.interpolate(summed, layout.scales[k + 1], mode="area")
        assert_close(ours[:, :, None], expected, **case.tolerance)


def test_the_map_goes_both_ways_and_knows_every_name(case, tokenizer) -> None:
    published = case.weights("vae")
    weight_map = autoencoder_map(len(case.config["ch_mult"]), tokenizer.code_dim)
    again = dict(weight_map.export(tokenizer.state_dict().items()))
    assert again.keys() == published.keys()
    assert all(torch.equal(again[name], published[name]) for name in published if "mask" not in name)
    flat = autoencoder_map(len(case.config["ch_mult"]), tokenizer.code_dim, nested=False)
    for name in published:
        if "mask" not in name:
            outer, weight = name.rsplit(".", 1)
            short = unnested(outer + ".{w}").replace("{w}", weight)
            assert flat.place(short) == weight_map.place(name)


def test_flips_are_drawn_up_to_their_strength(case, tokenizer, layout, pixels) -> None:
    flip = BitFlip(0.3, torch.Generator().manual_seed(0))
    flips = draw_flips(layout, len(pixels), tokenizer.code_dim, flip)
    corrected = tokenizer.correct(tokenizer.features(pixels, layout), layout, flips)
    changed = (corrected.inputs.flat() ^ corrected.targets.flat()).float().mean()
    assert 0 < float(changed) < 0.3
