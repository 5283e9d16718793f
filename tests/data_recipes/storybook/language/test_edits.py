"""An edit changes what it says and nothing else."""

from __future__ import annotations

import random

import pytest

from data_recipes.storybook.language.drawing_prompts import sample_upload
from data_recipes.storybook.language.edits import WEIGHTS, Edit, sample_edit
from data_recipes.storybook.language.impossible import impossible_edit
from data_recipes.storybook.splits import is_held_out
from data_recipes.storybook.world.layout import check
from data_recipes.storybook.world.scene import Group, Scene


def edits(kind: str, n: int = 120) -> list[Edit]:
    rng = random.Random(f"edits {kind}")
    found: list[Edit] = []
    while len(found) < n:
        edit = sample_edit(rng, sample_upload(rng), kind=kind)
        if edit is not None:
            found.append(edit)
    return found


def differences(before: Group, after: Group) -> set[str]:
    names = ("kind", "count", "colour", "size", "place")
    return {name for name in names if getattr(before, name) != getattr(after, name)}


MAY_CHANGE = {
    "more": {"count", "size", "place"},  # several things may have to be small, or in the middle
    "fewer": {"count"},
    "replace": {"kind", "colour"},
    "recolour": {"colour"},
    "resize": {"size"},
    "move": {"place"},
}


@pytest.mark.parametrize("kind", list(WEIGHTS))
def test_the_page_after_can_be_drawn_and_is_no_secret(kind: str) -> None:
    for edit in edits(kind):
        check(edit.after)
        assert edit.after != edit.before
        assert not is_held_out(edit.after)


@pytest.mark.parametrize("kind", list(MAY_CHANGE))
def test_one_group_changes_in_the_named_way_only(kind: str) -> None:
    for edit in edits(kind):
        pairs = list(zip(edit.before.groups, edit.after.groups, strict=True))
        changed = [differences(before, after) for before, after in pairs if before != after]
        assert len(changed) == 1
        assert changed[0] <= MAY_CHANGE[kind]
        assert (edit.after.background, edit.after.style) == (edit.before.background, edit.before.style)


def test_looks_change_without_the_things() -> None:
    for edit in edits("background"):
        assert edit.after.groups == edit.before.groups
        assert edit.after.style == edit.before.style
    for edit in edits("style"):
        assert edit.after.groups == edit.before.groups
        assert edit.after.background == edit.before.background


def test_adding_keeps_the_others_unless_a_lone_one_must_step_aside() -> None:
    for edit in edits("add"):
        old = edit.after.groups[:-1]
        assert len(old) == len(edit.before.groups)
        if len(old) > 1:
            assert old == edit.before.groups
        else:
            assert differences(edit.before.groups[0], old[0]) <= {"place", "size"}


def test_removing_takes_one_group_and_keeps_the_others() -> None:
    for edit in edits("remove"):
        assert len(edit.after.groups) == len(edit.before.groups) - 1
        if len(edit.after.groups) > 1:
            assert set(edit.after.groups) < set(edit.before.groups)


def test_swapping_exchanges_the_places() -> None:
    for edit in edits("swap", 60):
        first, second = edit.before.groups
        assert [group.place for group in edit.after.groups] == [second.place, first.place]


def test_the_new_colour_and_the_new_place_are_named() -> None:
    for edit in edits("recolour"):
        after = next(new for new, old in zip(edit.after.groups, edit.before.groups, strict=True) if new != old)
        assert after.colour is not None
        letters = sorted(edit.instruction.lower())
        assert all(letters.count(letter) for letter in after.colour)


def test_one_more_in_the_middle_of_a_page() -> None:
    page = Scene((Group("fox"),))
    found = [sample_edit(random.Random(i), page, kind="more") for i in range(20)]
    assert all(edit is not None and edit.after == Scene((Group("fox", 2),)) for edit in found)


def test_an_impossible_change_is_declined_for_a_true_reason() -> None:
    rng = random.Random(0)
    for _ in range(500):
        scene = sample_upload(rng)
        text, reply = impossible_edit(rng, scene)
        kinds = [group.kind for group in scene.groups]
        assert text
        if reply.startswith("There is no"):
            assert reply.removeprefix("There is no ").removesuffix(" in the picture.") not in kinds
        else:
            assert reply.startswith("I can't draw") or reply.endswith("as it can be.")
