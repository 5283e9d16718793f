"""Going back to a picture, branching from it, and drawing parts of it anew: the requests that are sent."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from chat_ui.conversation.page_settings import PageSettings
from chat_ui.conversation.visitor_conversation import NUM_VARIATIONS, Conversation, Turn
from vargpt.types import ImageLayout, ImagePart, ImageTokens, Message

LAYOUT = ImageLayout(32, 48, ((1, 1), (2, 2), (2, 3), (4, 6)))
MASK = Image.new("L", (48, 32), 255)


def said(role: str, *parts) -> Message:
    return Message.of(role, *parts)


def drawn(number: int = 0, seed: int = 7, has_tokens: bool = True) -> ImagePart:
    tokens = ImageTokens(LAYOUT, tuple(torch.zeros(1, h, w, 2, dtype=torch.bool) for h, w in LAYOUT.scales))
    marks = {"opening": 0, "alternative": number}
    return ImagePart(Image.new("RGB", (48, 32)), tokens if has_tokens else None, seed, marks)


def asked(talk: Conversation, turn_id: str, *parts, reply=None) -> Turn:
    """One turn that was answered with a picture, or with `reply`."""
    turn = talk.ask(turn_id, said("user", *parts))
    talk.finish(turn, said("assistant", *(reply or (drawn(),))))
    return turn


def story() -> Conversation:
    """A picture, a change to it, a question about it, and another change."""
    talk = Conversation()
    asked(talk, "1", "draw a fox")
    asked(talk, "2", "make it sepia")
    asked(talk, "3", "how many?", reply=("one",))
    asked(talk, "4", "add a ball")
    return talk


def lineage(talk: Conversation) -> list[tuple[str, str | None]]:
    return [(version.id, version.parent) for version in talk.tree.versions]


def words(talk: Conversation) -> list[str]:
    return [message.text for message in talk.messages if message.role == "user"]


def test_every_picture_is_made_from_the_one_that_was_current_when_it_was_asked_for() -> None:
    talk = story()
    assert lineage(talk) == [("1/0", None), ("2/0", "1/0"), ("4/0", "2/0")]
    assert talk.current == "4/0"


def test_a_picture_that_is_no_change_begins_a_line_of_its_own_and_undo_still_leads_back() -> None:
    talk = story()
    turn = talk.ask("5", said("user", "draw a castle"), is_new=True)
    talk.finish(turn, said("assistant", drawn()))
    asked(talk, "6", "make it sepia")
    assert lineage(talk)[-2:] == [("5/0", None), ("6/0", "5/0")]
    talk.undo()
    assert talk.undo().id == "4/0"


def test_what_was_marked_or_attached_or_is_leant_on_is_changed_whatever_the_words_say() -> None:
    talk = story()
    talk.mark("4/0", MASK)
    assert talk.ask("5", said("user", "draw a castle"), is_new=True).made_from == "4/0"
    attached = talk.ask("6", said("user", ImagePart(Image.new("RGB", (8, 8))), "paint a hat"), is_new=True)
    assert attached.made_from == "6/in0"
    talk.settings = PageSettings(faithfulness=0.5)
    assert talk.ask("7", said("user", "draw a castle"), is_new=True).made_from == "4/0"


def test_going_back_forgets_what_was_said_since_and_a_branch_begins_there() -> None:
    talk = story()
    talk.go_to("1/0")
    turn = talk.ask("5", said("user", "make it snow"))
    assert [message.text for message in turn.request.messages if message.role == "user"] == [
        "draw a fox",
        "make it snow",
    ]
    assert turn.request.messages[1].images[0] is talk.tree.find("1/0").part
    talk.finish(turn, said("assistant", drawn()))
    assert lineage(talk)[-1] == ("5/0", "1/0")
    talk.go_to("4/0")
    assert words(talk) == ["draw a fox", "make it sepia", "how many?", "add a ball"]


def test_undo_goes_back_step_by_step_to_the_beginning() -> None:
    talk = story()
    assert [talk.undo().id, talk.undo().id] == ["2/0", "1/0"]
    assert words(talk) == ["draw a fox"]
    with pytest.raises(ValueError, match="began with this picture"):
        talk.undo()
    with pytest.raises(ValueError, match="nothing has been drawn"):
        Conversation().undo()


def test_undo_after_another_try_goes_back_to_the_try_before_it() -> None:
    talk = story()
    talk.finish(talk.again("4", "5"), said("assistant", drawn()))
    assert (talk.current, talk.tree.find("5/0").parent, talk.tree.find("5/0").how) == ("5/0", "2/0", "again")
    assert [talk.undo().id, talk.undo().id] == ["4/0", "2/0"]


def test_an_attached_picture_can_be_gone_back_to_and_goes_with_the_next_question() -> None:
    talk = Conversation()
    asked(talk, "1", Image.new("RGB", (48, 32)), "what is it?", reply=("a square",))
    asked(talk, "2", "make it red")
    assert lineage(talk) == [("1/in0", None), ("2/0", "1/in0")]
    attached = talk.undo().part
    turn = talk.ask("3", said("user", "make it blue"))
    assert len(turn.request.messages) == 1 and turn.request.messages[0].images == (attached,)
    talk.finish(turn, said("assistant", drawn()))
    assert lineage(talk)[-1] == ("3/0", "1/in0")
    assert len(talk.ask("4", said("user", "and now?")).request.messages) == 3


def test_a_question_that_was_not_answered_uses_nothing_up() -> None:
    talk = Conversation()
    asked(talk, "1", Image.new("RGB", (48, 32)), "make it red")
    talk.go_to("1/in0")
    talk.mark("1/in0", MASK)
    talk.finish(talk.ask("2", said("user", "boom")), None)
    request = talk.ask("3", said("user", "make it blue")).request
    assert request.region is MASK and len(request.messages[-1].images) == 1


def test_an_edited_question_takes_back_what_came_after_it_and_where_it_began() -> None:
    talk = story()
    talk.go_to("1/0")
    asked(talk, "5", "make it snow")
    turn = talk.ask("4", said("user", "add a hat"))
    assert turn.made_from == "2/0"
    talk.finish(turn, said("assistant", drawn()))
    assert lineage(talk) == [("1/0", None), ("2/0", "1/0"), ("4/0", "2/0")]


def test_choosing_an_alternative_of_an_older_reply_goes_on_from_it() -> None:
    talk = Conversation(settings=PageSettings(pictures=2))
    asked(talk, "1", "draw a fox", reply=(drawn(0), drawn(1)))
    assert talk.current == "1/0"
    asked(talk, "2", "make it sepia")
    talk.choose("1", 1)
    assert (talk.current, words(talk)) == ("1/1", ["draw a fox"])
    assert talk.ask("3", said("user", "make it snow")).made_from == "1/1"
    # What was made from the other one still reads it.
    talk.go_to("2/0")
    assert [part.settings["alternative"] for part in talk.messages[1].images] == [0, 1]


def test_refining_keeps_scales_of_exactly_this_picture_and_takes_a_new_seed() -> None:
    talk = Conversation(settings=PageSettings(seed=3, pictures=2, size=(32, 32)))
    asked(talk, "1", "draw a fox", reply=(drawn(0), drawn(1)))
    request = talk.refine("1/1", 2, "2").request
    assert request.given is talk.tree.find("1/1").part
    assert (request.keep_scales, request.n, request.seed, request.size) == (2, 1, 5, None)  # None: as it is
    assert [message.text for message in request.messages] == ["draw a fox"]
    talk.finish(talk.turns["2"], said("assistant", drawn()))
    assert (talk.tree.find("2/0").parent, talk.tree.find("2/0").how) == ("1/1", "refined")
    assert len(talk.messages) == 2
    assert talk.again("2", "3").request.given is request.given


@pytest.mark.parametrize("keep", [0, 4, 99])
def test_only_scales_that_leave_something_to_draw_can_be_kept(keep: int) -> None:
    with pytest.raises(ValueError, match=f"Of 4 scales 1 to 3 can be kept, not {keep}"):
        story().refine("1/0", keep, "9")


def test_a_picture_that_was_not_drawn_here_cannot_be_refined_or_varied() -> None:
    talk = Conversation()
    asked(talk, "1", "draw a fox", reply=(drawn(has_tokens=False),))
    for attempt in (lambda: talk.refine("1/0", 1, "2"), lambda: talk.vary("1/0", "2")):
        with pytest.raises(ValueError, match="drawn here"):
            attempt()


def test_variations_share_the_coarser_half_and_none_repeats_a_seed() -> None:
    talk = Conversation(settings=PageSettings(seed=3))
    asked(talk, "1", "draw a fox")
    first = talk.vary("1/0", "2")
    assert (first.request.n, first.request.keep_scales, first.request.seed) == (NUM_VARIATIONS, 2, 4)
    talk.finish(first, said("assistant", drawn(0), drawn(1), drawn(2)))
    assert talk.vary("1/0", "3").request.seed == 4 + NUM_VARIATIONS
    assert [version.parent for version in talk.tree.versions] == [None, "1/0", "1/0", "1/0"]


def test_a_marked_part_is_for_the_next_question_only_and_for_the_picture_it_was_marked_on() -> None:
    talk = story()
    talk.settings = PageSettings(size=(32, 32))
    talk.mark("1/0", MASK)
    turn = talk.ask("5", said("user", "make it blue"))
    assert (turn.request.region, turn.request.size, turn.made_from) == (MASK, None, "1/0")
    assert turn.request.messages[-2].images[-1] is talk.tree.find("1/0").part
    talk.finish(turn, said("assistant", drawn()))
    later = talk.ask("6", said("user", "and red")).request
    assert (later.region, later.size) == (None, (32, 32))


def test_a_marked_part_is_dropped_by_going_elsewhere_by_a_new_attachment_and_on_demand() -> None:
    for leave in (
        lambda talk: talk.go_to("1/0"),
        lambda talk: talk.unmark(),
        lambda talk: asked(talk, "7", Image.new("RGB", (4, 4)), "what is it?"),
    ):
        talk = story()
        talk.mark("4/0", MASK)
        leave(talk)
        assert talk.ask("8", said("user", "make it blue")).request.region is None


def test_size_and_faithfulness_of_the_panel_reach_the_request() -> None:
    talk = Conversation(settings=PageSettings(size=(64, 96), faithfulness=0.5))
    request = talk.ask("1", said("user", "draw")).request
    assert (request.size, request.faithfulness) == ((64, 96), 0.5)
