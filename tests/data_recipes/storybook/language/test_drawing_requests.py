"""Requests say what their page shows, gaps are filled as people expect, and what is said is kept."""

from __future__ import annotations

import random
from itertools import combinations

from data_recipes.storybook.language.drawing_prompts import (
    KINDS,
    DrawingPrompt,
    GroupSpec,
    complete,
    sample_drawing,
    sample_upload,
)
from data_recipes.storybook.language.drawing_requests import (
    BACKGROUND_NOUNS,
    COMMANDS,
    STYLE_NOUNS,
    open_request,
    phrase,
    scene_words,
)
from data_recipes.storybook.language.wording import USER_PLACES, USER_SIZES, rough
from data_recipes.storybook.splits import Phrases, colour_is_held_out, hash_share, is_held_out, pair_is_held_out
from data_recipes.storybook.world.layout import check
from data_recipes.storybook.world.scene import Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES


def test_every_wish_is_met_by_its_page_and_every_page_can_be_drawn() -> None:
    rng = random.Random(0)
    for _ in range(1500):
        prompt, scene = sample_drawing(rng)
        check(scene)
        assert prompt.is_met_by(scene)


def test_a_request_says_everything_that_its_wish_holds() -> None:
    rng = random.Random(3)
    for _ in range(600):
        prompt, _ = sample_drawing(rng)
        words = scene_words(rng, prompt)
        for spec in prompt.specs:
            if spec.place:
                assert any(way in words for way in USER_PLACES[spec.place])
            assert spec.colour is None or spec.colour in words
            assert spec.size is None or any(way in words for way in USER_SIZES[spec.size])
        if prompt.background:
            ways = (*BACKGROUNDS[prompt.background].phrases, BACKGROUND_NOUNS.get(prompt.background, "?"))
            assert any(way in words for way in ways)
        if prompt.style:
            assert any(way in words for way in (*STYLES[prompt.style].phrases, STYLE_NOUNS.get(prompt.style, "?")))


def test_the_message_is_the_same_words_inside_a_template() -> None:
    text = phrase(random.Random(0), DrawingPrompt((GroupSpec("fox", place="left"),), background="night"))
    assert "fox" in text.lower()


def test_a_single_thing_stands_mostly_in_the_middle() -> None:
    rng = random.Random(0)
    prompt = DrawingPrompt((GroupSpec("fox"),))
    pages = [complete(rng, prompt, "heldout") for _ in range(600)]
    usual = sum(page is not None and page.groups == (Group("fox"),) for page in pages)
    plain = sum(page is not None and page.background == "plain" for page in pages)
    assert 0.72 < usual / 600 < 0.9
    assert 0.52 < plain / 600 < 0.68


def test_two_things_stand_left_and_right_in_the_order_they_were_named() -> None:
    page = complete(random.Random(0), DrawingPrompt((GroupSpec("tree"), GroupSpec("fox"))), "heldout", surprise=False)
    assert page == Scene((Group("tree", place="left"), Group("fox", place="right")))


def test_a_relation_is_kept() -> None:
    page = complete(random.Random(0), DrawingPrompt((GroupSpec("tree"), GroupSpec("fox")), relation="below"), "heldout")
    assert page is not None
    assert [group.place for group in page.groups] == ["bottom", "top"]


def test_what_does_not_fit_is_not_completed() -> None:
    assert complete(random.Random(0), DrawingPrompt((GroupSpec("fox", 3, size="large"),)), "heldout") is None


def test_open_requests_get_a_thing_of_the_category() -> None:
    rng = random.Random(2)
    for _ in range(200):
        text, scene = open_request(rng)
        if "animal" in text.lower() and "sea" not in text.lower():
            assert OBJECTS[scene.groups[0].kind].category == "animal"


def test_people_write_carelessly_but_not_always() -> None:
    rng = random.Random(0)
    texts = [rough(rng, "draw Me a picture.") for _ in range(1000)]
    lower = sum(text == text.lower() for text in texts) / 1000
    without_stop = sum(text[-1] not in ".!" for text in texts) / 1000
    assert 0.33 < lower < 0.47
    assert 0.5 < without_stop < 0.7


def test_the_held_out_shares_are_as_promised() -> None:
    pairs = list(combinations(KINDS, 2))
    assert 0.02 < sum(pair_is_held_out(*pair) for pair in pairs) / len(pairs) < 0.04
    coloured = [(colour, kind) for kind in KINDS if OBJECTS[kind].recolourable for colour in COLOURS]
    assert 0.02 < sum(colour_is_held_out(*pair) for pair in coloured) / len(coloured) < 0.07
    assert pair_is_held_out("fox", "cat") == pair_is_held_out("cat", "fox")
    assert 0 <= hash_share("anything") < 1


def test_a_usual_colour_is_never_held_out() -> None:
    assert not any(colour_is_held_out(OBJECTS[kind].colour, kind) for kind in KINDS)


def test_training_pages_hold_nothing_held_out() -> None:
    rng = random.Random(9)
    assert not any(is_held_out(sample_upload(rng)) for _ in range(500))


def test_training_never_chooses_a_held_out_template() -> None:
    rng = random.Random(0)
    assert 0.08 < len(COMMANDS.held_out) / len(COMMANDS.templates) < 0.16
    assert not {COMMANDS.choose(rng) for _ in range(2000)} & set(COMMANDS.held_out)
    chosen = [COMMANDS.choose(rng, "heldout") for _ in range(1000)]
    assert 0.4 < sum(template in COMMANDS.held_out for template in chosen) / 1000 < 0.6


def test_a_small_family_keeps_its_last_template_out() -> None:
    assert Phrases("x", ("a", "b", "c", "d")).held_out == ("d",)
    assert Phrases("x", ("a", "b", "c")).held_out == ()
