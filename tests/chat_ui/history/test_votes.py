"""Votes: what they say of which pictures, and rows that the training reads as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from chainlit.types import Feedback

from chat_ui.conversation.visitor_conversation import Conversation
from chat_ui.history.ballots import Ballot, ballot_below, ballot_of
from chat_ui.history.votes import ROWS, Vote, main, pairs, write_pairs
from tests.chat_ui.history.test_chainlit_store import card
from tests.chat_ui.remembered import a_talk, begun, opened, picture_part, run, same_parts
from vargpt.pictures.preference_rows import PreferenceFolder
from vargpt.types import ImageLayout, ImagePart, ImageTokens, Message

ASKED = (Message.of("user", "draw a fox"),)


def ballot(seed: int, words: str = "A fox.", prompt: tuple[Message, ...] = ASKED) -> Ballot:
    return Ballot(prompt, Message.of("assistant", words, picture_part(seed)))


def seeds(found) -> list[tuple[int, int]]:
    return [(pair.chosen.images[0].seed, pair.rejected.images[0].seed) for pair in found]


def test_what_was_chosen_is_better_than_each_of_its_alternatives() -> None:
    parts = [picture_part(1, 0), picture_part(2, 1), picture_part(3, 2)]
    later = replace(picture_part(4), settings={"opening": 1, "alternative": 0})
    reply = Message.of("assistant", "Foxes.", *parts, "And a cat.", later)
    found = list(pairs([Vote(Ballot(ASKED, reply, 1), "chosen")]))
    assert seeds(found) == [(2, 1), (2, 3)]
    for pair in found:
        assert pair.prompt == ASKED and pair.chosen.text == pair.rejected.text == "Foxes."
        assert len(pair.chosen.parts) == 2 and pair.chosen.images[0].settings["alternative"] == 0


def test_thumbs_pair_pictures_of_the_same_question_whoever_gave_them() -> None:
    other = (Message.of("user", "draw a cat"),)
    votes = [
        Vote(ballot(1), "liked"), Vote(ballot(2), "disliked"), Vote(ballot(3), "disliked"), Vote(ballot(4), "liked"),
        Vote(ballot(5, prompt=other), "disliked"), Vote(ballot(6, prompt=(*ASKED, *other)), "liked"),
    ]  # fmt: skip
    assert sorted(seeds(pairs(votes))) == [(1, 2), (1, 3), (4, 2), (4, 3)]


def test_a_question_is_the_same_only_with_the_same_pictures_before_it() -> None:
    prompts = [(Message.of("user", picture_part(seed), "replace it"),) for seed in (1, 2, 1)]
    votes = [Vote(ballot(7, prompt=prompts[0]), "liked"), Vote(ballot(8, prompt=prompts[1]), "disliked")]
    assert list(pairs(votes)) == []
    assert seeds(pairs([votes[0], Vote(ballot(8, prompt=prompts[2]), "disliked")])) == [(7, 8)]


def test_pictures_that_teach_nothing_make_no_pair() -> None:
    bare = replace(picture_part(1), tokens=None)
    layout = ImageLayout(8, 8, ((1, 1),))
    small = replace(picture_part(2), tokens=ImageTokens(layout, (torch.zeros(1, 1, 1, 8, dtype=torch.bool),)))
    for worse in (bare, small, picture_part(1)):
        reply = Message.of("assistant", "A fox.", worse)
        assert list(pairs([Vote(ballot(1), "liked"), Vote(Ballot(ASKED, reply), "disliked")])) == []


def test_a_ballot_holds_what_the_model_had_seen() -> None:
    talk = a_talk()
    talk.choose("1", 1)
    turn = talk.ask("3", Message.of("user", "now a cat"))
    talk.finish(turn, Message.of("assistant", picture_part(5)))
    found = ballot_of(talk.turns["3"], 0)
    assert [message.text for message in found.prompt] == ["replace the fox", "Done.", "now a cat"]
    old = ballot_of(talk.turns["1"], 1)
    assert [message.text for message in old.prompt] == ["replace the fox"] and old.reply is talk.turns["1"].reply
    assert ballot_of(turn, 1) is None and ballot_of(Conversation().ask("9", ASKED[0]), 0) is None
    cards = [{"turn": "1", "index": 0, "role": "alternative"}, {"turn": "1", "index": 1, "role": "chosen"}]
    assert ballot_below(talk, cards)[1].index == 1
    assert ballot_below(talk, [{"turn": "gone", "index": 0}, {"caption": "?"}]) is None


def test_the_command_writes_rows_that_training_reads(home, capsys) -> None:
    data = home / "vargpt"

    async def voted() -> None:
        data.mkdir()
        store = await opened(data)
        thread, step = await begun(store, "ada")
        talk = a_talk()
        chosen = talk.choose("1", 1)
        await store.conversations.save(thread, talk)
        await store.add_choice(thread, "1", ballot_of(talk.turns["1"], 1))
        await store.add_choice(thread, "1", ballot_of(talk.turns["1"], 1))  # a second thought counts once
        other, answer = await begun(store, "eve")
        await store.conversations.save(other, talk)
        for turn, value, message in (("1", 1, step), ("2", 0, answer)):
            where = thread if value else other
            await store.create_element(card(where, message, turn=turn, index=1 if turn == "1" else 0))
            await store.upsert_feedback(Feedback(forId=message, value=value))
        assert len(await store.rows("SELECT * FROM votes")) == 3 and chosen
        await store.close()

    run(voted())
    main(["export", str(home / "rows")])
    assert "2 pairs of 32 × 32 pixels" in capsys.readouterr().out
    folder, talk = PreferenceFolder.existing(home / "rows"), a_talk()
    assert [(row.chosen.images[0].seed, row.rejected.images[0].seed) for row in folder] == [(2, 1), (2, 3)]
    first = folder[0]
    assert same_parts(first.prompt[0], talk.messages[0]) and first.scores is None
    assert first.chosen.images[0].tokens == picture_part(2).tokens and first.chosen.text == "Done."
    with pytest.raises(SystemExit):
        main(["export", str(home / "rows")])
    assert "holds preferences already" in capsys.readouterr().err


def test_a_history_without_votes_says_how_to_vote(home, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["export", str(home / "rows"), "--data", str(home / "nowhere")])
    assert "has the page been used?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", str(home / "rows"), "--data", str(home)])
    assert "give thumbs up and down" in capsys.readouterr().err


def test_one_export_holds_one_kind_of_picture(tmp_path) -> None:
    layout = ImageLayout(8, 8, ((1, 1),))

    def small(value: bool) -> ImagePart:
        return replace(picture_part(int(value)), tokens=ImageTokens(layout, (torch.full((1, 1, 1, 8), value),)))

    other = Ballot(ASKED, Message.of("assistant", small(True), small(False)))
    found = list(pairs([Vote(other, "chosen"), Vote(ballot(1), "liked"), Vote(ballot(2), "disliked"),
                        Vote(ballot(3), "disliked")]))  # fmt: skip
    told = write_pairs(found, tmp_path / "rows")
    assert told.startswith("2 pairs of 32 × 32") and "1 of other kinds" in told
    assert len((tmp_path / "rows" / ROWS).read_text().splitlines()) == len(PreferenceFolder(tmp_path / "rows")) == 2


@pytest.mark.slow
def test_dpo_learns_from_an_export_as_it_is(tmp_path) -> None:
    import json

    from training.preferences.dpo import DpoSettings, train
    from training.preferences.feedback import StepSettings
    from vargpt.testing import tiny_model, tiny_processor

    prompt = (Message.of("user", picture_part(9), "replace it"),)
    edited = Ballot(prompt, Message.of("assistant", "Done.", picture_part(3), picture_part(4, 1)), 1)
    votes = [Vote(ballot(1), "liked"), Vote(ballot(2), "disliked"), Vote(edited, "chosen")]
    write_pairs(list(pairs(votes)), tmp_path / "rows")
    steps = StepSettings(total_steps=6, learning_rate=3e-3, batch_size=2, warmup_steps=0, schedule="constant",
                         autocast="none", device="cpu")  # fmt: skip
    rows = PreferenceFolder.existing(tmp_path / "rows")
    assert train(tiny_model(), tiny_processor(), rows, DpoSettings(steps=steps, beta=20.0), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    margins = [line["rewards/margins"] for line in lines if "rewards/margins" in line]
    assert margins[0] == pytest.approx(0, abs=1e-4) and margins[-1] > 0.1
