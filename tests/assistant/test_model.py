"""VARGPT: what training computes is what inference does, nothing leaks, and it saves, loads and learns."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel

from vargpt.assistant.model import IGNORE_INDEX, VARGPT
from vargpt.assistant.picture_batch import PictureBatch
from vargpt.assistant.processor import VargptProcessor, pad
from vargpt.assistant.sequence import Visibility
from vargpt.assistant.vision import PagePositions
from vargpt.sampling import seeded
from vargpt.testing import tiny_config, tiny_model, tiny_processor
from vargpt.types import ImageSampling, ImageTokens, Message

GREEDY = ImageSampling(guidance_scale=1.0, temperature=0.0)


@pytest.fixture(scope="module")
def model() -> VARGPT:
    return tiny_model()


@pytest.fixture(scope="module")
def processor() -> VargptProcessor:
    return tiny_processor()


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 255, (4, 4, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(noise.numpy()).resize(size, Image.Resampling.BILINEAR)


def training_batch(model: VARGPT, processor: VargptProcessor, conversations: list[list[Message]]) -> dict:
    num_slots = model.config.layout().num_tokens
    encoded = [processor.conversation_ids(messages, num_slots=num_slots) for messages in conversations]
    return {
        "input_ids": pad([one.input_ids for one in encoded], processor.special.end_of_text),
        "attention_mask": pad([[1] * len(one.input_ids) for one in encoded], 0),
        "labels": pad([one.labels for one in encoded], IGNORE_INDEX),
    } | processor.picture_tensors([part for one in encoded for part in one.pictures], model)


def random_tokens(model: VARGPT, num_images: int, seed: int = 0) -> ImageTokens:
    layout = model.config.layout()
    generator = torch.Generator().manual_seed(seed)
    bits = torch.rand(num_images, layout.num_tokens, 8, generator=generator) > 0.5
    return ImageTokens.from_flat(layout, bits)


def pictures_of(
    model: VARGPT, bits: torch.Tensor, targets: torch.Tensor | None = None, conditions: torch.Tensor | None = None
) -> PictureBatch:
    """Drawn pictures of the model's default size from flat bits "N L d"."""
    tokens, learnt = (
        None if flat is None else ImageTokens.from_flat(model.config.layout(), flat) for flat in (bits, targets)
    )
    return PictureBatch(tokens=tokens, targets=learnt, conditions=conditions)


CONVERSATION = [
    Message.of("user", picture(1), "replace the fox"),
    Message.of("assistant", "A cat.", picture(2)),
    Message.of("user", "and a pine tree"),
    Message.of("assistant", "A cat and a pine tree.", picture(3), "Done."),
]


def draw_state(model: VARGPT, processor: VargptProcessor):
    """The conversation up to the second drawn picture's start, read token by token as inference does."""
    prompt = processor.encode([CONVERSATION[:3]], model)
    state = model.extend(None, **prompt)
    text = processor.text_ids("A cat and a pine tree.")
    for token in [*text, processor.special.gen_start]:
        state = model.extend(state, torch.tensor([[token]]))
    return state


@pytest.mark.parametrize("condition", list(Visibility))
def test_every_guidance_branch_draws_what_training_on_it_predicts(model, processor, condition, monkeypatch) -> None:
    monkeypatch.setattr(VARGPT, "branches", lambda *_: [condition])
    progress = list(model.draw(draw_state(model, processor), model.config.layout(), GREEDY, seeded([0])))
    drawn = progress[-1].tokens.flat()
    batch = training_batch(model, processor, [CONVERSATION])
    bits = torch.cat((random_tokens(model, 1).flat(), drawn))
    conditions = torch.tensor([0, int(condition)])
    loss_of_drawn = model(**batch, pictures=pictures_of(model, bits, conditions=conditions)).scale_losses[1]
    assert (loss_of_drawn < torch.log(torch.tensor(2.0))).all(), "greedy bits are each the likelier one"
    worse = ~drawn
    targets = torch.cat((bits[:1], worse))
    loss_of_opposite = model(**batch, pictures=pictures_of(model, bits, targets, conditions=conditions)).scale_losses[1]
    assert (loss_of_opposite > loss_of_drawn + 1e-4).all()
    for k, scale in enumerate(progress):  # each and every bit, not only on average
        flipped = bits.clone()
        token = model.config.layout().offsets[k]
        flipped[1, token, 0] = ~flipped[1, token, 0]
        single = model(**batch, pictures=pictures_of(model, bits, flipped, conditions=conditions)).scale_losses[1]
        assert single[k] > loss_of_drawn[k], scale.step


