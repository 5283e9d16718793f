"""What the model was told, on disk: exact bits, shared messages, and no more lost than what is damaged."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from chat_ui.conversation.page_settings import PageSettings
from chat_ui.conversation.visitor_conversation import Conversation
from chat_ui.history.saved_conversations import (
    DAMAGED,
    FILE,
    NEWER,
    SavedConversations,
    archive_in,
    read_conversation,
    write_conversation,
)
from tests.chat_ui.remembered import a_talk, new_id, picture_part, run, same_parts
from vargpt.chat.scheduler import Ticket
from vargpt.types import ImagePart, Message


def saved_and_read(talk: Conversation, folder) -> Conversation:
    write_conversation(talk, folder)
    return read_conversation(folder).conversation


def test_a_conversation_comes_back_with_the_same_bits_seeds_and_settings(tmp_path) -> None:
    talk = replace(a_talk(), settings=PageSettings(seed=7, adapter=("robot",), pictures=2))
    again = saved_and_read(talk, tmp_path)
    assert len(again.messages) == 2 and all(map(same_parts, talk.messages, again.messages))
    assert again.settings == talk.settings and list(again.turns) == ["1", "2"]
    assert torch.equal(again.messages[-1].images[0].tokens.flat(), talk.messages[-1].images[0].tokens.flat())
    for mine, theirs in zip(talk.turns.values(), again.turns.values(), strict=True):
        assert (mine.seed, mine.route, mine.is_again) == (theirs.seed, theirs.route, theirs.is_again)
        assert same_parts(mine.reply, theirs.reply) and mine.settings == theirs.settings
        assert mine.request.adapter == theirs.request.adapter


def test_what_was_one_message_is_one_message_again_so_that_choosing_and_again_go_on(tmp_path) -> None:
    again = saved_and_read(a_talk(), tmp_path)
    assert again.turns["1"].prompt is again.turns["2"].prompt is again.messages[0]
    assert again.turns["2"].reply is again.messages[1]
    third = again.again("1", "3")
    again.finish(third, Message.of("assistant", picture_part(4), picture_part(5, alternative=1)))
    chosen = again.choose("3", 1)
    assert again.messages[-1] is chosen and len(again.messages) == 2


def test_what_belongs_to_a_running_process_is_left_out(tmp_path) -> None:
    talk = a_talk()
    talk.running = Ticket(talk.ask("3", Message.of("user", "hello")).request, "me", True, lambda _: 0)
    assert saved_and_read(talk, tmp_path).running is None


def test_an_object_that_nobody_knows_is_refused_and_the_file_stays(tmp_path) -> None:
    from dataclasses import make_dataclass

    write_conversation(a_talk(), tmp_path)
    before = (tmp_path / FILE).read_bytes()
    stranger = make_dataclass("Stranger", ["x"])(1)
    with pytest.raises(TypeError, match="Stranger is not among"):
        write_conversation(Conversation(turns={"1": stranger}), tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_saving_again_writes_only_what_is_new(tmp_path) -> None:
    talk = a_talk()
    write_conversation(talk, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != FILE}
    assert len(before) == 1 + 3 + 3, "an upload, three pictures, their tokens"
    talk.finish(talk.ask("4", Message.of("user", "hello")), Message.of("assistant", "yes"))
    write_conversation(talk, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != FILE} == before
    assert read_conversation(tmp_path).conversation.messages[-1].text == "yes"


def test_a_turn_that_was_begun_and_not_saved_again_was_lost(tmp_path) -> None:
    write_conversation(a_talk(), tmp_path, is_running=True)
    assert read_conversation(tmp_path).is_unfinished
    write_conversation(a_talk(), tmp_path)
    assert not read_conversation(tmp_path).is_unfinished


def test_a_damaged_file_is_put_aside_and_told_of(tmp_path) -> None:
    write_conversation(a_talk(), tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b'{"format": 1, "objects": [], "top": {"object": 3}}', b"[1]",
                    b'{"format": 1, "objects": [{"is": "Path", "fields": {}}], "top": {"object": 0}}'):  # fmt: skip
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(ValueError, match="was damaged"):
            read_conversation(tmp_path)
        assert (tmp_path / DAMAGED).read_bytes() == damaged and read_conversation(tmp_path) is None


def test_a_file_of_a_newer_program_is_put_aside_as_it_is(tmp_path) -> None:
    write_conversation(a_talk(), tmp_path)
    newer = json.loads((tmp_path / FILE).read_bytes()) | {"format": 99}
    (tmp_path / FILE).write_text(json.dumps(newer))
    with pytest.raises(ValueError, match="newer vargpt"):
        read_conversation(tmp_path)
    assert json.loads((tmp_path / NEWER).read_bytes()) == newer and read_conversation(tmp_path) is None


@pytest.mark.parametrize("ending", ["png", "safetensors"])
def test_a_lost_picture_costs_only_itself(ending, tmp_path) -> None:
    talk = a_talk()
    write_conversation(talk, tmp_path)
    reply = json.loads((tmp_path / FILE).read_bytes())
    last = [entry for entry in reply["objects"] if entry["is"] == "ImagePart"][1]["fields"]
    name = last["image"]["picture"] if ending == "png" else last["tokens"]["tokens"]
    (tmp_path / name).write_bytes(b"not any more")
    loaded = read_conversation(tmp_path)
    assert loaded.num_lost == 1 and len(loaded.conversation.messages[0].images) == 1
    assert loaded.conversation.messages[-1].text == "Again.(a picture that was lost)"
    assert len(loaded.conversation.turns["1"].reply.images) == 2
    assert isinstance(loaded.conversation.messages[0].parts[0], ImagePart)


def test_conversations_are_saved_side_by_side_and_deleted_alone(tmp_path) -> None:
    files, one, other = SavedConversations(tmp_path), new_id(), new_id()

    async def story() -> None:
        await files.save(one, a_talk())
        await files.save(other, a_talk())
        await files.delete(one)
        assert await files.load(one) is None and len((await files.load(other)).conversation.messages) == 2

    run(story())
    assert [path.name for path in tmp_path.iterdir()] == [other]


def test_a_history_that_an_earlier_version_wrote_is_read_as_it_was(tmp_path) -> None:
    older = json.loads(Path(__file__).with_name("older_history.json").read_text(encoding="utf-8"))
    for name, content in older["files"].items():
        (tmp_path / name).write_bytes(content.encode() if name == FILE else base64.b64decode(content))
    loaded = read_conversation(tmp_path)
    assert (loaded.num_lost, loaded.unknown, loaded.is_unfinished) == (0, (), False)
    talk = loaded.conversation
    assert talk.settings == PageSettings(seed=7, adapter=("robot",), pictures=2)
    assert [version.id for version in talk.tree.versions] == ["1/in0", "1/0", "1/1"] and talk.current == "1/0"
    assert talk.turns["1"].reply is talk.messages[1] and talk.marked.size == (2, 2)
    first, second = talk.messages[1].images
    assert (first.seed, second.seed, second.settings["alternative"]) == (7, 8, 1)
    assert first.tokens.flat().tolist() == [[[True, False], [True, False], [False, True]]]
    ballot = archive_in(tmp_path).read(older["ballot"]).value
    assert same_parts(ballot.reply, talk.messages[1]) and ballot.index == 1
