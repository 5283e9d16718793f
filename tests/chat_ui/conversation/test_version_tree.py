"""The pictures of a conversation as a tree, and going back in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from chat_ui.conversation.version_tree import Tree, Version, tree_of
from vargpt.types import ImagePart

PART = ImagePart(Image.new("RGB", (8, 8)))


def grown(*parents: int | None) -> Tree:
    """A tree of one picture per turn, each made from the numbered one (from 1), or from none."""
    return tree_of(
        Version(f"t{number}", 0, PART, None if parent is None else f"t{parent}/0")
        for number, parent in enumerate(parents, 1)
    )


def places(tree: Tree) -> list[tuple[int, int]]:
    placed = tree.places()
    return [placed[version.id] for version in tree.versions]


def test_a_conversation_without_branches_is_one_row() -> None:
    assert places(grown(None, 1, 2)) == [(0, 0), (1, 0), (2, 0)]


def test_a_branch_gets_a_row_of_its_own_below_all_that_came_before_it_in_the_tree() -> None:
    #   1 - 2 - 3
    #    \   \ 6
    #     4 - 5
    tree = grown(None, 1, 2, 1, 4, 2)
    assert places(tree) == [(0, 0), (1, 0), (2, 0), (1, 2), (2, 2), (2, 1)]


def test_pictures_made_from_none_begin_rows_of_their_own() -> None:
    assert places(grown(None, None, 1)) == [(0, 0), (0, 1), (1, 0)]


def test_the_path_leads_from_the_first_picture_to_the_one_asked_for() -> None:
    tree = grown(None, 1, 2, 1)
    assert [version.turn for version in tree.path("t3/0")] == ["t1", "t2", "t3"]
    assert [version.turn for version in tree.path("t4/0")] == ["t1", "t4"]
    assert tree.path(None) == ()


def test_numbers_and_ids_name_the_same_pictures() -> None:
    tree = grown(None, 1, 2)
    assert [tree.numbered(tree.number(version.id)) for version in tree.versions] == list(tree.versions)
    with pytest.raises(ValueError, match="no version 4: choose one from 1 to 3"):
        tree.numbered(4)
    with pytest.raises(ValueError, match="nothing has been drawn"):
        Tree().numbered(1)
    with pytest.raises(ValueError, match="has ended"):
        tree.find("elsewhere/0")


def test_what_was_made_from_a_forgotten_picture_begins_anew() -> None:
    tree = tree_of([Version("t2", 0, PART, "t1/0"), Version("t3", 0, PART, "t2/0")])
    assert [version.parent for version in tree.versions] == [None, "t2/0"]


@given(st.lists(st.integers(0, 30), max_size=30))
def test_no_two_pictures_share_a_place_and_every_child_is_right_of_its_parent(choices: list[int]) -> None:
    parents = [None if choice == 0 or number == 0 else 1 + choice % number for number, choice in enumerate(choices)]
    tree = grown(*parents)
    placed = tree.places()
    assert len(set(placed.values())) == len(placed) == len(choices)
    for version in tree.versions:
        if version.parent:
            assert placed[version.id][0] == placed[version.parent][0] + 1
            assert placed[version.id][1] >= placed[version.parent][1]
