"""The published next-scale transformer: teacher-forced logits, and the pictures it draws, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from tests.parity.cases_on_disk import Case
from tests.parity.published import GivenInputs, build_autoencoder, build_generator, layout_of, padded
from vargpt.sampling import seeded
from vargpt.types import Branch, ImageContext, ImageSampling, ImageTokens

pytestmark = pytest.mark.cases_of("infinity", "vae", "infinity")
GREEDY = {"guidance_scale": 3.0, "temperature": 0.0}


@pytest.fixture(scope="module")
def codec(case: Case):
    return build_autoencoder(case, case.config)


@pytest.fixture(scope="module")
def generator(case: Case, codec):
    return build_generator(case, codec.num_bits)


@pytest.fixture(scope="module")
def rounded_generator(case: Case, codec):
    return build_generator(case, codec.num_bits, cross_attention_rounded=True)


def branch(case: Case, name: str = "text_kv_compact", lengths: str = "lens") -> Branch:
    states, mask = padded(case.input(name), case.input(lengths).tolist())
    return Branch(states, mask)


@torch.no_grad()
@pytest.mark.parametrize(("built", "name"), [("generator", "ca_fp32"), ("rounded_generator", "ca_bf16")])
def test_teacher_forced_logits(case, built, name, request) -> None:
    layout = layout_of(case)
    inputs = case.input("x_BLC_wo_prefix")
    tokens = ImageTokens.from_flat(layout, torch.zeros(len(inputs), layout.num_tokens, inputs.shape[-1]).bool())
    context = ImageContext((branch(case),))
    logits = request.getfixturevalue(built).logits(context, tokens, GivenInputs(inputs, layout)).flatten(2)
    expected = case.output(f"logits_tf_{name}").float()
    tolerance = case.tolerance if name == "ca_fp32" else {"atol": 6e-2, "rtol": 6e-2}
    assert_close(logits, expected, **tolerance)


def draw(generator, codec, case: Case, branches, **sampling) -> ImageTokens:
    context = ImageContext(tuple(branches))
    rngs = seeded(range(len(case.input("lens"))))
    return list(generator.generate(context, layout_of(case), ImageSampling(**sampling), rngs, codec))[-1].tokens


def check_bits(case: Case, tokens: ImageTokens, name: str) -> None:
    for k, grid in enumerate(tokens.grids):
        expected = case.output(f"{name}_bits.{k}" if "bits" not in name else f"{name}.{k}")
        assert torch.equal(grid.flatten(1).to(expected.dtype), expected), f"{name}, scale {k}"


def test_greedy_bits_and_picture(case, generator, codec) -> None:
    tokens = draw(generator, codec, case, [branch(case), Branch(None)], **GREEDY)
    check_bits(case, tokens, "greedy")
    pixels = codec.decode(tokens)
    picture = ((pixels + 1) / 2 * 255).to(torch.uint8).permute(0, 2, 3, 1).flip(-1)
    expected = case.output("greedy_img_u8_bgr")
    step = picture.shape[1] // expected.shape[1]  # some cases keep every fourth pixel only
    picture = picture[:, ::step, ::step]
    assert int((picture.int() - expected.int()).abs().max()) <= 1


@pytest.mark.recorded("greedy_bits_ca_bf16")
def test_greedy_bits_with_rounded_cross_attention(case, rounded_generator, codec) -> None:
    check_bits(
        case, draw(rounded_generator, codec, case, [branch(case), Branch(None)], **GREEDY), "greedy_bits_ca_bf16"
    )


@pytest.mark.recorded("nocfg_greedy_bits")
def test_without_guidance(case, generator, codec) -> None:
    check_bits(case, draw(generator, codec, case, [branch(case)], guidance_scale=1.0, temperature=0.0), "nocfg_greedy")


@pytest.mark.recorded("cfg_layer_m2_greedy_bits")
def test_guidance_at_a_layer(case, generator, codec) -> None:
    tokens = draw(generator, codec, case, [branch(case), Branch(None)], guidance_layer=-2, **GREEDY)
    check_bits(case, tokens, "cfg_layer_m2_greedy")


@pytest.mark.recorded("negprompt_greedy_bits")
def test_a_negative_prompt_takes_the_place_of_the_null(case, generator, codec) -> None:
    negative = branch(case, "negative_kv_compact", "negative_lens")
    check_bits(case, draw(generator, codec, case, [branch(case), negative], **GREEDY), "negprompt_greedy")
