"""Turns that keep scales, a region or a source: exact bits, exact pixels, batches, mistakes, cancelling."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.chat.scripted import ask, drawing_engine, red_square
from vargpt.chat.engine import ChatEngine
from vargpt.pictures.region import box_mask
from vargpt.types import ChatRequest, ImageFinished, ImagePart, ImagePreview, ImageSampling, ImageTokens, TurnFinished

WARM = ImageSampling(temperature=1.0, guidance_scale=1.5)


@pytest.fixture(scope="module")
def engine() -> ChatEngine:
    return drawing_engine()


@pytest.fixture(scope="module")
def drawn(engine: ChatEngine) -> ImagePart:
    return picture(engine, ask(seed=3, image_sampling=WARM))


def picture(engine: ChatEngine, request: ChatRequest) -> ImagePart:
    return engine.reply(request).message.images[0]


def photo(width: int = 200, height: int = 150) -> Image.Image:
    pixels = np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tokens_of(part: ImagePart) -> ImageTokens:
    assert part.tokens is not None
    return part.tokens


@pytest.mark.parametrize("count", [1, 2])
def test_a_refined_picture_keeps_its_first_scales_and_varies_in_the_others(engine, drawn, count) -> None:
    wish = ask(given=drawn, keep_scales=count, seed=50, n=3, image_sampling=WARM)
    parts = engine.reply(wish).message.images
    assert all(tokens_of(part).prefix(count) == tokens_of(drawn).prefix(count) for part in parts)
    finest = {tokens_of(part).grids[-1].numpy().tobytes() for part in (*parts, drawn)}
    assert len(finest) == 4, "three variations, and the picture itself"
    assert [part.settings["keep_scales"] for part in parts] == [count] * 3
    same = picture(engine, replace(wish, seed=3, n=1))
    assert tokens_of(same) == tokens_of(drawn) and same.image.tobytes() == drawn.image.tobytes()


def test_a_given_picture_of_which_nothing_is_kept_changes_nothing(engine, drawn) -> None:
    plain = picture(engine, ask(seed=9, image_sampling=WARM))
    again = picture(engine, ask(seed=9, image_sampling=WARM, given=drawn))
    assert again == plain and "keep_scales" not in again.settings


def test_a_picture_without_tokens_is_encoded(engine) -> None:
    layout, model = engine.model.config.layout(), engine.model
    part = ImagePart(red_square())
    latents = engine.processor.picture_tensors([part], model)["image_latents"]
    expected = model.image_tokenizer.tokens_of(latents.permute(0, 3, 1, 2), layout)
    result = picture(engine, ask(given=part, keep_scales=2, image_sampling=WARM))
    assert tokens_of(result).prefix(2) == expected.prefix(2), "the very page that the model sees"


@pytest.mark.parametrize("size", [(200, 150), (32, 32), (90, 120)])
def test_a_region_of_a_photo_is_redrawn_and_no_other_pixel_of_it_changes(engine, size) -> None:
    source = photo(*size)
    box = (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2)
    part = picture(engine, ask("make it red", source, region=box_mask(size, box), image_sampling=WARM))
    before, after = np.asarray(source).copy(), np.asarray(part.image).copy()
    assert part.image.size == size and part.settings["region"] == list(box)
    inside = (slice(box[1], box[3]), slice(box[0], box[2]))
    assert (before[inside] != after[inside]).mean() > 0.5
    before[inside] = after[inside] = 0
    assert np.array_equal(before, after)
    json.dumps(part.settings)


def test_a_region_of_a_drawn_picture_keeps_its_bits_outside(engine, drawn) -> None:
    mask = box_mask((32, 32), (0, 0, 9, 9))
    part = picture(engine, ask(given=drawn, region=mask, seed=60, image_sampling=WARM))
    ours, theirs = tokens_of(part), tokens_of(drawn)
    assert ours.prefix(2) == theirs.prefix(2), "cells of 16 px are larger than the region"
    changed = (ours.grids[2] != theirs.grids[2]).any(-1)[0]
    assert changed[:2, :2].any() and not changed[2:].any() and not changed[:, 2:].any()
    again = picture(engine, ask(given=part, region=mask, seed=61, image_sampling=WARM))
    assert np.array_equal(np.asarray(again.image)[9:], np.asarray(drawn.image)[9:]), "however often it is done"


def test_a_region_of_everything_is_a_plain_edit(engine) -> None:
    source, white = photo(32, 32), Image.new("L", (32, 32), 255)
    plain = picture(engine, ask("edit", source, seed=4, image_sampling=WARM))
    held = picture(engine, ask("edit", source, seed=4, image_sampling=WARM, region=white))
    assert tokens_of(held) == tokens_of(plain) and held.image.tobytes() == plain.image.tobytes()


def test_the_region_is_of_the_last_picture_seen_and_the_next_turn_sees_the_result(engine, drawn) -> None:
    first = engine.reply(ask(seed=3, image_sampling=WARM))
    history = (ask().messages[0], first.message)
    mask = box_mask((32, 32), (8, 8, 24, 24))
    turn = engine.reply(ask("again", history=history, region=mask, image_sampling=WARM, seed=70))
    result = turn.message.images[0]
    outside = np.ones((32, 32), dtype=bool)
    outside[8:24, 8:24] = False
    assert np.array_equal(np.asarray(result.image)[outside], np.asarray(drawn.image)[outside])
    features = engine.processor.encode([(*history, ask("again").messages[0], turn.message, ask("?").messages[0])],
                                       engine.model)["pixel_values"]  # fmt: skip
    alone = engine.processor.picture_tensors([result], engine.model)["pixel_values"]
    assert torch.equal(features[-len(alone) :], alone)


def test_faithfulness_leads_from_the_plain_edit_to_the_source(engine) -> None:
    source, pages = photo(32, 32), {}
    for amount in (0.0, 0.5, 1.0):
        wish = ask("edit", source, seed=4, image_sampling=WARM, faithfulness=amount)
        pages[amount] = picture(engine, wish)
    plain = picture(engine, ask("edit", source, seed=4, image_sampling=WARM))
    assert pages[0.0] == plain and "faithfulness" not in pages[0.0].settings
    tokenizer = engine.model.image_tokenizer
    latents = engine.processor.picture_tensors([ImagePart(source)], engine.model)["image_latents"]
    exact = tokenizer.tokens_of(latents.permute(0, 3, 1, 2), engine.model.config.layout())
    agreement = [float((tokens_of(page).flat() == exact.flat()).float().mean()) for page in pages.values()]
    assert agreement == sorted(agreement) and agreement[-1] == 1 > agreement[0]
    assert pages[0.5].settings["faithfulness"] == 0.5


def test_faithfulness_one_repeats_a_drawn_picture_bit_for_bit(engine, drawn) -> None:
    same = picture(engine, ask("edit", drawn, seed=99, image_sampling=WARM, faithfulness=1.0))
    assert tokens_of(same) == tokens_of(drawn) and same.image.tobytes() == drawn.image.tobytes()


def test_requests_that_are_held_to_different_things_are_answered_together_as_alone(engine, drawn) -> None:
    requests = [
        ask(seed=1, image_sampling=WARM),
        ask(seed=2, image_sampling=WARM, given=drawn, keep_scales=2),
        ask("edit", photo(), seed=3, image_sampling=WARM, region=box_mask((200, 150), (20, 20, 90, 90)), n=2),
        ask("edit", photo(), seed=4, image_sampling=WARM, faithfulness=0.7),
        ask("edit", drawn, seed=5, image_sampling=WARM, region=box_mask((64, 64), (0, 0, 40, 20)), faithfulness=0.3),
    ]
    for request, together in zip(requests, engine.reply_batch(requests), strict=True):
        for ours, alone in zip(together.message.images, engine.reply(request).message.images, strict=True):
            assert tokens_of(ours) == tokens_of(alone)
            assert ours.image.size == alone.image.size and ours.settings == alone.settings


def test_previews_show_the_change_in_its_place(engine) -> None:
    mask = box_mask((200, 150), (0, 0, 100, 150))
    events = list(engine.stream(ask("edit", photo(), region=mask)))
    previews = [event.image for event in events if isinstance(event, ImagePreview)]
    small = engine.processor.page(photo(), engine.model.config.layout()).crop((0, 4, 32, 28))
    assert previews and {image.size for image in previews} == {(32, 24)}
    assert all(np.array_equal(np.asarray(image)[:, 16:], np.asarray(small)[:, 16:]) for image in previews)


@pytest.mark.parametrize("number", range(1, 7))
def test_a_held_turn_can_be_cancelled_at_any_event(engine, drawn, number) -> None:
    cancel, events = threading.Event(), []
    request = ask(given=drawn, keep_scales=1, region=box_mask((32, 32), (0, 0, 9, 9)), faithfulness=0.5)
    for event in engine.stream(request, cancel):
        events.append(event)
        if len(events) == number:
            cancel.set()
    assert isinstance(events[-1], TurnFinished) and events[-1].reason == "cancelled"
    assert len(events[-1].message.images) == sum(isinstance(event, ImageFinished) for event in events)


MASK = box_mask((32, 32), (0, 0, 9, 9))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"faithfulness": 1.01}, "between 0 and 1, got 1.01"),
        ({"faithfulness": float("nan")}, "between 0 and 1"),
        ({"keep_scales": 1}, "give the picture too"),
        ({"given": ImagePart(red_square()), "keep_scales": 3}, "has 3 scales, of which 0 to 2 can be kept"),
        ({"given": ImagePart(red_square()), "keep_scales": -1}, "0 to 2 can be kept, got keep_scales=-1"),
        ({"region": MASK}, "there is none: attach one"),
        ({"given": ImagePart(photo()), "region": MASK}, "32x32 pixels and the picture has 200x150"),
        ({"given": ImagePart(red_square()), "region": Image.new("L", (40, 40))}, "black everywhere"),
        ({"given": ImagePart(red_square()), "region": MASK, "size": (16, 32)}, "keeps its size"),
    ],
)  # fmt: skip
def test_what_cannot_be_held_is_refused_at_the_door(engine, fields, problem) -> None:
    with pytest.raises(ValueError, match=problem):
        engine.stream(ask(**fields))


def test_bits_of_another_model_are_refused_where_they_would_have_to_stay(engine, drawn) -> None:
    tokens = tokens_of(drawn)
    foreign = replace(drawn, tokens=ImageTokens(tokens.layout, tuple(grid[..., :5] for grid in tokens.grids)))
    with pytest.raises(ValueError, match="not this model's"):
        engine.stream(ask(given=foreign, keep_scales=1))
    assert engine.reply(ask(given=foreign, region=MASK)).message.images, "a region can do with the pixels"


def test_a_picture_of_another_size_is_refined_in_its_own(engine) -> None:
    wide = picture(engine, ask(size=(16, 32), image_sampling=WARM))
    refined = picture(engine, ask("more", red_square(), given=wide, keep_scales=2, seed=5, image_sampling=WARM))
    assert refined.image.size == (32, 16) and tokens_of(refined).prefix(2) == tokens_of(wide).prefix(2)
