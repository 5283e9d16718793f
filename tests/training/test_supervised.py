"""Batches of conversations and supervised fine-tuning: complete, even, resumable, and it learns."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from training.cpu.matmul_attention import use_matmul_attention
from training.data import BatchSettings, Conversations, cut_evenly
from training.loop import LoopSettings
from training.supervised import Apart, PictureInputs, SftSettings, draw_conditions, make_losses, token_weights, train
from vargpt.assistant.model import IGNORE_INDEX
from vargpt.assistant.sequence import Visibility
from vargpt.assistant.vision import patchify, picture_features
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import Message

LOOP = LoopSettings(total_steps=6, learning_rate=3e-3, warmup_steps=1, ema_decay=0.9, autocast="none", device="cpu")
SETTINGS = SftSettings(loop=LOOP, batches=BatchSettings(pool_size=12, batches_per_pool=3, num_workers=0))


def picture(shade: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (shade, 255 - shade, 90))


def messages_of(sample_id: int) -> list[Message]:
    rng = random.Random(sample_id)
    if sample_id % 3 == 0:
        return [Message.of("user", picture(rng.randrange(256)), "what is it?"), Message.of("assistant", "A fox.")]
    drawn = [Message.of("user", "draw a fox"), Message.of("assistant", "A fox.", picture(rng.randrange(256)))]
    if sample_id % 3 == 1:
        return drawn
    return [*drawn, Message.of("user", "replace it"), Message.of("assistant", "A cat.", picture(rng.randrange(256)))]


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def conversations(processor, start_step: int = 0) -> Conversations:
    return Conversations(messages_of, processor, 21, SETTINGS.batches, start_step)


@given(st.lists(st.floats(1, 1000), min_size=8, max_size=60), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_every_sample_of_a_pool_is_in_exactly_one_batch_and_no_batch_is_empty(costs, num_batches) -> None:
    batches = cut_evenly(costs, num_batches)
    assert sorted(index for batch in batches for index in batch) == list(range(len(costs)))
    assert len(batches) == num_batches


def test_a_run_that_starts_later_sees_the_same_batches(processor) -> None:
    from_start = iter(conversations(processor))
    for _ in range(4):
        next(from_start)
    later = iter(conversations(processor, start_step=4))
    for _ in range(3):
        one, other = next(from_start), next(later)
        assert all(torch.equal(one[name], other[name]) for name in one)


def texts_of(sample_id: int) -> list[Message]:
    return [Message.of("user", f"hello {sample_id}"), Message.of("assistant", "Hello.", picture(1))]


def test_texts_without_pictures_join_every_pool(processor) -> None:
    batches = dataclasses.replace(SETTINGS.batches, texts_per_pool=5)
    with_texts = Conversations(messages_of, processor, 21, batches, make_texts=texts_of)
    for pool in (0, 3):
        mixed = with_texts.pool_batches(pool)
        plain = conversations(processor).pool_batches(pool)
        rows = [sum(len(batch["input_ids"]) for batch in pool_batches) for pool_batches in (mixed, plain)]
        pictures = [sum(len(batch["drawn_images"]) for batch in pool_batches) for pool_batches in (mixed, plain)]
        assert rows[0] == rows[1] + 5
        assert pictures[0] == pictures[1]


def test_texts_need_the_stream_they_come_from(processor) -> None:
    with pytest.raises(ValueError, match="make_texts"):
        Conversations(messages_of, processor, 21, dataclasses.replace(SETTINGS.batches, texts_per_pool=5))


def test_the_user_is_never_learnt_and_the_assistant_always_is(processor) -> None:
    batch = conversations(processor).pool_batches(0)[0]
    ids, labels = batch["input_ids"], batch["labels"]
    learnt = labels != IGNORE_INDEX
    assert torch.equal(labels[learnt], ids[learnt])
    special = processor.special
    for forced in (special.gen_pad, special.gen_end, special.image, special.vision_start, special.im_start):
        assert not (ids[learnt] == forced).any()
    for row, mask in zip(ids, learnt, strict=True):
        text = processor.tokenizer.decode(row[mask])
        assert "draw" not in text and "what is" not in text and ("A fox." in text or "A cat." in text)
    assert (ids[learnt] == special.gen_start).any()


def test_guidance_dropout_has_its_rates() -> None:
    conditions = draw_conditions(20_000, SETTINGS, torch.Generator().manual_seed(0))
    shares = [(conditions == condition).float().mean().item() for condition in Visibility]
    assert shares == pytest.approx([0.8, 0.1, 0.05, 0.05], abs=0.01)


def test_pictures_learnt_apart_hide_nothing_and_have_flips_of_their_own(processor) -> None:
    batches = [b for pool in range(20) for b in conversations(processor).pool_batches(pool) if len(b["drawn_seeds"])]
    apart = Apart(lambda sample: sample % 2 == 0, flip_strength=0.5)
    settings = dataclasses.replace(SETTINGS, null_rate=0.5, flip_strength=0.0, apart=apart)
    model = tiny_model()
    layout = model.config.layout()
    inputs = PictureInputs(model, layout, settings)
    conditions, flipped, chosen = [], [], []
    for batch in batches:
        made = inputs(batch)["pictures"]
        clean = model.image_tokenizer.encode(batch["drawn_images"].float() / 127.5 - 1, layout).flat()
        conditions.append(made.conditions)
        flipped.append((made.tokens.flat() != clean).flatten(1).any(1))
        chosen += apart.pictures(batch["drawn_seeds"].tolist())
    hidden, wrong, these = torch.cat(conditions) != Visibility.FULL, torch.cat(flipped), torch.tensor(chosen)
    assert 0.2 < these.float().mean() < 0.8
    assert not hidden[these].any() and 0.4 < hidden[~these].float().mean() < 0.8
    assert wrong[these].float().mean() > 0.9 and not wrong[~these].any()


def test_an_input_picture_gets_the_latents_and_patches_of_itself(processor) -> None:
    model = tiny_model()
    batch = next(batch for batch in conversations(processor).pool_batches(0) if (batch["input_drawn"] >= 0).any())
    sft = dataclasses.replace(SETTINGS, rebuilt_rate=0.0, flip_strength=0.0)
    inputs = PictureInputs(model, model.config.layout(), sft)(batch)
    tokens = model.image_tokenizer.encode(batch["drawn_images"].float() / 127.5 - 1, model.config.layout())
    place = int((batch["input_drawn"] >= 0).nonzero()[0])
    drawn = int(batch["input_drawn"][place])
    first = model.image_tokenizer.residual(inputs["image_latents"], model.config.layout(), ())
    assert torch.equal(first[place] > 0, tokens.grids[0][drawn])
    assert torch.equal(inputs["pictures"].tokens.flat(), tokens.flat())
    per_picture = inputs["pixel_values"].view(len(batch["input_drawn"]), -1)
    mean = batch["drawn_images"][drawn].float().div(127.5).sub(1).mean()
    torch.testing.assert_close(per_picture[place].mean(), mean, atol=1e-4, rtol=1e-4)


def test_attention_by_matrix_products_gives_the_same_loss(processor) -> None:
    batch = conversations(processor).pool_batches(0)[1]
    losses = []
    for change in (lambda model: model, use_matmul_attention):
        model = change(tiny_model())
        losses.append(make_losses(model, model.config.layout(), SETTINGS)(model, batch)[0])
    torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-4)


def test_a_stopped_run_continues_to_the_same_weights(processor, tmp_path) -> None:
    whole, halves = tiny_model(), tiny_model()
    train(whole, processor, messages_of, SETTINGS, tmp_path / "whole")
    stopped = dataclasses.replace(SETTINGS, loop=dataclasses.replace(LOOP, time_budget_minutes=1e-9))
    finished = train(halves, processor, messages_of, stopped, tmp_path / "halves")
    assert not finished.done
    one_more = dataclasses.replace(SETTINGS, loop=dataclasses.replace(LOOP, total_steps=6))
    finished = train(halves, processor, messages_of, one_more, tmp_path / "halves")
    assert finished.done
    for (name, one), (_, other) in zip(whole.named_parameters(), halves.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5, msg=name)


def test_a_few_steps_lower_both_losses(processor, tmp_path) -> None:
    model = tiny_model(seed=1)
    longer = dataclasses.replace(SETTINGS, loop=dataclasses.replace(LOOP, total_steps=60), flip_strength=0.0)
    tokenizer_before = model.image_tokenizer.state_dict()["encoder.conv_in.weight"].clone()
    train(model, processor, messages_of, longer, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    drawn = [line for line in lines if "image_loss" in line]
    assert lines[-1]["text_loss"] < 0.3 * lines[0]["text_loss"]
    assert drawn[-1]["image_loss"] < 0.9 * drawn[0]["image_loss"]
    assert torch.equal(tokenizer_before, model.image_tokenizer.state_dict()["encoder.conv_in.weight"])


def test_busy_places_count_more_and_every_scale_keeps_its_weight() -> None:
    layout = tiny_model().config.layout()
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, :, 2:6, 2:6] = 1.0  # one bright square in the top left cell of the final grid
    weights = token_weights(pixels, layout, 4.0)
    for start, end in zip(layout.offsets[:-1], layout.offsets[1:], strict=True):
        torch.testing.assert_close(weights[:, start:end].mean(), torch.tensor(1.0))
    final = weights[0, layout.offsets[-2] :]
    assert final.argmax() == 0 and final[0] > 1.5 * final[-1]
    torch.testing.assert_close(token_weights(pixels, layout, 0.0), torch.ones_like(weights))


def test_where_an_edit_differs_from_its_source_counts_more(processor) -> None:
    before, after = Image.new("RGB", (32, 32), "white"), Image.new("RGB", (32, 32), "white")
    after.paste((0, 0, 0), (0, 0, 4, 4))
    messages = [Message.of("user", before, "add a dot"), Message.of("assistant", "A dot.", after)]
    model = tiny_model()
    stream = Conversations(lambda _: messages, processor, 1, BatchSettings(pool_size=1, batches_per_pool=1))
    weights = []
    for change in (0.0, 3.0):
        sft = dataclasses.replace(SETTINGS, detail=0.0, change=change)
        weights.append(PictureInputs(model, model.config.layout(), sft)(stream.pool_batches(0)[0])["pictures"].weights)
    layout = model.config.layout()
    final = weights[1][0, layout.offsets[-2] :]
    assert torch.equal(weights[0], torch.ones_like(weights[0]))
    torch.testing.assert_close(final[0] / final[-1], torch.tensor(4.0))
    for start, end in zip(layout.offsets[:-1], layout.offsets[1:], strict=True):
        torch.testing.assert_close(weights[1][:, start:end].mean(), torch.tensor(1.0))


def drawings_of(sample_id: int) -> list[Message]:
    return [Message.of("user", "draw a fox"), Message.of("assistant", "A fox.", picture(sample_id * 7 % 256))]


def test_with_first_slots_alone_the_generator_learns_from_the_same_memory(processor) -> None:
    model = tiny_model()
    layout = model.config.layout()
    torch.nn.init.zeros_(model.generator.slot_proj.weight)  # so that slots say nothing; the first still steers AdaLN
    settings = dataclasses.replace(SETTINGS, flip_strength=0.0)
    losses, rows = [], []
    for every in (1, 2):
        chosen = dataclasses.replace(SETTINGS.batches, all_slots_every=every, read_back_rate=0.0)
        batch = Conversations(drawings_of, processor, layout.num_tokens, chosen).pool_batches(0)[0]
        loss, _ = make_losses(model, layout, settings)(model, batch)
        losses.append(loss)
        rows.append(int((batch["input_ids"] == processor.special.gen_pad).sum()) // len(batch["drawn_images"]))
    assert rows == [layout.num_tokens, 1]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


def test_all_slots_pass_in_one_pool_of_so_many(processor) -> None:
    chosen = dataclasses.replace(SETTINGS.batches, all_slots_every=3)
    stream = Conversations(drawings_of, processor, 21, chosen)
    slots = []
    for pool in range(6):
        batch = stream.pool_batches(pool)[0]
        slots.append(int((batch["input_ids"] == processor.special.gen_pad).sum()) // len(batch["drawn_images"]))
    assert slots == [1, 1, 21, 1, 1, 21]


def test_without_learnt_pictures_drawn_ones_are_still_read_back(processor) -> None:
    chosen = dataclasses.replace(SETTINGS.batches, max_drawn=0, read_back_rate=1.0)
    for batch in Conversations(messages_of, processor, 21, chosen).pool_batches(0):
        assert len(batch["drawn_images"]) == 0
        assert not (batch["input_ids"] == processor.special.gen_pad).any()
        assert len(batch["uploaded_images"]) == len(batch["input_drawn"]) > 0


def test_the_quick_vit_sees_what_the_slow_one_sees() -> None:
    model = tiny_model()
    pixels = torch.randn(3, 3, 32, 32)
    patches, grid = patchify(pixels, model.config.vision_config)
    with torch.no_grad():
        slow = picture_features(model.vision, patches, grid)
        quick = picture_features(use_matmul_attention(model).vision, patches, grid)
    torch.testing.assert_close(quick, slow, rtol=1e-4, atol=1e-6)


def test_more_than_one_maker_of_batches_is_refused() -> None:
    with pytest.raises(ValueError, match="num_workers=1"):
        BatchSettings(num_workers=2)
