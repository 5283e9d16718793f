"""Infinity alone: prompts to pictures, row by row independent, with weights straight from published files."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import vargpt.loading.hub
from tests.published.published_files import (
    SAMPLING,
    TINY_VARIANTS,
    autoencoder_weights,
    generator_weights,
    publishable_model,
    use_tiny_variants,
    write_autoencoder,
    write_published,
)
from vargpt.chat.painter import TOKENS_TOGETHER, Order, Painter
from vargpt.published.families import find_published, load_text_to_image, resolve_model
from vargpt.published.infinity import VARIANTS
from vargpt.testing import tiny_text_encoder, tiny_text_to_image
from vargpt.text_to_image.pipeline import TextToImage
from vargpt.types import (
    ChatRequest,
    ImageFinished,
    ImagePart,
    ImagePreview,
    ImageSampling,
    ImageStarted,
    ImageTokens,
    Message,
    TurnFinished,
)

WIDE = (144, 432)
PROMPTS = ["a fox next to a pine tree", "a small red car"]


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return publishable_model()


@pytest.fixture(scope="module")
def published(model, tmp_path_factory) -> Path:
    return write_published(model, tmp_path_factory.mktemp("published") / "infinity")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch) -> None:
    use_tiny_variants(monkeypatch)


@pytest.fixture
def broken(published, tmp_path) -> Path:
    """A copy to be tampered with."""
    return Path(shutil.copytree(published, tmp_path / "broken"))


def drawn(model: TextToImage, prompts, seeds, size=WIDE, **fields) -> ImageTokens:
    return list(model.draw(prompts, seeds, size=size, **fields))[-1].tokens


def same(one: ImageTokens, other: ImageTokens) -> bool:
    return torch.equal(one.flat(), other.flat())


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_a_picture_forms_scale_by_scale_in_the_size_that_was_asked_for(model) -> None:
    steps = list(model.draw(PROMPTS, [1, 2], size=(352, 176)))
    layout = model.config.layout((352, 176))
    assert [step.step for step in steps] == list(range(1, layout.num_scales + 1))
    assert steps[-1].tokens.layout == layout and layout.position_grid == (90, 45)
    for step in (steps[0], steps[-1]):
        assert [image.size for image in model.pictures(step.tokens)] == [(176, 352)] * 2
    assert model.decode(steps[-1].tokens).abs().max() <= 1


def test_a_row_draws_the_same_alone_and_in_a_batch(model) -> None:
    negatives = ["the left", None]
    together = drawn(model, PROMPTS, [1, 2], negative_prompts=negatives)
    for row in (0, 1):
        alone = drawn(model, PROMPTS[row : row + 1], [row + 1], negative_prompts=negatives[row : row + 1])
        assert same(together.select([row]), alone)


def test_equal_seeds_draw_equal_pictures_and_others_others(model) -> None:
    tokens = drawn(model, [PROMPTS[0]] * 3, [5, 6, 5])
    assert same(tokens.select([0]), tokens.select([2])) and not same(tokens.select([0]), tokens.select([1]))


def test_prompts_and_negative_prompts_are_heard(model) -> None:
    greedy = replace(SAMPLING, temperature=0.0)
    plain = drawn(model, PROMPTS, [1, 1], sampling=greedy)
    assert not same(plain.select([0]), plain.select([1]))
    led = drawn(model, PROMPTS, [1, 1], sampling=greedy, negative_prompts="a car on the right")
    assert not same(plain.select([0]), led.select([0])) and not same(plain.select([1]), led.select([1]))
    for nothing in ("", "  ", None, ["", None]):
        assert same(plain, drawn(model, PROMPTS, [1, 1], sampling=greedy, negative_prompts=nothing))


def test_guidance_may_act_at_a_layer_or_not_at_all(model) -> None:
    pictures = [
        drawn(model, PROMPTS[:1], [1], sampling=replace(SAMPLING, temperature=0.0, **changes))
        for changes in ({}, {"guidance_layer": -2}, {"guidance_scale": 1.0}, {"guidance_scale": (1.0, 4.0)})
    ]
    assert all(not same(one, other) for i, one in enumerate(pictures) for other in pictures[:i])
    assert len(model.context(PROMPTS, replace(SAMPLING, guidance_scale=1.0), ["", ""]).branches) == 1


def test_given_scales_are_kept(model) -> None:
    first = drawn(model, PROMPTS[:1], [1])
    again = drawn(model, PROMPTS[1:], [2], given=first.prefix(3))
    assert same(first.prefix(3), again.prefix(3)) and not same(first, again)


MISTAKES = {
    "no prompt": (dict(prompts=[], seeds=[]), "a prompt is empty"),
    "blank": (dict(prompts=["a fox", " "], seeds=[1, 2]), "a prompt is empty"),
    "string": (dict(prompts="a fox", seeds=[1]), "one prompt per picture"),
    "seeds": (dict(prompts=PROMPTS, seeds=[1]), "2 pictures need as many seeds, got 1"),
    "size": (dict(prompts=PROMPTS, seeds=[1, 2], size=(64, 64)), "draws no 64x64 pictures"),
    "negatives": (dict(prompts=PROMPTS, seeds=[1, 2], negative_prompts=["a"] * 3), "one negative prompt for all or 2"),
    "layer": (dict(prompts=PROMPTS, seeds=[1, 2], sampling=ImageSampling(guidance_layer=-4)), "-3 to -1"),
    "range": (dict(prompts=PROMPTS, seeds=[1, 2], sampling=ImageSampling(top_p=2.0)), "top_p must lie in"),
    "edit": (
        dict(prompts=PROMPTS, seeds=[1, 2], sampling=ImageSampling(image_guidance_scale=2.0)),
        "edits no pictures",
    ),
    "unguided": (
        dict(prompts=PROMPTS, seeds=[1, 2], sampling=ImageSampling(guidance_scale=1.0), negative_prompts="a car"),
        "acts through guidance",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_drawn_is_refused_at_once(name, model) -> None:
    fields, problem = MISTAKES[name]
    with pytest.raises(ValueError, match=problem):
        model.draw(**fields)


def test_organs_that_do_not_fit_are_refused(model) -> None:
    with pytest.raises(ValueError, match="states of width 48, but the generator was trained on 32"):
        TextToImage(model.config, tiny_text_encoder(width=48), model.generator, model.image_tokenizer)


# -- loading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", TINY_VARIANTS)
def test_published_files_draw_what_the_same_weights_draw(variant, model, published) -> None:
    loaded = load_text_to_image(published, variant, device="cpu")
    expected, tokens = (drawn(one, PROMPTS, [1, 2]) for one in (model, loaded))
    assert same(expected, tokens)
    assert_close(loaded.decode(tokens), model.decode(expected), atol=1e-5, rtol=0)
    assert loaded.config.sampling == SAMPLING
    assert loaded.config.sizes[0] == {"small": (256, 256), "sharded": WIDE}[variant]
    first = next(loaded.draw(PROMPTS, [1, 2]))
    assert (first.tokens.layout.height, first.tokens.layout.width) == loaded.config.sizes[0]


def test_bfloat16_draws_too(published) -> None:
    loaded = load_text_to_image(published, "small", device="cpu", dtype="bfloat16")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    tokens = drawn(loaded, PROMPTS, [1, 2], negative_prompts=["a car", None])
    assert tokens.is_complete and loaded.pictures(tokens)[0].size == (432, 144)


def test_an_autoencoder_of_either_naming_and_of_any_place_is_read(model, published, broken, tmp_path) -> None:
    write_autoencoder(model, broken, nested=False)
    (broken / "vae.pth").rename(broken / "vae_.pth")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (broken / "vae_.pth").rename(elsewhere / "mine.pth")
    tokens = drawn(model, PROMPTS, [1, 2])
    loaded = load_text_to_image(broken, "small", device="cpu", vae=elsewhere / "mine.pth")
    assert_close(loaded.decode(tokens), model.decode(tokens), atol=1e-5, rtol=0)
    (elsewhere / "mine.pth").rename(broken / "vae_.pth")
    loaded = load_text_to_image(broken, "small", device="cpu")
    assert_close(loaded.decode(tokens), model.decode(tokens), atol=1e-5, rtol=0)


def test_the_text_encoder_may_be_anywhere(model, broken, tmp_path) -> None:
    (broken / "flan-t5-xl").rename(tmp_path / "t5")
    loaded = load_text_to_image(broken, "small", device="cpu", text_encoder=tmp_path / "t5")
    assert same(drawn(model, PROMPTS, [1, 2]), drawn(loaded, PROMPTS, [1, 2]))


def test_the_only_variant_of_a_folder_need_not_be_named(broken) -> None:
    shutil.rmtree(broken / "sharded_weights")
    found = find_published(broken)
    assert found is not None and found.variant_name == "small" and found.model_name == "broken small"


def test_from_the_hub_only_the_files_of_the_variant_are_fetched(published, monkeypatch) -> None:
    asked: list[tuple] = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(published)

    monkeypatch.setattr(vargpt.loading.hub, "snapshot_download", snapshot)
    load_text_to_image("FoundationVision/Infinity", "small", device="cpu")
    assert asked == [("FoundationVision/Infinity", ["small.pth", "small.pth/*", "vae.pth", "vae_.pth"])]


def test_it_must_be_clear_which_variant_is_meant(published) -> None:
    for name in (published, "FoundationVision/Infinity"):
        with pytest.raises(ValueError, match="several models; choose one with --variant: small, sharded"):
            find_published(name)
        with pytest.raises(ValueError, match="no variant 'huge' of .*; choose one of small, sharded"):
            find_published(name, "huge")
    assert find_published(None) is find_published("nano") is find_published("someone/else") is None
    for name in (None, "nano"):
        with pytest.raises(ValueError, match="nano is a chat model"):
            find_published(name, "small")


def test_what_is_missing_is_named_before_anything_large_is_read(broken, monkeypatch) -> None:
    monkeypatch.setattr(vargpt.published.infinity, "load_generator", None)
    (broken / "small.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks small.pth, .* \(variants that are there: sharded\)"):
        load_text_to_image(broken, "small", device="cpu")
    with pytest.raises(FileNotFoundError, match="there is no file nowhere.pth"):
        load_text_to_image(broken, "sharded", device="cpu", vae="nowhere.pth")
    shutil.rmtree(broken / "flan-t5-xl")
    with pytest.raises(FileNotFoundError, match=r"(?s)google/flan-t5-xl.*--text-encoder"):
        load_text_to_image(broken, "sharded", device="cpu")
    (broken / "vae.pth").unlink()
    with pytest.raises(FileNotFoundError, match="lacks vae.pth, the autoencoder of variant sharded"):
        load_text_to_image(broken, "sharded", device="cpu")
    with pytest.raises(ValueError, match="holds no model that only draws"):
        load_text_to_image("nano", device="cpu")


def test_weights_that_are_missing_unknown_or_misshapen_are_named(model, broken) -> None:
    weights = generator_weights(model)
    weights["surprise.weight"] = weights.pop("head.weight")
    torch.save(weights, broken / "small.pth")
    with pytest.raises(ValueError, match="not those of this model") as error:
        load_text_to_image(broken, "small", device="cpu")
    assert "head.weight" in str(error.value) and "surprise.weight" in str(error.value)
    shard = broken / "sharded_weights" / "model-00001-of-00002.safetensors"
    save_file({name: value[..., :-1].contiguous() for name, value in load_file(shard).items()}, shard)
    with pytest.raises(ValueError, match="is the config that of this checkpoint"):
        load_text_to_image(broken, "sharded", device="cpu")
    pixels = autoencoder_weights(model)
    del pixels["decoder.conv_out.conv.bias"]
    torch.save({"vae": pixels}, broken / "vae.pth")
    with pytest.raises(ValueError, match=r"decoder\.conv_out\.bias"):
        load_text_to_image(broken, "sharded", device="cpu")


def test_what_only_draws_is_no_chat_model(published) -> None:
    for name in (published, "FoundationVision/Infinity"):
        with pytest.raises(ValueError, match="vargpt draw PROMPT --model .* --variant NAME"):
            resolve_model(name)


def test_other_files_have_another_fingerprint(published, broken) -> None:
    one, copy = (find_published(folder, "small") for folder in (published, broken))
    assert one is not None and copy is not None
    assert len(one.fingerprint()) == 16 and one.fingerprint() == copy.fingerprint()
    torch.save({"vae": {}}, broken / "vae.pth")
    assert one.fingerprint() != copy.fingerprint()


# -- the painter -------------------------------------------------------------------------------------------------------


@pytest.fixture
def painter() -> Painter:
    return Painter(tiny_text_to_image(), "tiny")


def wish(text: str = PROMPTS[0], **fields) -> ChatRequest:
    return ChatRequest(messages=(Message.of("user", text),), **({"size": WIDE, "image_sampling": SAMPLING} | fields))


def test_a_wish_is_answered_like_a_chat_turn(painter) -> None:
    events = list(painter.stream(wish(n=2, seed=7)))
    total = painter.model.config.layout(WIDE).num_scales
    assert [type(event) for event in events[:4]] == [ImageStarted, ImageStarted, ImagePreview, ImagePreview]
    assert [event.step for event in events if isinstance(event, ImagePreview)] == [
        step for step in range(1, total) for _ in range(2)
    ]
    finished = [event.part for event in events if isinstance(event, ImageFinished)]
    last = events[-1]
    assert isinstance(last, TurnFinished) and last.reason == "stop" and list(last.message.images) == finished
    assert [part.seed for part in finished] == [7, 8]
    expected = drawn(painter.model, [PROMPTS[0]] * 2, [7, 8])
    for row, part in enumerate(finished):
        assert isinstance(part, ImagePart) and part.tokens is not None and same(part.tokens, expected.select([row]))
        assert part.image.tobytes() == painter.model.pictures(expected)[row].tobytes()
        assert part.settings["guidance_scale"] == 3.0 and part.settings["size"] == [144, 432]
        assert part.settings["alternative"] == row and "negative_prompt" not in part.settings


def test_wishes_are_drawn_together_as_far_as_they_fit(painter, monkeypatch) -> None:
    batches: list[int] = []
    draw = painter.model.draw

    def counted(prompts, *rest, **fields):
        batches.append(len(prompts))
        return draw(prompts, *rest, **fields)

    monkeypatch.setattr(painter.model, "draw", counted)
    monkeypatch.setattr("vargpt.chat.painter.TOKENS_TOGETHER", 2 * painter.model.config.layout(WIDE).num_tokens)
    requests = [wish(n=3, seed=1), wish(PROMPTS[1], seed=4), wish(size=(176, 352), seed=5)]
    turns = painter.reply_batch(requests)
    assert batches == [2, 2, 1]  # the portrait goes alone
    assert [len(turn.message.images) for turn in turns] == [3, 1, 1]
    assert [[part.seed for part in turn.message.images] for turn in turns] == [[1, 2, 3], [4], [5]]
    assert turns[2].message.images[0].image.size == (352, 176)
    assert TOKENS_TOGETHER // painter.model.config.layout((1024, 1024)).num_tokens == 3


def test_a_negative_prompt_is_written_into_the_settings(painter) -> None:
    (plain,) = painter.reply_batch([wish(seed=3)])
    painter.negative_prompt = "a car"
    (led,) = painter.reply_batch([wish(seed=3)])
    (one,), (other,) = plain.message.images, led.message.images
    assert other.settings["negative_prompt"] == "a car"
    assert one.tokens is not None and other.tokens is not None and not same(one.tokens, other.tokens)


def test_a_cancelled_wish_ends_without_a_picture_and_the_next_one_is_drawn(painter) -> None:
    cancel = threading.Event()
    stream = painter.stream(wish(), cancel)
    next(stream)
    cancel.set()
    assert [event.reason for event in stream if isinstance(event, TurnFinished)] == ["cancelled"]
    left = painter.stream(wish())
    next(left)
    left.close()
    assert painter.reply_batch([wish()])[0].message.images


def test_what_is_no_wish_is_refused(painter) -> None:
    picture = painter.reply_batch([wish()])[0].message.images[0]
    talk = ChatRequest(messages=(Message.of("user", "hi"), Message.of("assistant", "hi"), Message.of("user", "draw")))
    edit = ChatRequest(messages=(Message.of("user", picture, "make it blue"),))
    for request in (talk, edit, wish(route="text")):
        with pytest.raises(ValueError, match="tiny draws from one sentence and does nothing else"):
            painter.stream(request)
    for request, problem in ((wish(n=17), "between 1 and 16"), (wish(size=(1, 1)), "no 1x1"), (wish(" "), "empty")):
        with pytest.raises(ValueError, match=f"request 0: .*{problem}"):
            painter.reply_batch([request])


def test_an_order_knows_sizes_and_settings_before_anything_is_loaded(published) -> None:
    order = Order.of(str(published), "sharded", "a car")
    assert order.sampling == VARIANTS["sharded"].sampling and order.model_name == "infinity sharded"
    assert order.sizes is not None and order.sizes[0] == (144, 432) and (1024, 1024) in order.sizes
    assert Order.of(None).sizes is None
    with pytest.raises(ValueError, match="nano is a chat model, for which --negative and --vae can do nothing"):
        Order.of(None, negative="a car", vae=Path("vae.pth"))
