"""A training step of VARGPT-v1.1 as published: bits of the picture, logits, losses; with and without flipped bits."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.parity.cases_on_disk import Case
from tests.parity.published import published_flips, with_rounded_attention
from tests.parity.published_vargpt import build
from vargpt.assistant.model import VARGPT
from vargpt.assistant.picture_batch import PictureBatch
from vargpt.assistant.sequence import Visibility
from vargpt.tokenizers.bit_correction import CorrectedTokens
from vargpt.types import ImageLayout, ImageTokens

pytestmark = pytest.mark.cases_of("vargpt", "model")

CONSTRUCTION = re.compile(r"upsampled x(\d+) .*\]\*\d+ \+ \[([\d,]+)\]")  # of the inputs: cells of pixels, last tokens
STRENGTH = 0.3  # of published self-correction: the largest share of bits turned over in a scale


@dataclass
class Learnt:
    """What one training step of the model computes."""

    bit_logits: Tensor  # "N L 2d", as the head gives them
    text_logits: Tensor
    loss: Tensor


@pytest.fixture(scope="module")
def model(case: Case) -> VARGPT:
    return build(case)


@pytest.fixture(scope="module")
def rounded(case: Case) -> VARGPT:
    return with_rounded_attention(build(case))


def construction(case: Case) -> tuple[int, list[int]]:
    """How many pixels a recorded cell stands for, and the tokens that follow a picture."""
    found = CONSTRUCTION.search(case.meta["inputs"]["construction"])
    assert found, case.meta["inputs"]["construction"]
    return int(found.group(1)), [int(number) for number in found.group(2).split(",")]


def picture(case: Case) -> Tensor:
    cells, size = case.input("pixel_gen_blocks_u8"), construction(case)[0]
    return cells.float().repeat_interleave(size, 2).repeat_interleave(size, 3) / 255 * 2 - 1


def layout_of(case: Case, model: VARGPT) -> ImageLayout:
    return model.config.layout(tuple(picture(case).shape[-2:]))


def clean(case: Case, model: VARGPT) -> CorrectedTokens:
    tokens = ImageTokens.from_flat(layout_of(case, model), case.output("gen_labels").bool())
    return CorrectedTokens(tokens, tokens)


@torch.no_grad()
def corrected(case: Case, model: VARGPT, seed: int) -> CorrectedTokens:
    """With the published draws of bits to turn over."""
    pixels, layout = picture(case), layout_of(case, model)
    flips = published_flips(layout.scales, len(pixels), model.image_tokenizer.code_dim, STRENGTH, seed)
    return model.image_tokenizer.correct(model.image_tokenizer.features(pixels, layout), layout, flips)


@pytest.fixture(scope="module")
def noisy(case: Case, model: VARGPT) -> CorrectedTokens:
    """Bits turned over with the seed that gives the recorded logits; the first case does not tell it."""
    pick, expected = case.output("gen_logits_pick"), case.output("noise_gen_logits")
    for seed in case.seeds("noise"):
        tokens = corrected(case, model, seed)
        if torch.allclose(learn(case, model, tokens).bit_logits[:, pick], expected, **case.tolerance):
            return tokens
    raise AssertionError(f"other logits with all of the seeds {list(case.seeds('noise'))}")


@torch.no_grad()
def learn(case: Case, model: VARGPT, tokens: CorrectedTokens, condition: Visibility = Visibility.FULL) -> Learnt:
    """The published training step: prefix, start, slots padded to a multiple of 128, and some tokens after them."""
    layout, config, prefix = tokens.inputs.layout, model.config, case.input("prefix_ids")
    rows, num_slots = len(prefix), -(-layout.num_tokens // 128) * 128

    def column(*ids: int) -> Tensor:
        return torch.tensor(ids).expand(rows, -1)

    slots = torch.full((rows, num_slots), config.image_gen_pad_token_id)
    ids = torch.cat((prefix, column(config.image_gen_start_token_id), slots, column(*construction(case)[1])), dim=1)
    recorded: list[Tensor] = []
    hook = model.generator.head.register_forward_hook(lambda module, inputs, output: recorded.append(output))
    output = model(
        input_ids=ids,
        labels=ids.masked_fill(ids == config.image_gen_pad_token_id, -100),
        pictures=PictureBatch(
            tokens=tokens.inputs, targets=tokens.targets, conditions=torch.full((rows,), int(condition))
        ),
    )
    hook.remove()
    assert output.text_loss is not None and output.image_loss is not None
    text_logits = model.lm_head(output.last_hidden_state)
    return Learnt(recorded[0], text_logits, output.text_loss + 3 * output.image_loss)


def check(case: Case, learnt: Learnt, name: str, suffix: str = "") -> None:
    """Some of the logits, and the loss."""
    if case.has(f"{name}_gen_logits{suffix}"):
        case.check(learnt.bit_logits[:, case.output("gen_logits_pick")], f"{name}_gen_logits{suffix}")
    case.check(learnt.loss, f"{name}_loss{suffix}")


@pytest.mark.recorded("clean_loss", "clean_gen_logits", "gen_logits_pick", "lm_logits_head", "lm_logits_tail")
def test_a_training_step_computes_the_published_numbers(case, model) -> None:
    learnt = learn(case, model, clean(case, model))
    check(case, learnt, "clean")
    head, tail = case.output("lm_logits_head").shape[1], case.output("lm_logits_tail").shape[1]
    case.check(learnt.text_logits[:, :head], "lm_logits_head")
    case.check(learnt.text_logits[:, -tail:], "lm_logits_tail")


@pytest.mark.recorded("uncond_loss", "uncond_gen_logits")
def test_a_step_without_its_condition(case, model) -> None:
    check(case, learn(case, model, clean(case, model), Visibility.NULL), "uncond")


@pytest.mark.recorded("noise_loss", "noise_gen_logits")
def test_a_step_with_bits_turned_over_as_published(case, model, noisy) -> None:
    check(case, learn(case, model, noisy), "noise")


@pytest.mark.recorded("clean_loss_ca_bf16", "clean_gen_logits_ca_bf16", "uncond_loss_ca_bf16")
def test_the_same_steps_with_rounded_cross_attention(case, rounded) -> None:
    tokens = clean(case, rounded)
    check(case, learn(case, rounded, tokens), "clean", "_ca_bf16")
    if case.has("uncond_loss_ca_bf16"):
        check(case, learn(case, rounded, tokens, Visibility.NULL), "uncond", "_ca_bf16")


@pytest.mark.recorded("noise_loss_ca_bf16")
def test_bits_turned_over_and_rounded_cross_attention(case, rounded, noisy) -> None:
    check(case, learn(case, rounded, noisy), "noise", "_ca_bf16")


@pytest.mark.recorded("gen_labels")
@torch.no_grad()
def test_the_picture_to_learn_becomes_the_published_bits(case, model) -> None:
    tokens = model.image_tokenizer.encode(picture(case), layout_of(case, model))
    assert torch.equal(tokens.flat(), case.output("gen_labels").bool())
