"""Levels, positions and the block-causal mask that a layout implies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from vargpt.generators.schedules import block_causal_mask, grid_positions, level_ids, positions_2d
from vargpt.types import ImageLayout

WIDE = ImageLayout(16, 32, ((1, 1), (1, 2), (2, 4)))
sides = st.integers(1, 64)
schedules = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4).map(tuple)


@given(schedules)
@settings(max_examples=25, deadline=None)
def test_a_token_sees_its_own_scale_and_every_coarser_one_and_nothing_else(scales) -> None:
    layout = ImageLayout(8, 8, scales)
    levels = [k for k, (h, w) in enumerate(layout.scales) for _ in range(h * w)]
    assert level_ids(layout).tolist() == levels
    expected = [[key <= query for key in levels] for query in levels]
    assert block_causal_mask(layout).tolist() == expected


@given(sides, sides, schedules, st.integers(1, 64))
@settings(max_examples=25, deadline=None)
def test_every_scale_is_spread_evenly_over_one_page_whose_longer_side_is_the_grid(height, width, scales, grid) -> None:
    layout = ImageLayout(height, width, scales)
    positions = positions_2d(layout, grid)
    assert tuple(positions.shape) == (layout.num_tokens, 2)
    longest = max(layout.height, layout.width)
    page = torch.tensor([grid * layout.height / longest, grid * layout.width / longest])
    for part in positions.split([h * w for h, w in layout.scales]):
        assert_close(part.mean(0), page / 2, atol=1e-4, rtol=1e-4)
        assert (part > 0).all() and (part < page).all()


def test_positions_worked_out_by_hand() -> None:
    expected = [[16, 32], [16, 16], [16, 48], *([y, x] for y in (8, 24) for x in (8, 24, 40, 56))]
    assert positions_2d(WIDE, 64).tolist() == expected
    assert grid_positions(2, 4, 64).tolist() == expected[3:]


def test_a_fine_token_stands_around_the_coarse_one_that_covers_it() -> None:
    layout = ImageLayout(32, 32, ((2, 2), (4, 4)))
    coarse, fine = positions_2d(layout, 64).split([4, 16])
    under_first = fine.reshape(4, 4, 2)[:2, :2].reshape(-1, 2)
    assert_close(under_first.mean(0), coarse[0])


def test_source_cells_stand_where_the_cells_drawn_over_them_do() -> None:
    layout = ImageLayout(64, 64, ((1, 1), (8, 8)))
    assert torch.equal(grid_positions(8, 8, 64), positions_2d(layout, 64)[1:])


@pytest.mark.parametrize("grid", [32, 64])
def test_a_finer_schedule_keeps_the_places_of_its_prefix(grid) -> None:
    small = ImageLayout(64, 64, ((1, 1), (2, 2), (4, 4)))
    large = ImageLayout(128, 128, (*small.scales, (8, 8)))
    assert torch.equal(positions_2d(large, grid)[: small.num_tokens], positions_2d(small, grid))
