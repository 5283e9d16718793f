"""The stream is the same everywhere, holds nothing held out, and puts every picture into words first."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable
from itertools import islice

import pytest
from PIL import Image

from data_recipes.storybook import samples, script_messages
from data_recipes.storybook.drawing.render import render
from data_recipes.storybook.judging.cases import DRAW_PROMPTS, ask_cases, draw_cases, edit_cases
from data_recipes.storybook.language.captions import parse_canonical
from data_recipes.storybook.samples import MAKERS, MIXTURE, TOLD, make_sample, text_corpus
from data_recipes.storybook.splits import Phrases, is_held_out
from data_recipes.storybook.world.scene import Scene


def test_equal_ids_give_equal_conversations() -> None:
    for sample_id in range(40):
        first, second = make_sample(sample_id), make_sample(sample_id)
        assert [m.text for m in first.messages] == [m.text for m in second.messages]
        for a, b in zip(first.messages, second.messages, strict=True):
            assert [part.image.tobytes() for part in a.images] == [part.image.tobytes() for part in b.images]


# A change of these changes what every run in progress and every published number was made from.
PINNED = {
    "train": "da96c800bea387ed",
    "heldout": "67ff239bc3a5c217",
    "corpus": "247f24df6a41d191",
    "cases": "1707e4499719f83a",
}


def digest(texts: Iterable[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:16]


def test_the_words_of_the_streams_and_cases_are_those_that_nano_learnt_from() -> None:
    cases = [case.request for category in DRAW_PROMPTS for case in draw_cases(category, 5)]
    cases += [case.question.question for case in ask_cases(20)] + [edit.instruction for edit in edit_cases(20)]
    found = {
        split: digest(f"{m.role}: {m.text}" for i in range(20) for m in make_sample(i, split=split).messages)
        for split in ("train", "heldout")
    }
    assert found | {"corpus": digest(text_corpus(100)), "cases": digest(cases)} == PINNED


def test_the_splits_are_different_streams() -> None:
    train = [make_sample(i).messages[0].text for i in range(20)]
    assert train != [make_sample(i, split="heldout").messages[0].text for i in range(20)]


def test_training_shows_no_held_out_page_and_no_held_out_wording(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Scene] = []
    chosen: list[tuple[Phrases, str]] = []
    choose, blank = Phrases.choose, Image.new("RGB", (64, 64))

    def recorded_choose(self: Phrases, rng: random.Random, split: str = "train") -> str:
        template = choose(self, rng, split)
        chosen.append((self, template))
        return template

    def recorded_render(scene: Scene, resolution: int = 64):
        shown.append(scene)
        return blank

    monkeypatch.setattr(Phrases, "choose", recorded_choose)
    for module in (samples, script_messages):
        monkeypatch.setattr(module, "render", recorded_render)
    for sample_id in range(3000):
        make_sample(sample_id)
    assert len(shown) > 3000
    assert not any(is_held_out(scene) for scene in shown)
    assert len(chosen) > 3000
    assert not any(template in family.held_out for family, template in chosen)


def test_the_mixture_adds_up_and_is_followed() -> None:
    assert sum(MIXTURE.values()) == pytest.approx(1.0)
    kinds = Counter(make_sample(i).kind for i in range(1000))
    for kind, weight in MIXTURE.items():
        assert abs(kinds[kind] / 1000 - weight) < 0.05


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="unknown kinds of samples \\['paint'\\]"):
        make_sample(0, mixture={"paint": 1.0})


@pytest.mark.parametrize("kind", list(MAKERS))
def test_turns_alternate_and_every_drawn_picture_follows_its_caption(kind: str) -> None:
    for sample_id in range(60):
        sample = make_sample(sample_id, mixture={kind: 1.0})
        assert [m.role for m in sample.messages] == ["user", "assistant"] * (len(sample.messages) // 2)
        for message in sample.messages:
            if message.images and message.role == "assistant":
                expected = render(parse_canonical(message.text))
                assert message.images[0].image.tobytes() == expected.tobytes()


def test_no_text_looks_like_a_control_token() -> None:
    for sample_id in range(500):
        assert not any("<|" in message.text for message in make_sample(sample_id).messages)


def test_pictures_have_the_wanted_resolution() -> None:
    sample = make_sample(0, resolution=96, mixture={"draw": 1.0})
    assert sample.messages[1].images[0].image.size == (96, 96)


def test_the_corpus_is_reproducible_and_holds_both_sides() -> None:
    texts = list(text_corpus(200))
    assert texts == list(islice(text_corpus(300), 200))
    assert len(texts) == 200
    assert all("\n" in text or text.endswith(".") for text in texts)


def test_a_page_that_is_told_is_asked_about_without_a_picture() -> None:
    for sample_id in range(40):
        first, *later = make_sample(sample_id, mixture={"told": 1.0}).messages
        assert any(first.text.startswith(opening.removesuffix("{picture}")) for opening in TOLD)
        assert not any(message.images for message in (first, *later))
