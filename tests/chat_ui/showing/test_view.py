"""What the page shows of a turn: events to views, cards to the props of the picture element."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

from chat_ui.conversation.visitor_conversation import Conversation
from chat_ui.showing.view import View, advance, caption, cards, file_name, props, rechosen, reply, shown_size, stop
from vargpt.types import (
    ImageFinished,
    ImageLayout,
    ImagePart,
    ImagePreview,
    ImageStarted,
    Message,
    TextDelta,
    TurnFinished,
)

LAYOUT = ImageLayout(64, 64, ((1, 1), (2, 2), (4, 4)))


def paper(colour: str = "red", size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def drawn(index: int = 0, colour: str = "red") -> ImagePart:
    return ImagePart(paper(colour), seed=7 + index, settings={"opening": 0, "alternative": index})


def view_of(*events) -> View:
    view = View()
    for event in events:
        view = advance(view, event)
    return view


def said(role: str, *parts) -> Message:
    return Message.of(role, *parts)


# Events to views


def test_words_that_follow_one_another_share_a_bubble_and_words_after_a_picture_open_a_new_one() -> None:
    view = view_of(TextDelta("a "), TextDelta("fox"), ImageFinished(0, drawn()), TextDelta("there"))
    assert [bubble.words for bubble in view.bubbles] == ["a fox", "there"]
    assert [len(bubble.cards) for bubble in view.bubbles] == [1, 0]


def test_the_counter_follows_the_scales_until_the_picture_is_finished() -> None:
    view, captions = View(), []
    for event in (
        ImageStarted(0, LAYOUT),
        ImagePreview(0, paper(), 1, 3),
        ImagePreview(0, paper(), 2, 3),
        ImageFinished(0, drawn()),
    ):
        view = advance(view, event)
        captions.append(caption(cards(view)[0]))
    assert captions == ["scale 0 of 3", "scale 1 of 3", "scale 2 of 3", "64 × 64 · seed 7"]
    assert len(cards(view)) == 1


def test_previews_of_several_pictures_change_only_their_own_card() -> None:
    before = view_of(ImageStarted(0, LAYOUT), ImageStarted(1, LAYOUT))
    after = advance(before, ImagePreview(1, paper(), 1, 3))
    assert cards(after)[0] is cards(before)[0]
    assert cards(after)[1] is not cards(before)[1]
    assert [card.step for card in cards(after)] == [0, 1]


def test_a_stopped_turn_keeps_words_and_finished_pictures_and_marks_the_forming_one() -> None:
    view = view_of(TextDelta("two foxes"), ImageFinished(0, drawn()), ImageStarted(1, LAYOUT))
    view = stop(advance(view, ImagePreview(1, paper(), 2, 3)))
    assert [card.state for card in cards(view)] == ["done", "stopped"]
    assert caption(cards(view)[1]) == "stopped after scale 2 of 3"
    message = reply(view)
    assert message.text == "two foxes" and len(message.images) == 1


def test_the_reply_made_of_what_is_shown_is_the_message_of_the_finished_turn() -> None:
    part = drawn()
    expected = said("assistant", "a fox", part, "and gone")
    events = (TextDelta("a fox"), ImageStarted(0, LAYOUT), ImageFinished(0, part), TextDelta("and gone"))
    shown = reply(view_of(*events, TurnFinished(expected, "stop")))
    assert shown.text == expected.text
    assert shown.images[0] is part
    assert [type(part) for part in shown.parts] == [type(part) for part in expected.parts]


def test_a_turn_without_a_word_is_no_message() -> None:
    assert reply(View()) is None
    assert reply(view_of(ImageStarted(0, LAYOUT))) is None


@pytest.mark.parametrize(("reason", "word"), [("stop", ""), ("length", "longest"), ("cancelled", "Stopped")])
def test_how_a_turn_ended_is_said_only_when_it_did_not_simply_end(reason: str, word: str) -> None:
    view = view_of(TextDelta("hm"), TurnFinished(said("assistant", "hm"), reason))
    assert word in view.note and bool(view.note) == bool(word)


def test_a_turn_that_failed_is_not_called_stopped() -> None:
    assert stop(view_of(TextDelta("hm")), None).note == ""


def test_a_stopped_picture_says_so_itself() -> None:
    assert stop(view_of(ImageStarted(0, LAYOUT))).note == ""


# Cards to props


def test_the_file_that_is_downloaded_is_the_original_with_how_it_was_made() -> None:
    view = view_of(ImageFinished(0, drawn(colour="blue")))
    values = props(cards(view)[0], "draw a fox!", "turn")
    json.dumps(values)  # the page gets it as JSON
    with Image.open(io.BytesIO(base64.b64decode(values["png"].split(",")[1]))) as image:
        assert image.size == (64, 64) and image.getpixel((0, 0)) == (0, 0, 255)
        assert image.info["prompt"] == "draw a fox!" and image.info["seed"] == "7"
    with Image.open(io.BytesIO(base64.b64decode(values["src"].split(",")[1]))) as image:
        assert image.size == (values["width"], values["height"]) == (512, 512)
    assert values["file"] == "draw-a-fox-7.png"


def test_a_forming_picture_offers_no_download() -> None:
    values = props(cards(view_of(ImageStarted(0, LAYOUT)))[0], "draw", "turn")
    assert values["src"] is None and "png" not in values and values["state"] == "drawing"


def test_choosing_another_picture_moves_the_mark() -> None:
    view = view_of(ImageFinished(0, drawn(0)), ImageFinished(1, drawn(1, "blue")))
    talk = Conversation()
    turn = talk.ask("q", said("user", "draw"))
    talk.finish(turn, reply(view))
    later = rechosen(view, talk.choose("q", 1))
    roles = [props(card, "draw", "q", 2)["role"] for card in cards(later)]
    assert roles == ["alternative", "chosen"]
    assert [part.settings["alternative"] for part in talk.messages[-1].images] == [1, 0]


@pytest.mark.parametrize(
    ("size", "shown"),
    [((64, 64), (512, 512)), ((16, 32), (256, 512)), ((300, 200), (300, 200)), ((4096, 2048), (1024, 512))],
)
def test_small_pictures_are_enlarged_by_a_whole_factor_and_huge_ones_reduced(size: tuple, shown: tuple) -> None:
    assert shown_size(*size) == shown


def test_file_names_hold_only_what_every_file_system_takes() -> None:
    assert file_name("../../ein Füchslein?\n", 3) == "ein-f-chslein-3.png"
    assert file_name("狐", None, 1) == "picture-2.png"
