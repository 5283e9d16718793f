"""Any sequence of token ids is a well-formed turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vargpt.chat.router import Drop, EmitText, Finish, OpenImage, Router, RouterIds, State

START, END, IM_END, END_OF_TEXT, PAD, HEADER = 90, 91, 92, 93, 94, 95
IDS = RouterIds(START, END, frozenset({IM_END, END_OF_TEXT}), frozenset({PAD, HEADER}))
ANY_IDS = st.lists(st.integers(0, 9) | st.sampled_from([START, END, IM_END, END_OF_TEXT, PAD, HEADER]), max_size=40)


@given(ANY_IDS, st.sampled_from(["auto", "text", "image"]), st.integers(0, 3))
def test_any_id_sequence_gives_a_well_formed_turn(ids: list[int], route: str, max_images: int) -> None:
    router = Router(IDS, route, max_images)
    opened, drawing, finished = 0, False, False
    for token_id in ids:
        action = router.feed(token_id)
        if finished:
            assert action == Drop()
        if isinstance(action, EmitText):
            assert not drawing and action.token_id < START, "control tokens never reach the reader"
        if isinstance(action, OpenImage):
            assert not drawing and route != "text"
            opened, drawing = opened + 1, True
        elif drawing:
            assert action == Drop()
            drawing = token_id != END
        if isinstance(action, Finish):
            finished = True
            assert route != "image" or opened or max_images == 0
    assert opened == router.num_images <= max_images
    assert router.state is (State.DONE if finished else State.IMAGE if drawing else State.TEXT)


@given(ANY_IDS, st.sampled_from(["auto", "text", "image"]))
def test_ids_that_are_not_banned_are_never_dropped_from_text(ids: list[int], route: str) -> None:
    router = Router(IDS, route)
    for token_id in ids:
        sampled = router.state is State.TEXT and token_id not in router.banned
        action = router.feed(token_id)
        assert not (sampled and action == Drop())


def test_the_text_route_drops_the_start_of_a_picture_and_bans_it() -> None:
    router = Router(IDS, "text")
    assert START in router.banned
    assert router.feed(START) == Drop()
    assert router.feed(3) == EmitText(3)


def test_the_image_route_draws_where_the_turn_would_end_without_a_picture() -> None:
    router = Router(IDS, "image")
    assert [router.feed(1), router.feed(IM_END), router.feed(END)] == [EmitText(1), OpenImage(), Drop()]
    assert router.feed(END_OF_TEXT) == Finish()


def test_a_full_text_budget_still_draws_a_demanded_picture() -> None:
    assert Router(IDS, "image").cut() == OpenImage()
    assert Router(IDS, "auto").cut() == Finish()


def test_no_more_than_the_allowed_pictures_are_opened() -> None:
    router = Router(IDS, "auto", max_images=2)
    actions = [router.feed(token_id) for token_id in (START, END, START, END, START)]
    assert actions == [OpenImage(), Drop(), OpenImage(), Drop(), Drop()]
    assert START in router.banned


def test_contradictory_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="different ids"):
        RouterIds(START, START, frozenset({IM_END}), frozenset())
    with pytest.raises(ValueError, match="must be able to sample"):
        RouterIds(START, END, frozenset({IM_END}), frozenset({IM_END}))
