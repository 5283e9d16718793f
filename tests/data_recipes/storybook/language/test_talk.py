"""Talk is honest: what is refused cannot be drawn, what is offered can."""

from __future__ import annotations

import random

from data_recipes.storybook.language.captions import parse_canonical
from data_recipes.storybook.language.dialogues import MAX_PICTURES, current_scene, make_dialogue
from data_recipes.storybook.language.talk import (
    CATEGORY_PLURALS,
    EXAMPLES,
    ScriptedTurn,
    make_talk,
    refusal,
    unknown_thing,
)
from data_recipes.storybook.language.unknown_things import nearest_known
from data_recipes.storybook.splits import word_is_held_out
from data_recipes.storybook.world.scene import Group, Scene
from data_recipes.storybook.world.vocabulary import OBJECTS


def known_words() -> set[str]:
    return {word for kind in OBJECTS.values() for word in (kind.name, kind.plural, *kind.synonyms)}


def test_unknown_things_are_unknown_and_their_nearest_are_known() -> None:
    table = nearest_known()
    assert len(table) >= 120
    assert not set(table) & known_words()
    assert set(table.values()) <= set(OBJECTS)


def test_training_never_names_a_held_out_unknown_thing() -> None:
    rng = random.Random(0)
    assert not any(word_is_held_out("unknown", unknown_thing(rng, "train")) for _ in range(500))
    assert all(word_is_held_out("unknown", unknown_thing(rng, "heldout")) for _ in range(100))
    assert 0.05 < sum(word_is_held_out("unknown", thing) for thing in nearest_known()) / len(nearest_known()) < 0.2


def test_the_examples_of_a_category_belong_to_it() -> None:
    assert set(CATEGORY_PLURALS) == set(EXAMPLES)
    for category, kinds in EXAMPLES.items():
        assert all(OBJECTS[kind].category == category for kind in kinds)


def test_an_accepted_offer_is_drawn_as_offered() -> None:
    rng = random.Random(1)
    accepted = [turns for turns in (refusal(rng) for _ in range(600)) if turns[-1].kind == "accepted"]
    assert len(accepted) > 100
    for offer, answer in accepted:
        assert answer.drawn is not None
        for group in answer.drawn.groups:
            assert OBJECTS[group.kind].name in offer.reply or OBJECTS[group.kind].plural in offer.reply


def test_whatever_is_drawn_was_first_put_into_words() -> None:
    rng = random.Random(2)
    for _ in range(300):
        for turn in [*make_talk(rng), *make_dialogue(rng)]:
            assert turn.text
            assert turn.reply
            if turn.drawn is not None:
                assert parse_canonical(turn.reply) == turn.drawn


def test_dialogues_stay_within_their_length_and_pictures() -> None:
    rng = random.Random(3)
    for _ in range(300):
        turns = make_dialogue(rng)
        pictures = sum((turn.drawn is not None) + (turn.uploaded is not None) for turn in turns)
        assert 2 <= len(turns) <= 9
        assert 1 <= pictures <= MAX_PICTURES + 2
        assert any(turn.drawn or turn.uploaded for turn in turns)


def test_it_means_what_the_last_edit_changed() -> None:
    before = Scene((Group("fox", place="left"), Group("tree", place="right")))
    after = Scene((Group("fox", place="left"), Group("tree", size="small", place="right")))
    turns = [ScriptedTurn("draw", "", "", before), ScriptedTurn("edit resize", "", "", after)]
    assert current_scene(turns) == (after, 1)
    assert current_scene(turns[:1]) == (before, None)
    assert current_scene([]) == (None, None)