def test_reading_in_pieces_equals_reading_at_once(model, processor) -> None:
    prompt = processor.encode([CONVERSATION[:3]], model)
    whole = model.extend(None, **prompt)
    ids, cut = prompt["input_ids"], prompt["input_ids"].shape[1] - 5
    state = model.extend(None, ids[:, :cut], prompt["attention_mask"][:, :cut], *list(prompt.values())[2:])
    for token in ids[0, cut:]:
        state = model.extend(state, token.reshape(1, 1))
    assert_close(state.logits, whole.logits, atol=1e-4, rtol=1e-4)
    assert_close(state.hidden, whole.hidden, atol=1e-4, rtol=1e-4)


def test_a_row_reads_the_same_alone_and_in_a_padded_batch(model, processor) -> None:
    short = [Message.of("user", "how many?")]
    together = model.extend(None, **processor.encode([CONVERSATION[:3], short], model))
    alone = model.extend(None, **processor.encode([short], model))
    assert_close(together.logits[1:], alone.logits, atol=1e-4, rtol=1e-4)


def test_padding_tokens_leave_a_row_untouched(model, processor) -> None:
    state = model.extend(None, **processor.encode([[Message.of("user", "draw a fox")]] * 2, model))
    before = state.logits[0].clone()
    ids = torch.tensor([[0, 0], processor.text_ids("a")[:1] * 2])
    state = model.extend(state, ids, torch.tensor([[False, False], [True, True]]))
    assert_close(state.logits[0], before)
    after = model.extend(state, torch.tensor([[processor.special.gen_start]] * 2))
    alone = model.extend(None, **processor.encode([[Message.of("user", "draw a fox")]], model))
    alone = model.extend(alone, torch.tensor([[processor.special.gen_start]]))
    assert_close(after.logits[:1], alone.logits, atol=1e-4, rtol=1e-4)


def test_pictures_drawn_in_a_batch_equal_pictures_drawn_alone(model, processor) -> None:
    state = draw_state(model, processor).select([0, 0, 0])
    sampling = ImageSampling(guidance_scale=2.0, temperature=1.0)
    *_, together = model.draw(state, model.config.layout(), sampling, seeded([5, 6, 7]))
    *_, alone = model.draw(state.select([1]), model.config.layout(), sampling, seeded([6]))
    assert torch.equal(together.tokens.flat()[1:2], alone.tokens.flat())
    assert not torch.equal(together.tokens.flat()[0], together.tokens.flat()[2]), "other seeds, other pictures"


def test_drawing_leaves_the_conversation_as_it_was(model, processor) -> None:
    state = draw_state(model, processor)
    length, hidden = state.length, state.hidden.clone()
    list(model.draw(state, model.config.layout(), GREEDY, seeded([0])))
    assert state.length == length and state.cache.get_seq_length() == length
    assert_close(state.hidden, hidden)


def test_later_text_and_pictures_do_not_see_the_slots_of_earlier_pictures(model, processor) -> None:
    batch = training_batch(model, processor, [CONVERSATION])
    one = torch.cat((random_tokens(model, 1, 1).flat(), random_tokens(model, 1, 2).flat()))
    other = torch.cat((random_tokens(model, 1, 9).flat(), random_tokens(model, 1, 2).flat()))
    a, b = model(**batch, pictures=pictures_of(model, one)), model(**batch, pictures=pictures_of(model, other))
    assert_close(a.text_loss, b.text_loss)
    assert_close(a.scale_losses[1], b.scale_losses[1])
    assert not torch.allclose(a.scale_losses[0], b.scale_losses[0])


def test_a_finer_scale_never_moves_a_coarser_one(model, processor) -> None:
    batch = training_batch(model, processor, [CONVERSATION])
    bits = torch.cat((random_tokens(model, 1, 1).flat(), random_tokens(model, 1, 2).flat()))
    changed = bits.clone()
    layout = model.config.layout()
    changed[1, layout.offsets[1] :] ^= True
    a = model(**batch, pictures=pictures_of(model, bits, bits))
    b = model(**batch, pictures=pictures_of(model, changed, bits))
    assert_close(a.scale_losses[1, :2], b.scale_losses[1, :2])
    assert not torch.allclose(a.scale_losses[1, 2], b.scale_losses[1, 2])


def test_an_edit_sees_its_source(model, processor) -> None:
    batch = training_batch(model, processor, [CONVERSATION[:2]])
    bits = random_tokens(model, 1).flat()
    with_source = model(**batch, pictures=pictures_of(model, bits))
    batch["image_latents"] = batch["image_latents"] * -1
    assert not torch.allclose(with_source.scale_losses, model(**batch, pictures=pictures_of(model, bits)).scale_losses)


