"""Which words ask for a picture of its own, held against all the wordings that the storybook knows."""

from __future__ import annotations

import pytest

from chat_ui.conversation.new_picture_words import asks_for_a_new_picture
from data_recipes.storybook.language.drawing_requests import COMMANDS
from data_recipes.storybook.language.edit_phrases import TEMPLATES

WORDS = {
    "a": "a red car", "where": "on the left", "one": "car", "the": "the fox", "bare": "fox", "colour": "blue",
    "to": "to the left", "first": "the fox", "second": "the car", "style": "in pixel art style",
}  # fmt: skip
SCENE = "two small foxes next to a pine tree under the sea"


@pytest.mark.parametrize("kind", TEMPLATES)
def test_no_change_is_taken_for_a_new_picture(kind: str) -> None:
    changes = [template.format(**WORDS) for template in TEMPLATES[kind]]
    assert [words for words in changes if asks_for_a_new_picture(words)] == []


def test_most_wishes_are_and_the_rest_stay_in_the_line() -> None:
    wishes = [template.format(scene=SCENE) for template in COMMANDS.templates]
    assert sum(map(asks_for_a_new_picture, wishes)) >= 0.75 * len(wishes)


@pytest.mark.parametrize(
    "words", ["Draw three red balloons over a house", "Surprise me", "paint something nice", "a picture of a cat"]
)
def test_plain_wishes_are_new(words: str) -> None:
    assert asks_for_a_new_picture(words)


@pytest.mark.parametrize(
    ("words", "is_new"),
    [("a fox at night", True), ("it in sepia", False), ("add a ball", False), ("the fox bigger", True)],
)
def test_the_button_says_draw_and_words_that_point_back_say_otherwise(words: str, is_new: bool) -> None:
    assert asks_for_a_new_picture(words, is_drawing=True) == is_new


@pytest.mark.parametrize("words", ["how many animals are there?", "what can you do?", "", "make it sepia"])
def test_other_words_ask_for_none(words: str) -> None:
    assert not asks_for_a_new_picture(words)
