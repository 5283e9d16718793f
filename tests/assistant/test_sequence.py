"""Positions and masks of mixed sequences: a small example by hand, and everything against plain Python loops."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vargpt.assistant.sequence import (
    PlaceholderIds,
    Visibility,
    branch_keys,
    continued_mask,
    merged_grids,
    rope_positions,
    slot_runs,
    training_mask,
)

IMAGE, SLOT, START, END, TEXT, PAD = 1, 2, 3, 4, 5, 0
IDS = PlaceholderIds(image=IMAGE, slot=SLOT, start=START)
NUM_SLOTS = 3


@dataclass
class Row:
    """One sequence, and what each token is: (kind, number of the drawn picture or -1, its condition)."""

    ids: list[int] = field(default_factory=list)
    valid: list[bool] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    condition: list[int] = field(default_factory=list)
    grids: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, token: int, count: int = 1, owner: int = -1, condition: int = 0) -> None:
        self.ids += [token] * count
        self.valid += [token != PAD] * count
        self.owner += [owner] * count
        self.condition += [condition] * count


segments = st.one_of(
    st.tuples(st.just("text"), st.integers(1, 3)),
    st.tuples(st.just("picture"), st.tuples(st.integers(1, 2), st.integers(1, 3))),
    st.tuples(st.just("drawn"), st.sampled_from(list(Visibility))),
    st.tuples(st.just("start only"), st.none()),
)


def row_of(parts, left: int) -> Row:
    row, drawn = Row(), 0
    row.add(PAD, left)
    for kind, value in parts:
        if kind == "text":
            row.add(TEXT, value)
        elif kind == "picture":
            row.add(IMAGE, value[0] * value[1])
            row.grids.append((1, *value))
        elif kind == "start only":
            row.add(START)
        else:
            row.add(START)
            row.add(SLOT, NUM_SLOTS, drawn, int(value))
            row.add(END)
            drawn += 1
    return row


def batch_of(rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(row.ids) for row in rows)
    for row in rows:
        row.add(PAD, length - len(row.ids))
    return torch.tensor([row.ids for row in rows]), torch.tensor([row.valid for row in rows])


batches = st.lists(
    st.builds(row_of, st.lists(segments, min_size=1, max_size=6), st.integers(0, 3)), min_size=1, max_size=3
)


def expected_positions(row: Row, first: int) -> tuple[list[list[int]], int]:
    """Token by token: (t, y, x) of every token, and the next free position."""
    positions, counter, run, cell, pictures = [], first, 0, 0, list(row.grids)
    for token, valid in zip(row.ids, row.valid, strict=True):
        run = run + 1 if token == SLOT else 0
        if token == SLOT:
            positions.append([counter + run - 1] * 3)
        elif token == IMAGE:
            t, h, w = pictures[0]
            positions.append([counter + cell // (h * w), counter + cell // w % h, counter + cell % w])
            cell += 1
            if cell == t * h * w:
                counter, cell = counter + max(pictures.pop(0)), 0
        else:
            positions.append([counter] * 3)
            counter += valid
    return positions, counter


@given(batches, st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_positions_equal_those_of_a_walk_from_token_to_token(rows, first) -> None:
    ids, valid = batch_of(rows)
    grids = [grid for row in rows for grid in row.grids]
    starts = torch.arange(len(rows)) * first
    positions, following = rope_positions(ids, valid, IDS, grids, starts)
    for number, row in enumerate(rows):
        expected, after = expected_positions(row, int(starts[number]))
        found = positions[:, number].T.tolist()
        assert [p for p, ok in zip(found, row.valid, strict=True) if ok] == [
            p for p, ok in zip(expected, row.valid, strict=True) if ok
        ]
        assert int(following[number]) == after


def test_positions_of_two_pictures_slots_and_padding_on_both_sides_by_hand() -> None:
    ids = [PAD, TEXT, IMAGE, IMAGE, TEXT, START, SLOT, SLOT, SLOT, END, IMAGE, IMAGE, IMAGE, IMAGE, TEXT, PAD]
    ids_tensor = torch.tensor([ids])
    positions, following = rope_positions(ids_tensor, ids_tensor != PAD, IDS, [(1, 1, 2), (1, 2, 2)])
    #            text  1x2 picture  text <start> slots .. <end>  2x2 picture   text
    t = [0, 1, 1, 3, 4, 5, 6, 7, 5, 6, 6, 6, 6, 8]
    y = [0, 1, 1, 3, 4, 5, 6, 7, 5, 6, 6, 7, 7, 8]
    x = [0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 6, 7, 8]
    assert positions[:, 0, 1:-1].tolist() == [t, y, x]
    assert following.tolist() == [9]


def test_text_after_a_drawn_picture_stands_where_it_would_without_the_slots() -> None:
    with_slots = torch.tensor([[TEXT, START, SLOT, SLOT, END, IMAGE, TEXT]])
    without = torch.tensor([[TEXT, START, END, IMAGE, TEXT]])
    one, next_one = rope_positions(with_slots, with_slots != PAD, IDS, [(1, 1, 1)])
    other, next_other = rope_positions(without, without != PAD, IDS, [(1, 1, 1)])
    assert torch.equal(one[:, :, [0, 1, 4, 5, 6]], other) and torch.equal(next_one, next_other)


def test_pictures_that_do_not_fill_their_placeholders_are_refused() -> None:
    ids = torch.tensor([[TEXT, IMAGE, IMAGE]])
    for grids in ([], [(1, 1, 1)], [(1, 1, 2), (1, 1, 1)]):
        with pytest.raises(ValueError, match="2 picture placeholders stand against"):
            rope_positions(ids, ids != PAD, IDS, grids)


def may_attend(row: Row, query: int, key: int) -> bool:
    """The rule in words of the architecture, for one pair."""
    if query == key:
        return True
    if key > query or not row.valid[key]:
        return False
    if row.owner[key] >= 0:  # a slot
        return row.owner[key] == row.owner[query]
    if row.owner[query] < 0:
        return True
    is_picture = row.ids[key] == IMAGE
    return {
        Visibility.FULL: True,
        Visibility.NULL: False,
        Visibility.IMAGE_ONLY: is_picture,
        Visibility.TEXT_ONLY: not is_picture,
    }[Visibility(row.condition[query])]


@given(batches)
@settings(max_examples=60, deadline=None)
def test_the_training_mask_is_the_rule_applied_to_every_pair(rows) -> None:
    ids, valid = batch_of(rows)
    mask = training_mask(ids, valid, IDS, torch.tensor([row.condition for row in rows]))
    tokens = range(ids.shape[1])
    expected = [[[may_attend(row, query, key) for key in tokens] for query in tokens] for row in rows]
    assert mask[:, 0].tolist() == expected
    for row in rows:
        row.condition = [int(Visibility.FULL)] * len(row.ids)
    expected = [[[may_attend(row, query, key) for key in tokens] for query in tokens] for row in rows]
    assert training_mask(ids, valid, IDS)[:, 0].tolist() == expected


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=3), st.integers(0, 6))
@settings(max_examples=30, deadline=None)
def test_a_continued_mask_is_the_tail_of_the_causal_mask_of_everything(valid, cached) -> None:
    everything = torch.tensor(valid)
    mask = continued_mask(everything[:, :cached], everything[:, cached:])
    for row, columns in enumerate(valid):
        for query in range(cached, 7):
            expected = [key == query or (key < query and columns[key]) for key in range(7)]
            assert mask[row, 0, query - cached].tolist() == expected


@given(batches)
@settings(max_examples=30, deadline=None)
def test_what_a_guidance_branch_sees_at_inference_is_what_its_first_slot_sees_in_training(rows) -> None:
    ids, valid = batch_of(rows)
    ids = torch.cat((ids, torch.tensor([[START, SLOT]]).expand(len(rows), -1)), dim=1)
    valid = torch.cat((valid, torch.ones(len(rows), 2, dtype=torch.bool)), dim=1)
    readable = valid & (ids != SLOT)  # at inference slots never enter the cache
    for condition in Visibility:
        mask = training_mask(ids, valid, IDS, torch.full_like(ids, int(condition)))
        keys = branch_keys(readable[:, :-1], ids[:, :-1] == IMAGE, condition)
        assert torch.equal(mask[:, 0, -1, :-1], keys), condition


def test_slots_are_counted_from_zero_in_every_run() -> None:
    is_slot = torch.tensor([[True, True, False, True, False], [False, True, True, True, False]])
    counted = slot_runs(is_slot)
    assert counted[is_slot].tolist() == [0, 1, 0, 0, 1, 2]


def test_grids_are_counted_in_merged_patches() -> None:
    assert merged_grids(torch.tensor([[1, 4, 6], [2, 2, 2]]), 2) == [(1, 2, 3), (2, 1, 1)]
