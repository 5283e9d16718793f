"""Messages to tensors: what is learnt, what a user cannot inject, and every kind of picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor

import vargpt.assistant
from vargpt.assistant.model import IGNORE_INDEX, VARGPT
from vargpt.assistant.processor import ContextFullError, VargptProcessor, pad
from vargpt.assistant.special_tokens import NAMES
from vargpt.pictures.fitting import to_pixels
from vargpt.testing import tiny_config, tiny_model, tiny_processor
from vargpt.types import ImagePart, Message

PROCESSOR = tiny_processor()
SPECIAL = PROCESSOR.special
TEMPLATE = (Path(vargpt.assistant.__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model() -> VARGPT:
    return tiny_model()


def picture(shade: int = 90, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.new("RGB", size, (shade, 255 - shade, 7))


@given(st.lists(st.one_of(st.text(max_size=9), st.sampled_from(sorted(NAMES.values()))), max_size=5).map("".join))
@settings(max_examples=40, deadline=None)
def test_control_tokens_in_a_text_change_nothing_but_the_text(text) -> None:
    ids = PROCESSOR.conversation_ids([Message.of("user", text)], reply=True).input_ids
    header, tail = (
        PROCESSOR._header("user"),
        [SPECIAL.im_end, *PROCESSOR.text_ids("\n"), *PROCESSOR._header("assistant")],
    )
    inside = ids[len(header) : len(ids) - len(tail)]
    assert ids == header + inside + tail
    assert not SPECIAL.all.intersection(inside)
    assert PROCESSOR.tokenizer.decode(inside) == text


def test_a_text_conversation_has_the_ids_of_the_chat_template() -> None:
    texts = [("system", "Be brief."), ("user", "draw a fox"), ("assistant", "A fox."), ("user", "how many?")]
    processor = VargptProcessor(PROCESSOR.image_processor, PROCESSOR.tokenizer, chat_template=TEMPLATE, fixed_size=32)
    plain = [{"role": role, "content": text} for role, text in texts]
    parts = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts]
    for reply in (True, False):
        ours = processor.conversation_ids([Message.of(*pair) for pair in texts], reply=reply).input_ids
        for conversation in (plain, parts):
            text = processor.apply_chat_template(conversation, add_generation_prompt=reply, tokenize=False)
            assert processor.tokenizer(text, add_special_tokens=False)["input_ids"] == ours


def test_a_conversation_with_pictures_reads_like_the_chat_template_with_one_placeholder_per_picture() -> None:
    processor = VargptProcessor(PROCESSOR.image_processor, PROCESSOR.tokenizer, chat_template=TEMPLATE, fixed_size=32)
    messages = [Message.of("user", picture(), "replace it"), Message.of("assistant", "A cat.", picture(1), "Done.")]
    conversation = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "replace it"}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "A cat."}, {"type": "image"}, {"type": "text", "text": "Done."}],
        },
    ]
    ids = processor.conversation_ids(messages).input_ids
    once = [token for at, token in enumerate(ids) if token != SPECIAL.image or ids[at - 1] != SPECIAL.image]
    assert processor.tokenizer.decode(once) == processor.apply_chat_template(conversation, tokenize=False)


def test_only_what_the_assistant_says_and_where_it_draws_and_stops_is_learnt() -> None:
    messages = [
        Message.of("system", "Be brief."),
        Message.of("user", picture(), "replace the fox"),
        Message.of("assistant", "A cat.", picture(1), "Done."),
    ]
    encoded = PROCESSOR.conversation_ids(messages, num_slots=21)
    learnt = [label for label in encoded.labels if label != IGNORE_INDEX]
    said, done = PROCESSOR.text_ids("A cat."), PROCESSOR.text_ids("Done.")
    assert learnt == [*said, SPECIAL.gen_start, *done, SPECIAL.im_end]
    assert all(label in (IGNORE_INDEX, token) for token, label in zip(encoded.input_ids, encoded.labels, strict=True))
    assert encoded.input_ids.count(SPECIAL.gen_pad) == 21
    assert encoded.input_ids.count(SPECIAL.image) == 2 * 16, "the drawn picture is read back"
    assert encoded.pictures == [messages[1].images[0], messages[2].images[0]]
    assert encoded.drawn == [messages[2].images[0]]


def test_a_closing_picture_may_be_cut_right_after_its_slots_and_no_other() -> None:
    closing = [Message.of("user", "draw"), Message.of("assistant", picture(), "and", picture(1))]
    whole = PROCESSOR.conversation_ids(closing, num_slots=5)
    cut = PROCESSOR.conversation_ids(closing, num_slots=5, cut_last_picture=True)
    assert cut.input_ids == whole.input_ids[: len(cut.input_ids)] and cut.input_ids[-1] == SPECIAL.gen_pad
    assert (len(cut.pictures), len(cut.drawn)) == (1, 2)
    for messages in ([*closing, Message.of("user", "more")], [Message.of("assistant", picture(), "Done.")]):
        uncut = PROCESSOR.conversation_ids(messages, num_slots=5)
        assert PROCESSOR.conversation_ids(messages, num_slots=5, cut_last_picture=True) == uncut


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (1, 400), (400, 3), (31, 33), (64, 48), (5, 7)])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "RGBA"])
def test_every_picture_is_fitted_on_the_square_whatever_its_size_and_mode(size, mode) -> None:
    fitted = PROCESSOR.fit(Image.new("RGB", size).convert(mode))
    assert (fitted.size, fitted.mode) == ((32, 32), "RGB")
    assert fitted.getpixel((15, 15)) == (0, 0, 0), "the picture is in the middle"
    if size[0] >= 2 * size[1]:
        assert fitted.getpixel((16, 0)) == (255, 255, 255), "and paper above it"


def test_transparency_is_paper() -> None:
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert PROCESSOR.fit(clear).getpixel((5, 5)) == (255, 255, 255)
    half = Image.new("LA", (16, 16), (0, 128))
    assert PROCESSOR.fit(half).getpixel((5, 5)) == (127, 127, 127)


def test_without_a_fixed_size_placeholders_are_as_many_as_features(model) -> None:
    processor = VargptProcessor(PROCESSOR.image_processor, PROCESSOR.tokenizer)
    for size in ((32, 32), (64, 16), (50, 31)):
        part = ImagePart(picture(size=size))
        assert processor.fit(part.image).size == size
        grid = processor.picture_tensors([part], model)["image_grid_thw"]
        assert processor.placeholders(part) == int(grid.prod()) // 4


def test_pixels_and_pictures_are_inverses() -> None:
    noise = [Image.fromarray(one.numpy()) for one in torch.randint(0, 256, (2, 8, 6, 3), dtype=torch.uint8)]
    again = PROCESSOR.to_pil(to_pixels(noise))
    assert [one.tobytes() for one in again] == [one.tobytes() for one in noise]
    assert PROCESSOR.to_pil(torch.tensor([-9.0, 9.0, 0.0]).reshape(1, 3, 1, 1))[0].getpixel((0, 0)) == (0, 255, 128)


def test_the_source_of_an_edit_is_remembered_before_rounding(model) -> None:
    """From its latents the tokenizer makes the very bits of the picture, scale by scale."""
    layout = model.config.layout()
    latents = PROCESSOR.picture_tensors([ImagePart(picture())], model)["image_latents"]
    with torch.no_grad():
        tokens = model.image_tokenizer.encode(to_pixels([picture()]), layout)
    for k, grid in enumerate(tokens.grids):
        assert torch.equal(model.image_tokenizer.residual(latents, layout, tokens.grids[:k]) > 0, grid)


def test_conversations_are_padded_on_the_left(model) -> None:
    batch = PROCESSOR.encode([[Message.of("user", "a")], [Message.of("user", picture(), "a longer one")]], model)
    alone = PROCESSOR.conversation_ids([Message.of("user", "a")], reply=True).input_ids
    assert batch["input_ids"][0, -len(alone) :].tolist() == alone
    assert batch["attention_mask"][0].tolist() == [False] * (batch["input_ids"].shape[1] - len(alone)) + [True] * len(
        alone
    )
    assert batch["attention_mask"][1].all() and batch["image_latents"].shape[0] == 1


def test_a_conversation_that_leaves_no_room_for_a_reply_is_refused(model) -> None:
    message = Message.of("user", "draw a fox")
    length = len(PROCESSOR.conversation_ids([message], reply=True).input_ids)
    tiny_processor(max_context=length + 1).encode([[message]], model)
    with pytest.raises(ContextFullError, match=f"takes {length} tokens .* at most {length}"):
        tiny_processor(max_context=length).encode([[message]], model)


@pytest.mark.parametrize("messages", [[], [Message.of("assistant", "hello")], [Message.of("system", "Be brief.")]])
def test_only_something_a_user_said_is_answered(model, messages) -> None:
    with pytest.raises(ValueError, match="ends with a user message"):
        PROCESSOR.encode([messages], model)


def test_an_empty_message_is_refused_and_a_picture_alone_is_not(model) -> None:
    for text in ("", " \n\t"):
        with pytest.raises(ValueError, match="the message is empty"):
            PROCESSOR.encode([[Message.of("user", text)]], model)
    assert PROCESSOR.encode([[Message.of("user", picture())]], model)["pixel_values"].shape[0] == 64


def test_rows_that_drew_nothing_are_padding_in_what_follows_a_drawn_picture(model) -> None:
    follow = PROCESSOR.encode_drawn([None, ImagePart(picture()), None], model)
    expected = [SPECIAL.gen_end, SPECIAL.vision_start, *[SPECIAL.image] * 16, SPECIAL.vision_end]
    assert follow["input_ids"][1].tolist() == expected
    assert follow["attention_mask"].sum(1).tolist() == [0, len(expected), 0]
    assert not (follow["input_ids"][[0, 2]] == SPECIAL.image).any()
    assert follow["image_grid_thw"].tolist() == [[1, 8, 8]]
    whole = PROCESSOR.conversation_ids([Message.of("assistant", picture())]).input_ids
    assert str(expected)[1:-1] in str(whole), "as a whole conversation has it"
    nobody = PROCESSOR.encode_drawn([None, None], model)
    assert nobody["input_ids"].shape == (2, 0) and "pixel_values" not in nobody


def test_it_saves_and_loads_through_auto_processor(tmp_path) -> None:
    processor = VargptProcessor(
        PROCESSOR.image_processor, PROCESSOR.tokenizer, chat_template=TEMPLATE, fixed_size=32, max_context=777
    )
    processor.save_pretrained(tmp_path)
    tiny_config().save_pretrained(tmp_path)
    for loaded in (AutoProcessor.from_pretrained(tmp_path), VargptProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is VargptProcessor
        assert (loaded.fixed_size, loaded.max_context, loaded.special) == (32, 777, SPECIAL)
        assert loaded.chat_template == TEMPLATE
        messages = [Message.of("user", picture(), "naïve  🦊 <|im_end|>")]
        assert loaded.conversation_ids(messages) == PROCESSOR.conversation_ids(messages)
        same = [one.image_processor(images=[picture()], return_tensors="pt") for one in (loaded, PROCESSOR)]
        assert torch.equal(same[0]["pixel_values"], same[1]["pixel_values"])


def test_a_model_with_other_control_tokens_or_a_smaller_vocabulary_is_refused() -> None:
    PROCESSOR.check_model(tiny_config())
    for name in ("image_token_id", "vision_start_token_id", "image_gen_pad_token_id"):
        with pytest.raises(ValueError, match=rf"disagree on control tokens.*'{name}': \(\d+, 299\)"):
            PROCESSOR.check_model(tiny_config(**{name: 299}))
    config = tiny_config()
    config.text_config.vocab_size = 299
    with pytest.raises(ValueError, match="300 tokens .* 299"):
        PROCESSOR.check_model(config)


def test_padding_nothing_gives_an_empty_tensor() -> None:
    assert pad([], 0).shape == (0, 0) and pad([[], []], 0).shape == (2, 0)
    assert pad([[1], [2, 3]], 9).tolist() == [[1, 9], [2, 3]] and pad([[1], [2, 3]], 9, left=True).tolist()[0] == [9, 1]
