"""Drawing that is held to a picture: kept bits are kept, everything else is as without, row by row."""

from __future__ import annotations

import pytest
import torch

from tests.generators.test_next_scale import (
    CODEC,
    GREEDY,
    SQUARE,
    guided_context,
    make_generator,
    random_tokens,
    stepping,
)
from vargpt.generators.constraints import FixedCells, SourceBias
from vargpt.generators.next_scale import NextScaleGenerator
from vargpt.sampling import seeded
from vargpt.testing import tiny_text_to_image
from vargpt.types import Branch, ImageContext, ImageSampling, ImageTokens

WARM = ImageSampling(guidance_scale=2.0, temperature=1.0)


@pytest.fixture(scope="module")
def generator() -> NextScaleGenerator:
    return make_generator()


@pytest.fixture(scope="module")
def context() -> ImageContext:
    return stepping(guided_context(SQUARE), SQUARE)


def draw(generator, context, sampling=WARM, seeds=(0, 1), layout=SQUARE, codec=CODEC, **held) -> ImageTokens:
    *_, last = generator.generate(context, layout, sampling, seeded(seeds), codec, **held)
    return last.tokens


def leaning(source: ImageTokens, *amounts: float) -> SourceBias:
    return SourceBias(source, CODEC.latents(source), torch.tensor(amounts))


def cells(share: float, seed: int = 1) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(2, h, w, generator=rng) < share for h, w in SQUARE.scales)


def test_kept_cells_have_the_bits_of_their_tokens_and_others_do_not(generator, context) -> None:
    tokens, kept = random_tokens(seed=5), cells(0.5)
    drawn = draw(generator, context, fixed=FixedCells(tokens, kept))
    free = [grid[~mask] for grid, mask in zip(drawn.grids, kept, strict=True)]
    given = [grid[~mask] for grid, mask in zip(tokens.grids, kept, strict=True)]
    assert all(torch.equal(a[mask], b[mask]) for a, b, mask in zip(drawn.grids, tokens.grids, kept, strict=True))
    assert not torch.equal(torch.cat(free), torch.cat(given))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_picture_whose_first_scales_are_kept_comes_again_with_its_own_seed_and_changes_with_another(
    generator, context, count
) -> None:
    plain = draw(generator, context, seeds=(7, 8))
    whole = tuple(torch.ones(2, h, w, dtype=torch.bool) for h, w in SQUARE.scales[:count])
    again = draw(generator, context, seeds=(7, 8), fixed=FixedCells(plain, whole))
    other = draw(generator, context, seeds=(9, 10), fixed=FixedCells(plain.prefix(count), whole))
    assert again == plain
    assert other.prefix(count) == plain.prefix(count)
    assert (other == plain) == (count == SQUARE.num_scales)


def test_a_row_that_keeps_nothing_does_not_notice_the_rows_that_do(generator, context) -> None:
    plain, tokens = draw(generator, context), random_tokens(seed=5)
    one = tuple(torch.stack((torch.ones(h, w), torch.zeros(h, w))).bool() for h, w in SQUARE.scales)
    drawn = draw(generator, context, fixed=FixedCells(tokens, one))
    assert drawn.select([0]) == tokens.select([0]) and drawn.select([1]) == plain.select([1])


def test_faithfulness_zero_changes_no_bit_in_no_row(generator, context) -> None:
    plain, source = draw(generator, context), random_tokens(seed=6)
    assert draw(generator, context, bias=leaning(source, 0.0, 0.0)) == plain
    mixed = draw(generator, context, bias=leaning(source, 0.0, 0.9))
    assert mixed.select([0]) == plain.select([0]) and mixed.select([1]) != plain.select([1])


def test_faithfulness_one_gives_the_bits_of_the_source_whatever_the_network_says(generator, context) -> None:
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        source, tokens = CODEC.unrounded(pixels, SQUARE), CODEC.encode(pixels, SQUARE)
    assert draw(generator, context, bias=SourceBias(tokens, source, torch.ones(2))) == tokens
    drawn_before = random_tokens(seed=6)  # whose sum alone would be quantised to other bits
    assert draw(generator, context, bias=leaning(drawn_before, 1.0, 1.0)) == drawn_before


def test_a_picture_that_has_left_its_source_is_led_back_to_what_is_left_of_it(generator, context) -> None:
    source, other = random_tokens(seed=6), random_tokens(seed=7)
    first = tuple(torch.ones(2, h, w, dtype=torch.bool) for h, w in SQUARE.scales[:2])
    drawn = draw(generator, context, fixed=FixedCells(other, first), bias=leaning(source, 1.0, 1.0))
    assert torch.equal(drawn.grids[2], CODEC.residual(CODEC.latents(source), SQUARE, other.grids[:2]) > 0)


def test_more_faithfulness_is_nearer_to_the_source(generator, context) -> None:
    source, errors = random_tokens(seed=6), []
    for amount in (0.0, 0.2, 0.5, 1.0):
        drawn = draw(generator, context, GREEDY, bias=leaning(source, amount, amount))
        errors.append(float((CODEC.latents(drawn) - CODEC.latents(source)).abs().mean()))
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.1 and errors[-1] == 0


def test_the_published_form_without_any_source_memory_can_be_held_too() -> None:
    model = tiny_text_to_image()
    layout, codec = model.config.layout((256, 256)), model.image_tokenizer
    pixels = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(2)) * 2 - 1
    memory = Branch(torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(3)))
    context = ImageContext((memory, Branch(None)))
    with torch.no_grad():
        tokens = codec.encode(pixels, layout)
        faithful = SourceBias(tokens, codec.unrounded(pixels, layout), torch.tensor([1.0, 0.0]))
        first = FixedCells(
            tokens, tuple(torch.stack((torch.zeros(h, w), torch.ones(h, w))).bool() for h, w in layout.scales)
        )
        held = draw(model.generator, context, layout=layout, codec=codec, bias=faithful, fixed=first)
    assert held == tokens


def test_what_cannot_be_held_is_refused(generator, context) -> None:
    tokens = random_tokens(seed=5)
    with pytest.raises(ValueError, match="2 scales are kept of tokens with 1"):
        FixedCells(tokens.prefix(1), cells(0.5)[:2])
    with pytest.raises(ValueError, match="do not fit a grid"):
        FixedCells(tokens, cells(0.5)[1:])
    with pytest.raises(ValueError, match="layout and the number of images"):
        draw(generator, context, fixed=FixedCells(tokens.select([0]), tuple(mask[:1] for mask in cells(0.5))))
    with pytest.raises(ValueError, match="between 0 and 1"):
        leaning(tokens, 0.0, 1.5)
