"""What the page remembers of a conversation, and what it accepts from the settings panel."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from chat_ui.conversation.page_settings import ADAPTER_ALL, ADAPTER_OFF, SLIDERS, PageSettings, adapter_choices
from chat_ui.conversation.visitor_conversation import WORDLESS, Conversation, question, without_oldest_picture
from vargpt.types import ChatRequest, ImagePart, Message


def paper() -> Image.Image:
    return Image.new("RGB", (64, 64), "red")


def drawn() -> ImagePart:
    return ImagePart(paper(), seed=7, settings={"opening": 0, "alternative": 0})


def said(role: str, *parts) -> Message:
    return Message.of(role, *parts)


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# The conversation


def test_a_turn_sees_all_that_was_said_before_it() -> None:
    talk = Conversation()
    talk.finish(talk.ask("1", said("user", "draw a fox")), said("assistant", "a fox", drawn()))
    turn = talk.ask("2", said("user", "how many?"))
    assert [message.text for message in turn.request.messages] == ["draw a fox", "a fox", "how many?"]


def test_the_draw_button_forces_a_picture_and_again_keeps_it_forced() -> None:
    talk = Conversation()
    talk.finish(talk.ask("1", said("user", "a fox"), "image"), said("assistant", drawn()))
    assert (talk.turns["1"].request.route, talk.again("1", "2").request.route) == ("image", "image")
    assert talk.ask("3", said("user", "hello")).request.route == "auto"


def test_an_edited_question_forgets_what_came_after_it() -> None:
    talk = Conversation()
    for number in "123":
        talk.finish(talk.ask(number, said("user", "ask " + number)), said("assistant", "answer " + number))
    turn = talk.ask("2", said("user", "something else"))
    assert [message.text for message in turn.request.messages] == ["ask 1", "answer 1", "something else"]
    assert list(talk.turns) == ["1", "2"]


def test_again_takes_the_next_seed_and_the_place_of_the_last_reply() -> None:
    talk = Conversation(settings=PageSettings(seed=5, pictures=2))
    talk.finish(talk.ask("1", said("user", "draw")), said("assistant", drawn()))
    second = talk.again("1", "2")
    talk.finish(second, said("assistant", "better", drawn()))
    third = talk.again("1", "3")  # the first picture's button, once more
    assert (second.seed, third.seed) == (7, 9)
    assert second.request.messages == third.request.messages
    assert len(talk.messages) == 2 and talk.messages[-1].text == "better"


def test_again_that_is_stopped_does_not_cost_the_picture_that_is_there() -> None:
    talk = Conversation()
    talk.finish(talk.ask("1", said("user", "draw")), said("assistant", drawn()))
    talk.finish(talk.again("1", "2"), said("assistant", "a fo"))
    assert len(talk.messages[-1].images) == 1


def test_again_of_an_older_question_goes_on_from_that_questions_own_place() -> None:
    talk = Conversation()
    talk.finish(talk.ask("1", said("user", "draw")), said("assistant", drawn()))
    talk.finish(talk.ask("2", said("user", "how many?")), said("assistant", "one"))
    turn = talk.again("1", "3")
    assert len(turn.request.messages) == 1
    talk.finish(turn, said("assistant", "another", drawn()))
    assert [message.text for message in talk.messages] == ["draw", "another"]


def test_a_turn_that_failed_leaves_no_trace_in_the_next_request() -> None:
    talk = Conversation()
    talk.finish(talk.ask("1", said("user", "boom")), None)
    assert talk.messages == ()


def test_an_unset_seed_is_new_for_every_turn_and_a_set_one_stays() -> None:
    talk = Conversation()
    assert len({talk.ask(str(i), said("user", "draw")).seed for i in range(8)}) > 1
    talk.settings = PageSettings(seed=0)
    assert talk.ask("x", said("user", "draw")).seed == 0


def test_a_full_context_loses_its_oldest_picture_first_and_the_question_never() -> None:
    talk = Conversation()
    talk.finish(talk.ask("1", said("user", "draw a fox")), said("assistant", "a fox", drawn()))
    talk.finish(talk.ask("2", said("user", "draw a cat")), said("assistant", drawn()))
    turn = talk.ask("3", said("user", paper(), "what is it?"))
    counts = [len(list(pictures(turn.request)))]
    while turn.set_aside_a_picture():
        counts.append(len(list(pictures(turn.request))))
    assert counts == [3, 2, 1]
    # The exchange that was nothing but a picture is gone; the words of the other one stay.
    assert [message.text for message in turn.request.messages] == ["draw a fox", "a fox", "what is it?"]
    talk.finish(turn, said("assistant", "a square"))
    assert sum(len(message.images) for message in talk.messages) == 1


def pictures(request: ChatRequest) -> Iterator[ImagePart]:
    for message in request.messages:
        yield from message.images


def test_a_conversation_without_pictures_has_nothing_to_set_aside() -> None:
    assert without_oldest_picture((said("user", "hello"), said("assistant", "hello"))) is None


def test_pictures_without_words_get_a_question() -> None:
    message = question("  ", [("a.png", png_bytes(paper()))])
    assert message.text == WORDLESS and len(message.images) == 1


def test_a_file_that_is_no_picture_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"“notes\.png”.*not a picture"):
        question("what is this?", [("notes.png", b"hello")])


# Settings


def test_the_panel_sends_text_and_the_request_carries_numbers() -> None:
    values = {"seed": "42", "guidance": "3.5", "temperature": 1, "top_p": "0.9", "pictures": "2", "text_temperature": 0}
    settings = PageSettings().changed(values)
    request = settings.request((said("user", "draw"),), settings.seed)
    assert (request.seed, request.n) == (42, 2)
    assert (request.image_sampling.guidance_scale, request.image_sampling.top_p) == (3.5, 0.9)


def test_the_panel_chooses_among_adapters() -> None:
    assert adapter_choices(["robot"]) == ["robot", ADAPTER_OFF]
    assert adapter_choices(["robot", "crayon"]) == [ADAPTER_ALL, "robot", "crayon", ADAPTER_OFF]
    settings = PageSettings()
    assert settings.request((said("user", "draw"),), 0).adapter is None
    for value, adapter in (("robot", ("robot",)), (ADAPTER_OFF, ()), (ADAPTER_ALL, None)):
        settings = settings.changed({"adapter": value})
        assert settings.changed({"guidance": 2}).request((said("user", "draw"),), 0).adapter == adapter


@pytest.mark.parametrize("empty", ["", None, " ", "-1", -1])
def test_an_empty_or_negative_seed_means_a_new_one_each_time(empty: object) -> None:
    assert PageSettings().changed({"seed": empty}).seed is None


@pytest.mark.parametrize("wrong", [{"seed": "abc"}, {"seed": "1.5"}, {"seed": "1e99"}, {"seed": "nan"}, {"top_p": 0},
                                   {"guidance": "much"}, {"temperature": float("nan")}, {"pictures": 99}])  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name(wrong: dict) -> None:
    with pytest.raises(ValueError, match="(?i)" + next(iter(wrong)).replace("top_p", "top-p")):
        PageSettings().changed(wrong)


def test_the_defaults_lie_within_the_sliders() -> None:
    PageSettings().changed({slider.id: getattr(PageSettings(), slider.id) for slider in SLIDERS})
