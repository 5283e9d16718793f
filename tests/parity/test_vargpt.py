"""VARGPT-v1.1 with its published behaviours switched on: what it understands and what it draws, as published."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from tests.parity.cases_on_disk import Case
from tests.parity.published import (
    check_bits,
    check_picture,
    check_rounded_bits,
    check_sampled_bits,
    published_sample,
    recorded_guidance,
    with_rounded_attention,
)
from tests.parity.published_vargpt import GREEDY, build, draw, started
from vargpt.assistant.model import VARGPT
from vargpt.assistant.sequence import merged_grids, rope_positions
from vargpt.published.vargpt_v1_1_weights import vargpt_map
from vargpt.sampling import seeded
from vargpt.types import ImageSampling

pytestmark = pytest.mark.cases_of("vargpt", "model")


@pytest.fixture(scope="module")
def model(case: Case) -> VARGPT:
    return build(case)


@pytest.mark.recorded("image_embeds", "hidden_last", "logits")
@torch.no_grad()
def test_pictures_and_words_are_understood_alike(case, model) -> None:
    ids, pixels, grid = (case.input(name) for name in ("input_ids", "pixel_values", "image_grid_thw"))
    case.check(model.vision(pixels, grid_thw=grid).pooler_output, "image_embeds")
    output = model(input_ids=ids, pixel_values=pixels, image_grid_thw=grid)
    case.check(output.last_hidden_state, "hidden_last")
    case.check(output.logits, "logits")


@pytest.mark.recorded("position_ids", "rope_deltas")
def test_positions_in_a_conversation_with_pictures(case, model) -> None:
    ids, grids = case.input("input_ids"), merged_grids(case.input("image_grid_thw"), model.vision.spatial_merge_size)
    positions, following = rope_positions(ids, torch.ones_like(ids).bool(), model.placeholders, grids)
    case.check(positions, "position_ids")
    case.check(following[:, None] - ids.shape[1], "rope_deltas")


@pytest.mark.recorded("logits_no_position_ids")
@torch.no_grad()
def test_positions_that_only_count_give_the_logits_of_a_bare_forward(case, model) -> None:
    """Published code falls back to them where nobody prepared the inputs; of ours, nothing does but slots."""
    ids = case.input("input_ids")
    embeds = model.embed(ids, case.input("pixel_values"), case.input("image_grid_thw"))
    positions = torch.arange(ids.shape[1]).expand(3, len(ids), -1)
    hidden = model.language_model(inputs_embeds=embeds, position_ids=positions).last_hidden_state
    case.check(model.lm_head(hidden), "logits_no_position_ids")


@pytest.mark.recorded("lm_loss")
@torch.no_grad()
def test_the_loss_of_words(case, model) -> None:
    """Over all tokens but some first ones; the case does not tell how many, so they are looked for."""
    ids, inputs = case.input("input_ids"), {name: case.input(name) for name in ("pixel_values", "image_grid_thw")}
    expected, found = case.output("lm_loss"), []
    for first in range(1, ids.shape[1]):
        labels = ids.clone()
        labels[:, :first] = -100
        found.append(model(input_ids=ids, labels=labels, **inputs).text_loss)
    assert float((torch.stack(found) - expected).abs().min()) < 1e-5


@pytest.mark.recorded("generate_greedy")
@torch.no_grad()
def test_answers_are_the_published_ones(case, model) -> None:
    ids, expected = case.input("input_ids"), case.output("generate_greedy")
    state = model.extend(None, ids, None, case.input("pixel_values"), case.input("image_grid_thw"))
    found = ids
    for _ in range(expected.shape[1] - ids.shape[1]):
        state.logits[:, list(case.config["special_tokens"].values())] = -1e9
        chosen = state.logits.argmax(-1, keepdim=True)
        found = torch.cat((found, chosen), dim=1)
        state = model.extend(state, chosen)
    assert torch.equal(found, expected)


@pytest.mark.recorded("greedy_bits", "image_u8_bgr")
def test_a_prompt_is_drawn_bit_for_bit_and_pixel_by_pixel(case, model) -> None:
    steps = list(draw(model, case.input("input_ids")))
    check_bits(case, steps, "greedy_bits")
    if case.has("image_u8_bgr"):
        check_picture(case, model.image_tokenizer, steps[-1].tokens, "image_u8_bgr")


@pytest.mark.recorded("greedy_cfg_logits")
def test_the_guided_logits_behind_the_bits(case, model, monkeypatch) -> None:
    found, expected = recorded_guidance(monkeypatch), case.outputs("greedy_cfg_logits")
    list(draw(model, case.input("input_ids")))
    for k, logits in enumerate(expected):  # published logits are divided by a temperature of 0.5
        assert_close(found[k].flatten(1, 2) / 0.5, logits, **case.tolerance, msg=lambda text, k=k: f"scale {k}: {text}")


@pytest.mark.recorded("sampled_bits")
def test_sampled_bits_with_the_published_order_of_draws(case, model, monkeypatch) -> None:
    monkeypatch.setattr("vargpt.generators.bitwise.sample", published_sample)
    sampling, ids = ImageSampling(guidance_scale=3.0, temperature=0.5, top_p=0.97), case.input("input_ids")
    check_sampled_bits(case, lambda seed: draw(model, ids, sampling, seed), "sampled_bits", "sampled")


@pytest.mark.recorded("extra_token")
@torch.no_grad()
def test_the_token_after_the_start_is_the_published_one(case, model) -> None:
    """Published code samples one token more after the start, and never reads it."""
    logits = started(model, case.input("input_ids")).logits
    assert int(logits.argmax(-1)) == case.number("extra_token")


@pytest.mark.recorded("hf_generate_ids", "hf_generate_bits", "hf_generate_image_u8_bgr")
@torch.no_grad()
def test_words_then_a_picture_as_generated(case, model) -> None:
    ids, expected = case.input("input_ids"), case.output("hf_generate_ids")
    start = model.config.image_gen_start_token_id
    forbidden = [*case.config["special_tokens"].values(), model.config.text_config.eos_token_id]
    if int(ids[0, -1]) == start:
        ids = ids[:, :-1]
    state, found = model.extend(None, ids, None), ids
    for _ in range(int((expected[0] == start).nonzero()[0]) - ids.shape[1]):
        state.logits[:, forbidden] = -1e9
        chosen = state.logits.argmax(-1, keepdim=True)
        found, state = torch.cat((found, chosen), dim=1), model.extend(state, chosen)
    found = torch.cat((found, torch.tensor([[start]])), dim=1)
    state = model.extend(state, found[:, -1:])
    found = torch.cat((found, state.logits.argmax(-1, keepdim=True)), dim=1)
    assert torch.equal(found, expected)
    steps = list(model.draw(state, model.config.layout(), GREEDY, seeded([0])))
    check_bits(case, steps, "hf_generate_bits")
    if case.has("hf_generate_image_u8_bgr"):
        check_picture(case, model.image_tokenizer, steps[-1].tokens, "hf_generate_image_u8_bgr")


@pytest.mark.recorded("greedy_bits_ca_bf16")
def test_a_prompt_is_drawn_with_rounded_cross_attention(case, monkeypatch) -> None:
    rounded, ids = with_rounded_attention(build(case)), case.input("input_ids")
    layout, name = rounded.config.layout(), "greedy_bits_ca_bf16"
    check_rounded_bits(case, lambda given: draw(rounded, ids, given=given), layout, name, monkeypatch)


@pytest.mark.recorded("edit_greedy_bits")
def test_an_edit_is_drawn_bit_for_bit(case, model) -> None:
    pixels, grid = case.input("edit_pixel_values"), case.input("edit_image_grid_thw")
    steps = draw(model, case.input("edit_input_ids"), pixel_values=pixels, image_grid_thw=grid)
    check_bits(case, steps, "edit_greedy_bits")


def test_the_map_knows_every_published_name(case, model) -> None:
    published = case.weights("model")
    weight_map = vargpt_map(model.config, case.config["gen"]["block_chunks"])
    again = dict(weight_map.export(model.state_dict().items()))
    assert again.keys() == published.keys()
    for name, tensor in published.items():
        if "ln_q" in name and "projector" in name or "mask" in name:
            continue
        if name == "sos_embedding.weight":
            assert_close(again[name][-1], tensor[-1])
        else:
            assert torch.equal(again[name], tensor), name