def test_pictures_and_placeholders_that_do_not_fit_are_refused(model, processor) -> None:
    batch = training_batch(model, processor, [CONVERSATION])
    with pytest.raises(ValueError, match="slots do not hold"):
        broken = batch | {"input_ids": batch["input_ids"][:, :-20], "attention_mask": batch["attention_mask"][:, :-20]}
        broken["input_ids"] = torch.where(
            broken["input_ids"] == processor.special.gen_start, processor.special.gen_pad, broken["input_ids"]
        )
        model(input_ids=broken["input_ids"], pictures=pictures_of(model, random_tokens(model, 2).flat()))
    with pytest.raises(ValueError, match="draw pictures with"):
        model.extend(None, torch.tensor([[processor.special.gen_pad]]))
    with pytest.raises(ValueError, match="no 8x8 pictures"):
        model.config.layout((8, 8))


def test_it_saves_and_loads_through_the_auto_classes(model, processor, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert AutoConfig.from_pretrained(tmp_path).layout().scales == model.config.layout().scales
    prompt = processor.encode([CONVERSATION[:3]], model)
    assert_close(loaded.eval().extend(None, **prompt).logits, model.extend(None, **prompt).logits)
    assert loaded.lm_head.weight is loaded.language_model.embed_tokens.weight


def test_it_overfits_one_batch_of_text_and_pictures(processor) -> None:
    model = tiny_model(seed=3)
    batch = training_batch(model, processor, [CONVERSATION])
    bits = torch.cat((random_tokens(model, 1, 1).flat(), random_tokens(model, 1, 2).flat()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first = model(**batch, pictures=pictures_of(model, bits))
    for _ in range(60):
        output = model(**batch, pictures=pictures_of(model, bits))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert output.text_loss < 0.2 * first.text_loss
    assert output.image_loss < 0.5 * first.image_loss


def test_every_organ_but_the_image_tokenizer_gets_a_gradient(processor) -> None:
    model = tiny_model()
    batch = training_batch(model, processor, [CONVERSATION])
    model(
        **batch, pictures=pictures_of(model, random_tokens(model, 2).flat(), conditions=torch.tensor([0, 1]))
    ).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all(name.startswith("image_tokenizer.") for name in without), without


def test_with_a_norm_of_their_own_pictures_are_as_loud_as_words_whatever_the_vit_says(processor) -> None:
    torch.manual_seed(0)
    model = VARGPT(tiny_config(processor.special))
    messages = [Message.of("user", Image.new("RGB", (32, 32), (200, 30, 90)), "what is it?")]
    inputs = processor.encode([messages], model)
    is_picture = inputs["input_ids"] == processor.special.image

    def loudness() -> torch.Tensor:
        embeds = model.embed(inputs["input_ids"], inputs["pixel_values"], inputs["image_grid_thw"])
        return embeds[is_picture].square().mean(-1).sqrt()

    quiet = loudness()
    assert_close(quiet, torch.full_like(quiet, 2 * model.config.initializer_range), rtol=0.1, atol=0.0)
    model.vision.merger.mlp[-1].weight.data *= 1000.0
    model.vision.merger.mlp[-1].bias.data *= 1000.0
    assert_close(loudness(), quiet, rtol=0.1, atol=0.0)


def test_a_picture_feature_knows_its_place_once_positions_are_learnt(processor) -> None:
    """The ViT itself cannot tell the cells of an empty page apart, and the same place means the same on two pages."""
    torch.manual_seed(0)
    model = VARGPT(tiny_config(processor.special))
    assert float(model.vision_positions.weight.detach().abs().max()) == 0.0, "nothing is added before it is learnt"
    paper = Image.new("RGB", (32, 32), (200, 30, 90))
    inputs = processor.encode([[Message.of("user", paper, "and", paper)]], model)
    is_picture = inputs["input_ids"] == processor.special.image

    def features() -> torch.Tensor:
        return model.embed(inputs["input_ids"], inputs["pixel_values"], inputs["image_grid_thw"])[is_picture]

    blind = features()
    assert_close(blind, blind[:1].expand_as(blind), rtol=1e-4, atol=1e-5)
    torch.nn.init.normal_(model.vision_positions.weight)
    first, second = features().chunk(2)
    assert_close(first, second)
    apart = torch.cdist(first, first) + torch.eye(len(first)) * 9
    assert float(apart.min().detach()) > 0.1


def test_places_are_shares_of_the_page() -> None:
    positions = PagePositions(8)
    torch.nn.init.normal_(positions.weight)
    tall, frames = positions([(1, 4, 2)], torch.float32), positions([(2, 4, 2)], torch.float32)
    assert tall.shape == (8, 8) and torch.equal(frames, tall.repeat(2, 1))
    middle_of_wide = positions([(1, 1, 3)], torch.float32)[1]
    assert_close(middle_of_wide, positions([(1, 1, 1)], torch.float32)[0])
