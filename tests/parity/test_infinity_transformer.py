"""The published next-scale transformer: teacher-forced logits, and the pictures it draws, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.testing import assert_close

from tests.parity.cases_on_disk import Case
from tests.parity.published import (
    GivenInputs,
    build_autoencoder,
    build_generator,
    call_of,
    check_bits,
    check_rounded_bits,
    check_sampled_bits,
    layout_of,
    padded,
    published_sample,
    recorded_guidance,
    with_rounded_attention,
)
from vargpt.generators.infinity import InfinityGenerator
from vargpt.generators.parts import rotary_2d
from vargpt.generators.schedules import corner_positions_2d, infinity_schedules
from vargpt.sampling import seeded
from vargpt.tokenizers.bsq import InfinityTokenizer
from vargpt.types import Branch, ImageContext, ImageLayout, ImageProgress, ImageSampling, ImageTokens

pytestmark = pytest.mark.cases_of("infinity", "vae", "infinity")


@pytest.fixture(scope="module")
def codec(case: Case) -> InfinityTokenizer:
    return build_autoencoder(case, case.config)


@pytest.fixture(scope="module")
def generator(case: Case, codec) -> InfinityGenerator:
    return build_generator(case, codec.code_dim)


@pytest.fixture(scope="module")
def rounded_generator(case: Case, codec) -> InfinityGenerator:
    return with_rounded_attention(build_generator(case, codec.code_dim))


def branch(case: Case, name: str = "text_kv_compact", lengths: str = "lens") -> Branch:
    states, mask = padded(case.input(name), case.input(lengths).tolist())
    return Branch(states, mask)


def teacher_forced(case: Case, generator: InfinityGenerator) -> torch.Tensor:
    layout, inputs = layout_of(case), case.input("x_BLC_wo_prefix")
    tokens = ImageTokens.from_flat(layout, torch.zeros(len(inputs), layout.num_tokens, inputs.shape[-1]).bool())
    return generator.logits(ImageContext((branch(case),)), tokens, GivenInputs(inputs, layout)).flatten(2)


@pytest.mark.recorded("logits_tf_ca_fp32")
@torch.no_grad()
def test_teacher_forced_logits(case, generator) -> None:
    case.check(teacher_forced(case, generator), "logits_tf_ca_fp32")


@pytest.mark.recorded("logits_tf_ca_bf16")
@torch.no_grad()
def test_teacher_forced_logits_with_rounded_cross_attention(case, rounded_generator) -> None:
    case.check(teacher_forced(case, rounded_generator), "logits_tf_ca_bf16")


@pytest.mark.recorded("rope_cache")
def test_rotary_positions_of_the_largest_picture_of_this_aspect(case, generator) -> None:
    grid = layout_of(case).position_grid
    assert grid is not None
    scales = next(tuple(map(tuple, scales)) for scales in infinity_schedules().values() if tuple(scales[-1]) == grid)
    positions = corner_positions_2d(ImageLayout(grid[0] * 16, grid[1] * 16, scales, grid))
    expected = case.output("rope_cache")
    cos, sin = rotary_2d(positions, 2 * expected.shape[-1], generator.config.rope_base)
    assert_close(torch.stack((cos, sin)), expected[:, : len(positions)], **case.tolerance)
    assert not expected[:, len(positions) :].any()  # published code pads


def draw(
    case: Case, generator, codec, *branches: Branch, seed: int = 0, given=None, **sampling
) -> Iterator[ImageProgress]:
    """Greedy with the guidance of the case, unless `sampling` says otherwise."""
    context = ImageContext((branch(case), *(branches or (Branch(None),))))
    settings = ImageSampling(**{"guidance_scale": call_of(case)["cfg"], "temperature": 0.0, **sampling})
    if settings.guidance_scale == 1.0:
        context = ImageContext(context.branches[:1])
    layout, rngs = layout_of(case, codec.downsample_factor), seeded([seed] * len(case.input("lens")))
    return generator.generate(context, layout, settings, rngs, codec, given)


@pytest.mark.recorded("greedy_bits")
def test_greedy_bits(case, generator, codec) -> None:
    check_bits(case, draw(case, generator, codec), "greedy_bits")


@pytest.mark.recorded("greedy_cfg_logits")
def test_the_guided_logits_behind_the_bits(case, generator, codec, monkeypatch) -> None:
    found, expected = recorded_guidance(monkeypatch), case.outputs("greedy_cfg_logits")
    list(draw(case, generator, codec))
    for k, logits in enumerate(expected):  # published code divides by the temperature first
        ours = found[k].flatten(1, 2) / call_of(case)["tau"]
        assert_close(ours, logits, **case.tolerance, msg=lambda text, k=k: f"scale {k}: {text}")


@pytest.mark.recorded("sampled_bits")
def test_sampled_bits_with_the_published_order_of_draws(case, generator, codec, monkeypatch) -> None:
    """All bits of all rows from one generator, with the published defaults; the first case does not tell its seed."""
    monkeypatch.setattr("vargpt.generators.bitwise.sample", published_sample)
    temperature = call_of(case)["tau"]
    check_sampled_bits(
        case,
        lambda seed: draw(case, generator, codec, seed=seed, temperature=temperature, top_p=0.97),
        "sampled_bits",
        "sampled",
    )


@pytest.mark.recorded("greedy_bits_ca_bf16")
def test_greedy_bits_with_rounded_cross_attention(case, rounded_generator, codec, monkeypatch) -> None:
    layout, name = layout_of(case, codec.downsample_factor), "greedy_bits_ca_bf16"
    check_rounded_bits(case, lambda given: draw(case, rounded_generator, codec, given=given), layout, name, monkeypatch)


@pytest.mark.recorded("nocfg_greedy_bits")
def test_without_guidance(case, generator, codec) -> None:
    check_bits(case, draw(case, generator, codec, guidance_scale=1.0), "nocfg_greedy_bits")


@pytest.mark.recorded("cfg_layer_m*_greedy_bits")
def test_guidance_at_a_layer(case, generator, codec) -> None:
    for name in case.names("cfg_layer_m*_greedy_bits"):
        layer = -int(name.removeprefix("cfg_layer_m").removesuffix("_greedy_bits"))
        check_bits(case, draw(case, generator, codec, guidance_layer=layer), name)


@pytest.mark.recorded("negprompt_greedy_bits")
def test_a_negative_prompt_takes_the_place_of_the_null(case, generator, codec) -> None:
    negative = branch(case, "negative_kv_compact", "negative_lens")
    check_bits(case, draw(case, generator, codec, negative), "negprompt_greedy_bits")
