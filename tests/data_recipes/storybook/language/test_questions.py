"""Answers agree with a recount of the page that knows nothing of how they were made."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from data_recipes.storybook.judging.answer_check import answer_is_right
from data_recipes.storybook.language.drawing_prompts import sample_upload
from data_recipes.storybook.language.questions import CATEGORY_NOUNS, MAKERS, Question, ask, count_of, which
from data_recipes.storybook.language.wording import COUNT_WORDS, PLACE_PHRASES, USER_PLACES, visible_colour
from data_recipes.storybook.world.scene import Scene
from data_recipes.storybook.world.vocabulary import OBJECTS


def things(scene: Scene) -> list[str]:
    """One name for every single thing on the page."""
    return [group.kind for group in scene.groups for _ in range(group.count)]


def shown_nouns(scene: Scene) -> dict[str, int]:
    """How many of each noun (kind or category, plural) a person would count."""
    counts: dict[str, int] = {}
    for kind in things(scene):
        names = {OBJECTS[kind].plural, CATEGORY_NOUNS[OBJECTS[kind].category][1]}
        if OBJECTS[kind].category in ("bird", "sea animal"):
            names.add("animals")
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return counts


def questions(kind: str, n: int = 250) -> list[tuple[Scene, Question]]:
    rng = random.Random(kind)
    found = []
    while len(found) < n:
        scene = sample_upload(rng)
        asked = MAKERS[kind](rng, scene, "train")
        if asked is not None:
            found.append((scene, asked))
    return found


@pytest.mark.parametrize("kind", list(MAKERS))
def test_the_own_answer_is_right(kind: str) -> None:
    for _, asked in questions(kind, 60):
        assert answer_is_right(asked, asked.answer)
        assert not answer_is_right(asked, "")


def test_counts_agree_with_a_recount() -> None:
    for scene, asked in questions("count"):
        words = asked.answer.removesuffix(".").split(" ", 3)
        noun = words[3]
        count = COUNT_WORDS.index(words[2])
        singulars = {OBJECTS[k].name: OBJECTS[k].plural for k in OBJECTS} | dict(CATEGORY_NOUNS.values())
        plural = singulars[noun] if count == 1 else noun
        assert shown_nouns(scene).get(plural, 0) == count, (scene, asked)


def test_totals_agree_with_a_recount() -> None:
    for scene, asked in questions("total"):
        assert asked.key == (COUNT_WORDS[len(things(scene))],)


def test_presence_agrees_with_the_page() -> None:
    names = {thing.name: kind for kind, thing in OBJECTS.items()}
    singular = {word: kind for kind, thing in OBJECTS.items() for word in (thing.name, thing.plural)}
    for scene, asked in questions("presence"):
        if asked.key == ("no",):
            assert names[denied(asked.answer)] not in things(scene)
            for kind in things(scene):
                assert OBJECTS[kind].name in asked.answer or OBJECTS[kind].plural in asked.answer
        else:
            number, name = re.fullmatch(r"There (?:is|are) (\w+) (.*), so yes\.", asked.answer).groups()
            kind = singular[name]
            assert count_of(scene, kind) == COUNT_WORDS.index(number) > 0


def test_which_of_several_things_are_there_is_told_of_each() -> None:
    rng, verdicts = random.Random(3), set()
    names = {thing.name: kind for kind, thing in OBJECTS.items()}
    for _ in range(100):
        scene = sample_upload(rng)
        asked = which(rng, scene)
        for line in asked.answer.removesuffix(".").split(". "):
            name, verdict = line.split(": ")
            kind = names.get(name[:1].lower() + name[1:]) or names[name]
            assert verdict == ("yes" if count_of(scene, kind) else "no"), (scene, asked)
            verdicts.add(verdict)
        assert answer_is_right(asked, asked.answer) and not answer_is_right(asked, "Yes.")
    assert verdicts == {"yes", "no"}


def denied(answer: str) -> str:
    """What an answer says is missing."""
    return re.fullmatch(r"There is no (.*), but .*\.", answer)[1]


def test_positions_and_sizes_name_their_group() -> None:
    for kind in ("position", "size", "colour"):
        for scene, asked in questions(kind):
            fitting = [
                g
                for g in scene.groups
                if OBJECTS[g.kind].name in asked.answer or OBJECTS[g.kind].plural in asked.answer
            ]
            values = {"position": "place", "size": "size", "colour": "colour"}
            usual = [OBJECTS[g.kind].colour for g in fitting] if kind == "colour" else []
            assert asked.key[0] in [getattr(g, values[kind]) for g in fitting] + usual


def test_colours_are_not_asked_where_the_style_hides_them() -> None:
    rng = random.Random(0)
    for _ in range(200):
        scene = replace(sample_upload(rng), style="sepia")
        assert MAKERS["colour"](rng, scene, "train") is None


def test_any_page_can_be_asked_about() -> None:
    rng = random.Random(4)
    kinds = {ask(rng, sample_upload(rng)).kind for _ in range(1500)}
    assert kinds >= {
        "presence",
        "count",
        "colour",
        "position",
        "background",
        "comparison",
        "neighbour",
        "bigger",
        "style",
    }


@pytest.mark.parametrize(
    ("kind", "key", "text", "right"),
    [
        ("count", "two", "There are 2 foxes.", True),
        ("count", "two", "I see two.", True),
        ("count", "two", "There are three foxes.", False),
        ("count", "no", "There are none.", True),
        ("count", "one", "There is a fox.", True),
        ("presence", "yes", "Yes.", True),
        ("presence", "yes", "There is a fox.", True),
        ("presence", "yes", "No, there is no fox.", False),
        ("presence", "no", "I don't see one.", True),
        ("position", "center", "In the centre", True),
        ("position", "center", "It is in the middle.", True),
        ("position", "left", "in the middle left", True),
        ("position", "top left", "upper left corner", True),
        ("position", "top left", "on the left", False),
        ("colour", "red", "It is red.", True),
        ("colour", "red", "It is red and blue.", False),
        ("size", "large", "The fox is big.", True),
        ("size", "large", "The fox is small.", False),
        ("night", "day", "It is day.", True),
        ("background", "beach", "It is on a beach.", True),
    ],
)  # fmt: skip
def test_answers_are_judged_by_meaning(kind: str, key: str, text: str, right: bool) -> None:
    assert answer_is_right(Question(kind, "?", "", (key,)), text) is right


def test_every_place_that_people_name_is_understood() -> None:
    for place, ways in USER_PLACES.items():
        for way in ways:
            assert answer_is_right(Question("position", "?", "", (place,)), f"it is {way}")


def test_a_wrong_guess_is_put_right_with_what_the_page_shows() -> None:
    for scene, asked in questions("verify"):
        truth, verdict = asked.answer.removesuffix(".").rsplit(", so ", 1)
        shown = [PLACE_PHRASES[g.place] for g in scene.groups] + [visible_colour(g) for g in scene.groups]
        assert any(value is not None and truth.endswith(value) for value in shown)
        assert verdict == asked.key[0]


def test_a_thing_that_is_asked_after_but_not_there_is_denied() -> None:
    names = {thing.name: kind for kind, thing in OBJECTS.items()}
    for scene, asked in questions("absent"):
        assert names[denied(asked.answer)] not in things(scene)


def test_what_is_bigger_is_the_one_that_the_verdict_names() -> None:
    question = Question("bigger", "?", "", ("owl",))
    assert answer_is_right(question, "The owl is large and the ring is small, so the owl is bigger.")
    assert answer_is_right(question, "The owl is bigger than the ring.")
    assert answer_is_right(question, "The owl.")
    assert not answer_is_right(question, "The owl is small and the ring is large, so the ring is bigger.")
    assert not answer_is_right(question, "The ring is bigger than the owl.")
    assert not answer_is_right(question, "The owl is large and the ring is small.")


def test_a_top_hat_is_not_at_the_top() -> None:
    assert answer_is_right(Question("position", "?", "", ("center",)), "The top hat is in the center.")
    assert answer_is_right(Question("position", "?", "", ("top",)), "The top hats are at the top.")
