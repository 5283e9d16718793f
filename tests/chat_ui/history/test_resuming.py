"""A conversation that is opened again: versions, marks, exact bits; what is missing costs no more than itself."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("chainlit")

from chainlit.context import init_http_context
from PIL import Image

from chat_ui.conversation.page_settings import PageSettings
from chat_ui.conversation.visitor_conversation import Conversation
from chat_ui.history.recorder import what_was_lost, with_earlier_pictures
from chat_ui.history.saved_conversations import DAMAGED, FILE, LoadedConversation, read_conversation, write_conversation
from chat_ui.showing.picture_cards import Gallery
from chat_ui.showing.view import cards, props
from tests.chat_ui.remembered import message, new_id, picture_part, run
from vargpt.types import ImagePart, Message

MASK = Image.new("L", (32, 32))
MASK.paste(255, (0, 0, 16, 32))


def answered(talk: Conversation, turn, *seeds: int) -> None:
    talk.finish(turn, Message.of("assistant", *(picture_part(seed, index) for index, seed in enumerate(seeds))))


def story() -> Conversation:
    """A picture, an edit of it, two variations of the first; then back to the first, of which a part is marked."""
    talk = Conversation(settings=PageSettings(seed=7, size=(64, 96), faithfulness=0.5, adapter=("robot",)))
    answered(talk, talk.ask("1", Message.of("user", "draw a fox"), "image"), 1)
    answered(talk, talk.ask("2", Message.of("user", "make it sepia")), 2)
    answered(talk, talk.vary("1/0", "3"), 3, 4)
    talk.mark("1/0", MASK)
    return talk


def reopened(talk: Conversation, folder, **options: bool) -> LoadedConversation:
    write_conversation(talk, folder, **options)
    return read_conversation(folder)


def test_versions_marks_and_settings_come_back_and_every_button_goes_on_with_the_same_bits(tmp_path) -> None:
    before = story()
    talk = reopened(before, tmp_path).conversation
    described = [(version.id, version.parent, version.how, version.words) for version in talk.tree.versions]
    assert described == [(version.id, version.parent, version.how, version.words) for version in before.tree.versions]
    assert talk.tree.places() == before.tree.places() and len(described) == 4
    assert (talk.current, talk.undone, talk.settings) == ("1/0", None, before.settings)
    buttons = (
        lambda one: one.again("2", "x"),
        lambda one: one.refine("2/0", 1, "x"),
        lambda one: one.vary("3/1", "x"),
        lambda one: one.ask("y", Message.of("user", "make it blue")),
    )
    for pressed in buttons:
        mine, theirs = pressed(talk).request, pressed(before).request
        assert (mine.seed, mine.n, mine.keep_scales, mine.size) == (
            theirs.seed,
            theirs.n,
            theirs.keep_scales,
            theirs.size,
        )
        assert (mine.adapter, mine.faithfulness) == (("robot",), 0.5)
        assert (mine.given and mine.given.tokens) == (theirs.given and theirs.given.tokens)
        assert (mine.region and mine.region.tobytes()) == (theirs.region and theirs.region.tobytes())
        tokens = [[part.tokens for said in request.messages for part in said.images] for request in (mine, theirs)]
        assert tokens[0] == tokens[1]
    assert mine.region is not None
    assert talk.go_to("3/1").id == talk.current == "3/1" and talk.undo().id == "2/0"


def test_a_question_that_a_crash_cut_off_uses_up_neither_mark_nor_attached_picture(tmp_path) -> None:
    talk = story()
    talk.ask("4", Message.of("user", "make it blue"))
    assert talk.marked is None
    loaded = reopened(talk, tmp_path, is_running=True)
    assert loaded.conversation.marked.tobytes() == MASK.tobytes() and loaded.conversation.current == "1/0"
    assert "lost when the page was stopped" in " ".join(what_was_lost(loaded))


def test_a_lost_picture_leaves_the_tree_and_the_rest_goes_on(tmp_path) -> None:
    talk = story()
    talk.go_to("2/0")
    write_conversation(talk, tmp_path)
    [name] = [
        entry["fields"]["image"]["picture"]
        for entry in json.loads((tmp_path / FILE).read_bytes())["objects"]
        if entry["is"] == "ImagePart" and entry["fields"]["seed"] == talk.turns["2"].reply.images[0].seed
    ]
    (tmp_path / name).unlink()
    loaded = read_conversation(tmp_path)
    again = loaded.conversation
    assert [version.id for version in again.tree.versions] == ["1/0", "3/0", "3/1"] and again.current == "1/0"
    assert again.messages[-1].text == "(a picture that was lost)" and again.undone is None
    with pytest.raises(ValueError, match="ask for it once more"):
        again.again("2", "x")
    assert again.ask("4", Message.of("user", "add a hat")).made_from == "1/0"
    assert "A picture of this conversation cannot be read" in " ".join(what_was_lost(loaded))


def test_a_lost_mark_costs_the_mark_and_the_tries_with_it(tmp_path) -> None:
    talk = story()
    answered(talk, talk.ask("4", Message.of("user", "make it blue")), 5)
    talk.mark("1/0", MASK)
    write_conversation(talk, tmp_path)
    document = json.loads((tmp_path / FILE).read_bytes())
    [turn] = [entry["fields"] for entry in document["objects"] if entry["is"] == "Turn" and entry["fields"]["region"]]
    (tmp_path / turn["region"]["picture"]).write_bytes(b"")
    again = read_conversation(tmp_path).conversation
    assert again.marked is None and list(again.turns) == ["1", "2", "3"] and again.current == "1/0"


def test_a_field_that_only_another_version_knows_is_named_and_left_out(tmp_path) -> None:
    write_conversation(story(), tmp_path)
    document = json.loads((tmp_path / FILE).read_bytes())
    for entry in document["objects"]:
        if entry["is"] == "Turn":
            entry["fields"]["mood"] = "blue"
    (tmp_path / FILE).write_text(json.dumps(document))
    loaded = read_conversation(tmp_path)
    assert "Turn.mood is not known" in " ".join(what_was_lost(loaded)) and len(loaded.conversation.tree.versions) == 4


def test_a_field_that_cannot_be_missed_is_named_and_the_file_kept(tmp_path) -> None:
    write_conversation(story(), tmp_path)
    document = json.loads((tmp_path / FILE).read_bytes())
    for entry in document["objects"]:
        entry["fields"].pop("context", None)
    (tmp_path / FILE).write_text(json.dumps(document))
    with pytest.raises(ValueError, match="a Turn lacks context"):
        read_conversation(tmp_path)
    assert json.loads((tmp_path / DAMAGED).read_bytes()) == document


def test_an_edited_question_keeps_what_was_attached_to_it_and_carries_what_it_carried() -> None:
    talk, upload = Conversation(), ImagePart(Image.new("RGB", (48, 32)))
    answered(talk, talk.ask("1", Message.of("user", upload, "make it red")), 1)
    talk.go_to("1/in0")
    answered(talk, talk.ask("2", Message.of("user", "make it blue")), 2)
    for turn_id, made_from in (("2", "1/in0"), ("1", "1/in0")):
        prompt = with_earlier_pictures(talk, turn_id, Message.of("user", "make it green"))
        turn = talk.ask(turn_id, prompt)
        assert [part is upload for part in turn.prompt.images] == [True] and turn.made_from == made_from
        answered(talk, turn, 3)


def test_the_gallery_knows_cards_from_before_and_marks_them_as_the_conversation_says() -> None:
    async def opened_again() -> None:
        talk, thread, steps = story(), new_id(), [new_id() for _ in range(3)]
        init_http_context(thread_id=thread)
        elements = []
        for step, turn in zip(steps, talk.turns.values(), strict=True):
            for index, part in reversed([*enumerate(turn.reply.images)]):
                kept = {"state": "done", "turn": turn.id, "index": index, "version": f"{turn.id}/{index}"}
                kept |= {"step": 4, "total": 4, "width": 512, "height": 512, "role": "only", "current": True}
                elements.append({"id": new_id(), "name": "Picture", "forId": step, "props": kept})
                assert part.tokens is not None
        upload = {"id": new_id(), "name": "fox.png", "forId": new_id(), "props": None}
        shown = {"id": thread, "steps": [message(thread, step, "") for step in steps], "elements": [upload, *elements]}
        gallery = Gallery()
        gallery.resume(talk, shown)
        *others, row = shown["elements"]
        found = {card["props"]["version"]: card["props"] for card in others[1:]}
        assert others[0] is upload and (row["name"], row["forId"]) == ("Versions", steps[-1])
        assert [version["id"] for version in row["props"]["versions"]] == ["1/0", "2/0", "3/0", "3/1"]
        assert {version for version, card in found.items() if card["current"]} == {"1/0"}
        assert {version: card["role"] for version, card in found.items()} == {
            "1/0": "only", "2/0": "only", "3/0": "chosen", "3/1": "alternative"}  # fmt: skip
        assert list(gallery.replies) == ["1", "2", "3"]
        card = cards(gallery.replies["3"]._shown)[1]
        assert card.part is talk.turns["3"].reply.images[1]
        assert props(card, "draw a fox", "3", 2)["version"] == "3/1"

    run(opened_again())
