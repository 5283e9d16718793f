"""Masks and pixels: which cells a mask frees, and that nothing outside it changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vargpt.pictures.region import (
    box_mask,
    check_mask,
    composite,
    depth_of,
    first_free_scale,
    free_cells,
    mask_box,
    on_page,
    opacity,
    white,
)
from vargpt.types import ImageLayout

LAYOUT = ImageLayout(64, 64, ((1, 1), (2, 2), (3, 3), (4, 4), (6, 6), (8, 8)))
WHOLE = (0, 0, 64, 64)
BOXES = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(1, 40)).map(
    lambda box: (box[0], box[1], min(64, box[0] + box[2]), min(64, box[1] + box[3]))
)


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def page_of(box: tuple[int, int, int, int]) -> torch.Tensor:
    return on_page(box_mask((64, 64), box), WHOLE, LAYOUT)


@given(BOXES)
@settings(max_examples=60, deadline=None)
def test_free_cells_are_those_that_share_a_pixel_with_the_mask(box) -> None:
    page = page_of(box)
    first = first_free_scale(page, LAYOUT)
    for k, ((h, w), cells) in enumerate(zip(LAYOUT.scales, free_cells(page, LAYOUT), strict=True)):
        for y in range(h):
            for x in range(w):  # a cell reaches from its first to its last pixel, those that it cuts included
                top, bottom, left, right = y * 64 // h, -(-(y + 1) * 64 // h), x * 64 // w, -(-(x + 1) * 64 // w)
                assert bool(cells[y, x]) == (k >= first and bool(page[top:bottom, left:right].any()))


@pytest.mark.parametrize(
    ("box", "first"),
    [
        (WHOLE, 0),
        ((0, 0, 32, 32), 1),
        ((10, 10, 32, 32), 2),
        ((0, 0, 64, 16), 1),
        ((5, 5, 13, 13), 5),
        ((5, 5, 6, 6), 5),
    ],
)
def test_scales_with_cells_larger_than_the_region_stay_whole(box, first) -> None:
    cells = free_cells(page_of(box), LAYOUT)
    assert first_free_scale(page_of(box), LAYOUT) == first
    assert [bool(scale.any()) for scale in cells] == [k >= first for k in range(6)]


def test_a_mask_of_any_size_reaches_its_place_between_the_bands_of_paper() -> None:
    place = (0, 8, 64, 56)  # a photo of 4 to 3
    for size in ((1024, 768), (64, 48), (16, 12)):
        corner = box_mask(size, (0, 0, size[0] // 4, size[1] // 4))
        page = on_page(corner, place, LAYOUT)
        assert page[8:20, 0:16].all() and int(page.sum()) == 12 * 16
    dot = box_mask((1024, 768), (1000, 700, 1001, 701))
    assert int(on_page(dot, place, LAYOUT).sum()) == 1, "not even one pixel is lost"
    assert mask_box(dot, (1024, 768)) == (1000, 700, 1001, 701)
    assert mask_box(box_mask((16, 12), (4, 3, 8, 6)), (1024, 768)) == (256, 192, 512, 384)


@given(BOXES, st.integers(0, 9), st.sampled_from([(64, 64), (200, 150), (37, 91)]))
@settings(max_examples=40, deadline=None)
def test_outside_the_mask_every_pixel_is_the_photos_own(box, feather, size) -> None:
    photo, drawn, mask = noise(size, 1), noise((64, 48), 2), box_mask((64, 64), box)
    result = composite(photo, drawn, mask, feather)
    region = white(mask.resize(size, Image.Resampling.NEAREST))
    before, after = np.asarray(photo), np.asarray(result)
    assert result.size == size and np.array_equal(before[~region], after[~region])
    if region.any():
        assert not np.array_equal(before[region], after[region]), "however thin, something is drawn"


def test_without_a_feather_the_inside_is_the_drawing_and_with_one_it_fades_in_from_the_edge() -> None:
    photo, drawn, mask = (
        Image.new("RGB", (40, 40), "black"),
        Image.new("RGB", (40, 40), "white"),
        box_mask((40, 40), (10, 0, 40, 40)),
    )
    assert np.array_equal(np.asarray(composite(photo, drawn, mask))[:, 10:], np.asarray(drawn)[:, 10:])
    row = np.asarray(composite(photo, drawn, mask, feather=3))[20, :, 0].tolist()
    assert row[:10] == [0] * 10 and row[10:14] == [64, 128, 191, 255] and set(row[13:]) == {255}


def test_a_region_thinner_than_its_feather_is_still_seen() -> None:
    line = np.zeros((20, 20), dtype=bool)
    line[10] = True
    assert opacity(line, 8).max() == 1.0
    assert np.array_equal(depth_of(np.ones((3, 4), dtype=bool)), np.full((3, 4), 7.0)), "a picture's edge is no seam"
    assert opacity(np.zeros((3, 3), dtype=bool), 2).max() == 0.0


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "LA", "P"])
def test_masks_of_every_mode_are_read_alike(mode) -> None:
    mask = box_mask((8, 8), (2, 2, 5, 5))
    expected = np.zeros((8, 8), dtype=bool)
    expected[2:5, 2:5] = True
    assert np.array_equal(white(mask.convert(mode)), expected)


def test_what_is_transparent_is_not_white() -> None:
    mask = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    mask.paste((255, 255, 255, 255), (0, 0, 2, 2))
    assert int(white(mask).sum()) == 4


def test_masks_of_another_shape_and_empty_ones_are_refused() -> None:
    photo = noise((1024, 768), 0)
    check_mask(box_mask((64, 48), (0, 0, 9, 9)), photo)
    check_mask(box_mask((100, 75), (0, 0, 9, 9)), noise((1023, 767), 0))
    with pytest.raises(ValueError, match="64x64 pixels and the picture has 1024x768"):
        check_mask(box_mask((64, 64), (0, 0, 9, 9)), photo)
    with pytest.raises(ValueError, match="black everywhere"):
        check_mask(Image.new("L", (64, 48), 90), photo)
    with pytest.raises(ValueError, match="outside a picture"):
        box_mask((64, 48), (64, 0, 70, 9))
