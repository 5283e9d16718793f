"""Evaluation cases are reproducible, held out, and can be passed."""

from __future__ import annotations

import pytest

from data_recipes.storybook.judging.answer_check import answer_is_right
from data_recipes.storybook.judging.cases import DRAW_PROMPTS, ask_cases, draw_cases, edit_cases
from data_recipes.storybook.judging.conversation_cases import dialogue_cases, everything, route_cases
from data_recipes.storybook.language.questions import MAKERS
from data_recipes.storybook.splits import held_out_parts
from data_recipes.storybook.world.layout import check


@pytest.mark.parametrize("category", list(DRAW_PROMPTS))
def test_draw_cases_are_reproducible_and_passed_by_their_own_page(category) -> None:
    cases = draw_cases(category, 30, seed=1)
    assert cases == draw_cases(category, 30, seed=1)
    assert cases != draw_cases(category, 30, seed=2)
    for case in cases:
        check(case.scene)
        assert case.prompt.is_met_by(case.scene)


@pytest.mark.parametrize(
    ("category", "part"),
    [("two_objects", "pair"), ("position", "pair"), ("colours", "colour"), ("colour_attribution", "colour"),
     ("background", "background")],
)  # fmt: skip
def test_draw_cases_show_what_training_never_did(category, part: str) -> None:
    assert all(part in held_out_parts(case.scene) for case in draw_cases(category, 30))


def test_an_unknown_category_is_named() -> None:
    with pytest.raises(ValueError, match="unknown category 'colors'"):
        draw_cases("colors", 1)  # type: ignore[arg-type]


def test_ask_cases_cover_every_kind_of_question() -> None:
    cases = ask_cases(2 * len(MAKERS))
    assert cases == ask_cases(2 * len(MAKERS))
    assert {case.question.kind for case in cases} - {"more"} >= set(MAKERS) - {"comparison"}
    assert all(answer_is_right(case.question, case.question.answer) for case in cases)
    assert all(held_out_parts(case.scene) for case in cases)


def test_edit_cases_start_from_held_out_pages() -> None:
    cases = edit_cases(33)
    assert cases == edit_cases(33)
    for case in cases:
        check(case.after)
        assert held_out_parts(case.before)


def test_route_cases_are_balanced_and_end_with_the_user() -> None:
    cases = route_cases(48)
    assert sum(case.route == "image" for case in cases) == 24
    assert len({case.why for case in cases}) == 10
    assert all(case.messages[-1].role == "user" for case in cases)
    assert [case.messages[-1].text for case in cases] == [case.messages[-1].text for case in route_cases(48)]


def test_dialogue_cases_ask_for_pages_that_exist_and_answers_that_are_right() -> None:
    cases = dialogue_cases(60)
    assert cases == dialogue_cases(60)
    turns = [turn for case in cases for turn in case.turns]
    assert all((turn.prompt is not None) == (turn.route == "image") for turn in turns)
    questions = [turn.question for turn in turns if turn.question is not None]
    assert questions
    assert all(answer_is_right(question, question.answer) for question in questions)


def test_everything_is_met_by_its_own_page_only() -> None:
    first, second = (case.scene for case in draw_cases("two_objects", 2))
    assert everything(first).is_met_by(first)
    assert not everything(first).is_met_by(second)
