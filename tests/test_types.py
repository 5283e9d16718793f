"""Image tokens and messages: what goes in comes out, and what does not belong together is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vargpt.types import ImageLayout, ImagePart, ImageTokens, Message, TextPart, as_part

scales = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=5).map(tuple)


def random_tokens(layout: ImageLayout, num_images: int = 2, num_bits: int = 3) -> ImageTokens:
    return ImageTokens(layout, tuple(torch.rand(num_images, h, w, num_bits) < 0.5 for h, w in layout.scales))


@given(scales, st.integers(0, 3), st.data())
@settings(max_examples=40, deadline=None)
def test_flat_and_from_flat_are_inverses_for_every_prefix(schedule, num_images, data) -> None:
    layout = ImageLayout(8, 8, schedule)
    tokens = random_tokens(layout, num_images).prefix(data.draw(st.integers(1, len(schedule))))
    again = ImageTokens.from_flat(layout, tokens.flat())
    assert len(again.grids) == len(tokens.grids)
    assert all(torch.equal(a, b) for a, b in zip(again.grids, tokens.grids, strict=True))
    assert again.is_complete == (len(tokens.grids) == len(schedule))


def test_flat_is_coarse_to_fine_and_row_major() -> None:
    layout = ImageLayout(8, 12, ((1, 1), (2, 3)))
    indices = ImageTokens(layout, (torch.tensor([[[7]]]), torch.arange(6).reshape(1, 2, 3)))
    assert indices.flat().tolist() == [[7, 0, 1, 2, 3, 4, 5]]
    assert layout.offsets == (0, 1, 7) and layout.num_tokens == 7 and layout.final_scale == (2, 3)


def test_tokens_that_end_inside_a_scale_are_refused() -> None:
    layout = ImageLayout(8, 8, ((1, 1), (2, 2)))
    for length in (0, 2, 4, 6):
        with pytest.raises(ValueError, match="end inside a scale"):
            ImageTokens.from_flat(layout, torch.zeros(1, length, dtype=torch.long))


def test_grids_that_do_not_belong_to_the_schedule_are_refused() -> None:
    layout = ImageLayout(8, 8, ((1, 1), (2, 2)))
    with pytest.raises(ValueError, match="does not belong to scale"):
        ImageTokens(layout, (torch.zeros(1, 2, 2),))
    with pytest.raises(ValueError, match="do not fit a schedule"):
        ImageTokens(layout, (torch.zeros(1, 1, 1), torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)))


@pytest.mark.parametrize(("height", "width", "schedule"), [(0, 8, ((1, 1),)), (8, 8, ()), (8, 8, ((1, 0),))])
def test_a_layout_without_pixels_or_cells_is_refused(height, width, schedule) -> None:
    with pytest.raises(ValueError):
        ImageLayout(height, width, schedule)


def test_selecting_images_takes_every_grid_and_what_is_known() -> None:
    layout = ImageLayout(8, 8, ((1, 1), (2, 2)))
    tokens = random_tokens(layout, 3)
    masked = ImageTokens(layout, tokens.grids, known=torch.rand(3, 2, 2) < 0.5)
    for index in ([2, 0], slice(1, 3), torch.tensor([True, False, True])):
        picked = masked.select(index)
        assert torch.equal(picked.flat(), tokens.flat()[index])
        assert torch.equal(picked.known, masked.known[index])
    assert tokens.is_complete and not masked.is_complete and not tokens.prefix(1).is_complete
    assert tokens.to("cpu").num_images == 3 and masked.to("cpu").known is not None


def test_equal_tokens_are_equal_and_messages_with_drawn_pictures_can_be_compared() -> None:
    layout, picture = ImageLayout(8, 8, ((1, 1), (2, 2))), Image.new("RGB", (8, 8))
    tokens = random_tokens(layout)
    same = ImageTokens(layout, tuple(grid.clone() for grid in tokens.grids))
    other = ImageTokens(layout, (*tokens.grids[:1], ~tokens.grids[1]))
    assert tokens == same and tokens != other and tokens != tokens.prefix(1) and tokens != "tokens"
    assert Message.of("assistant", ImagePart(picture, tokens)) == Message.of("assistant", ImagePart(picture, same))
    assert Message.of("assistant", ImagePart(picture, tokens)) != Message.of("assistant", ImagePart(picture, other))


def test_a_message_keeps_the_order_of_its_parts() -> None:
    picture = Image.new("RGB", (4, 4))
    message = Message.of("user", "a ", picture, TextPart("b"))
    assert [type(part) for part in message.parts] == [TextPart, ImagePart, TextPart]
    assert message.text == "a b" and message.images == (ImagePart(picture),)
    assert as_part(message.parts[1]) is message.parts[1]
