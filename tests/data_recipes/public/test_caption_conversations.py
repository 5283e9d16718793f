"""How captions become conversations, and where new captions come from."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from data_recipes.public.base import misplaced
from data_recipes.public.caption_conversations import (
    REQUESTS,
    TransformersCaptioner,
    as_phrase,
    as_sentence,
    drawing_turns,
    named,
    pick,
    request_turn,
)

SHORT, LONG = "A fox.", "A red fox sits under a pine tree and looks at the moon."


def test_long_and_short_captions_come_in_the_share_that_was_asked_for() -> None:
    for share in (0.0, 0.3, 1.0):
        longs = sum(pick((SHORT, LONG), str(row), share) == LONG for row in range(4000))
        assert abs(longs / 4000 - share) < 0.03


def test_the_choice_depends_on_the_row_and_the_seed_alone() -> None:
    rows = [str(row) for row in range(200)]
    first = [pick((SHORT, LONG), row) for row in rows]
    assert [pick((LONG, SHORT), row) for row in reversed(rows)] == first[::-1]
    assert [pick((SHORT, LONG), row, seed=1) for row in rows] != first


def test_the_assistant_says_in_few_words_what_it_draws_and_then_draws_it() -> None:
    for row in range(50):
        turns = drawing_turns((LONG, SHORT), str(row))
        assert misplaced(turns, 1) is None
        assert turns[1].content == "A fox.<image_gen>"


def test_every_wording_is_used_and_holds_the_caption() -> None:
    said = {request_turn(("A fox on a hill.",), str(row)).content for row in range(300)}
    expected = {"A fox on a hill."} | {w.format(caption="a fox on a hill") for w in REQUESTS if w != "{caption}"}
    assert said == expected


def test_a_caption_of_many_sentences_stands_alone() -> None:
    caption = "A fox sits there. " * 20
    assert {request_turn((caption,), str(row)).content for row in range(50)} == {caption}


@pytest.mark.parametrize(
    ("caption", "phrase", "sentence"),
    [
        ("A bowl of soup.", "a bowl of soup", "A bowl of soup."),
        ("Paris at night", "Paris at night", "Paris at night."),
        ("sunflowers in the field", "sunflowers in the field", "Sunflowers in the field."),
        ("What a day!", "What a day!", "What a day!"),
        ("A", "A", "A."),
    ],
)
def test_captions_fit_into_sentences_and_stand_as_ones(caption: str, phrase: str, sentence: str) -> None:
    assert (as_phrase(caption), as_sentence(caption)) == (phrase, sentence)


def test_a_model_of_transformers_is_asked_greedily_with_the_picture_and_the_prompt(monkeypatch) -> None:
    from transformers import pipelines

    calls: list[Any] = []

    def pipeline(task: str, **settings: Any):
        calls.append((task, settings))

        def describe(**request: Any) -> list[dict[str, str]]:
            calls.append(request)
            return [{"generated_text": " A fox. "}]

        return describe

    monkeypatch.setattr(pipelines, "pipeline", pipeline)
    image = Image.new("RGB", (8, 8))
    assert TransformersCaptioner("owner/model", prompt="What is it?", max_new_tokens=9)(image) == "A fox."
    assert calls[0] == ("image-text-to-text", {"model": "owner/model", "device": "cpu"})
    (message,) = calls[1]["text"]
    assert message["role"] == "user"
    assert message["content"] == [{"type": "image", "image": image}, {"type": "text", "text": "What is it?"}]
    assert calls[1]["return_full_text"] is False
    assert calls[1]["generate_kwargs"] == {"max_new_tokens": 9, "do_sample": False}


@pytest.mark.parametrize("spec", ["", "os", ":x", "no_such_module:x", "os:no_such_function", "os:sep"])
def test_a_function_of_your_own_that_cannot_be_found_says_so(spec: str) -> None:
    with pytest.raises(ValueError, match="module:name|cannot be imported|is no function"):
        named(spec)


def test_a_function_of_your_own_is_found() -> None:
    assert named("data_recipes.public.filters:difference_hash")(Image.new("RGB", (9, 9))) == 0
