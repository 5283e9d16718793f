"""Guidance, temperature, top-k, top-p and one random stream per row, as identities and properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from vargpt.sampling import (
    at_scale,
    check_image_sampling,
    check_text_sampling,
    filter_logits,
    guide,
    sample,
    seeded,
)
from vargpt.types import ImageSampling, TextSampling

FULL, IMAGE_ONLY, NULL = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))


def test_guidance_of_one_is_the_full_branch() -> None:
    assert_close(guide(torch.stack([FULL, NULL]), 1.0), FULL)
    assert_close(guide(torch.stack([FULL, IMAGE_ONLY, NULL]), 1.0, 1.0), FULL)
    assert torch.equal(guide(FULL[None], 7.0), FULL), "a single branch cannot be guided"


def test_guidance_of_zero_is_the_branch_guided_away_from() -> None:
    assert torch.equal(guide(torch.stack([FULL, NULL]), 0.0), NULL)
    assert torch.equal(guide(torch.stack([FULL, IMAGE_ONLY, NULL]), 0.0, 0.0), NULL)
    assert_close(guide(torch.stack([FULL, IMAGE_ONLY, NULL]), 0.0, 1.0), IMAGE_ONLY)


@given(st.floats(0, 8), st.floats(0, 8))
@settings(max_examples=25, deadline=None)
def test_three_branches_reduce_to_two(scale, image_scale) -> None:
    alike = guide(torch.stack([FULL, IMAGE_ONLY, NULL]), scale, scale)
    assert_close(alike, guide(torch.stack([FULL, NULL]), scale), atol=1e-4, rtol=1e-4)
    without_source = guide(torch.stack([FULL, NULL, NULL]), scale, image_scale)
    assert_close(without_source, guide(torch.stack([FULL, NULL]), scale), atol=1e-4, rtol=1e-4)


logits_rows = st.lists(st.integers(-40, 40), min_size=2, max_size=9, unique=True).map(
    lambda values: torch.tensor([values]).float() / 8
)


@given(logits_rows, st.integers(0, 10))
@settings(max_examples=50, deadline=None)
def test_top_k_keeps_exactly_the_k_most_likely(logits, top_k) -> None:
    kept = filter_logits(logits, top_k=top_k)
    expected = logits.shape[-1] if top_k == 0 else min(top_k, logits.shape[-1])
    finite = kept.isfinite()
    assert int(finite.sum()) == expected
    assert torch.equal(kept[finite], logits[finite]), "what stays is unchanged"
    if expected < logits.shape[-1]:
        assert logits[finite].min() > logits[~finite].max()


@given(logits_rows, st.floats(0.01, 0.999))
@settings(max_examples=50, deadline=None)
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, top_p) -> None:
    kept = filter_logits(logits, top_p=top_p).isfinite()
    probabilities = logits.softmax(-1)
    mass, least = float(probabilities[kept].sum()), float(probabilities[kept].min())
    assert kept[0, logits.argmax()], "the most likely choice always stays"
    assert mass >= top_p - 1e-5 and mass - least < top_p + 1e-5
    if not kept.all():
        assert probabilities[kept].min() > probabilities[~kept].max()


def test_top_k_and_top_p_work_along_the_last_axis_of_any_shape() -> None:
    logits = torch.randn(2, 3, 4, 6)
    together = filter_logits(logits, top_k=3, top_p=0.7)
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)):
        assert torch.equal(together[tuple(index)], filter_logits(logits[tuple(index)], 3, 0.7))


def test_greedy_takes_the_largest_logit_and_needs_no_generator() -> None:
    assert torch.equal(sample(FULL, 0.0, None), FULL.argmax(-1))
    assert torch.equal(sample(FULL, 1.0, seeded(range(4)), top_k=1), FULL.argmax(-1))


def test_a_row_draws_the_same_whoever_its_batch_mates_are() -> None:
    logits = torch.randn(3, 7, 5)
    together = sample(logits, 0.8, seeded([4, 5, 6]), top_k=4, top_p=0.9)
    for row in range(3):
        alone = sample(logits[row : row + 1], 0.8, seeded([4 + row]), top_k=4, top_p=0.9)
        assert torch.equal(together[row : row + 1], alone)
    assert torch.equal(sample(logits, 0.8, seeded([4, 5, 6])), sample(logits, 0.8, seeded([4, 5, 6])))


def test_what_is_drawn_has_the_probabilities_of_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    drawn = sample(logits.expand(1, 40_000, 4), 2.0, seeded([3]))
    frequencies = torch.bincount(drawn[0], minlength=4) / 40_000
    assert_close(frequencies, (logits / 2.0).softmax(-1), atol=0.01, rtol=0)


def test_an_excluded_choice_is_never_drawn_wherever_it_stands() -> None:
    logits = torch.tensor([9.0, 1.0, 9.0, 1.0, 9.0, 1.0])
    drawn = sample(logits.flip(0).expand(1, 20_000, 6), 1.0, seeded([0]), top_k=3)
    assert set(drawn.unique().tolist()) == {1, 3, 5}


def test_every_row_needs_a_generator() -> None:
    for rngs in (None, [], seeded([1])):
        with pytest.raises(ValueError, match="needs as many generators"):
            sample(torch.zeros(2, 3), 1.0, rngs)


def test_any_whole_number_is_a_seed() -> None:
    seeds = [0, -1, 2**70 + 5, 5]
    first, again = (sample(torch.zeros(4, 50, 9), 1.0, seeded(seeds)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])


def test_a_setting_per_scale_repeats_its_last_entry() -> None:
    assert [at_scale((3.0, 2.0), k) for k in range(4)] == [3.0, 2.0, 2.0, 2.0]
    assert at_scale(1.5, 9) == 1.5


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_scale": -1.0},
        {"guidance_scale": ()},
        {"temperature": (0.5, math.nan)},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": (0.5, 1.1)},
        {"top_k": -1},
        {"image_guidance_scale": -0.5},
    ],
)
def test_image_settings_that_no_scale_can_use_are_refused_by_name(changes) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        check_image_sampling(ImageSampling(**changes))


def test_the_defaults_are_allowed() -> None:
    check_image_sampling(ImageSampling())
    check_image_sampling(ImageSampling(image_guidance_scale=(1.0, 2.0), top_p=(1.0, 0.5), top_k=(0, 2)))
    check_text_sampling(TextSampling())


@pytest.mark.parametrize(
    "changes", [{"temperature": -0.1}, {"temperature": math.nan}, {"top_p": 0.0}, {"top_k": -1}, {"max_new_tokens": 0}]
)
def test_text_settings_out_of_range_are_refused_by_name(changes) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        check_text_sampling(TextSampling(**changes))
