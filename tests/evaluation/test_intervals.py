from __future__ import annotations

import pytest

from vargpt.evaluation.intervals import mean_of_means, mean_score


def test_the_interval_of_a_share_is_the_one_that_statistics_books_give():
    score = mean_score([True, False] * 50)
    assert (score.value, score.n) == (0.5, 100)
    assert score.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)
    assert score.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)


def test_more_cases_give_a_narrower_interval():
    few, many = mean_score([0, 1] * 10), mean_score([0, 1] * 1000)
    assert many.high - many.low < (few.high - few.low) / 5


def test_equal_values_leave_no_doubt():
    score = mean_score([30.5] * 7)
    assert (score.value, score.low, score.high) == (30.5, 30.5, 30.5)


def test_equal_calls_give_equal_intervals():
    values = [0.1 * i for i in range(20)]
    assert mean_score(values) == mean_score(values)


def test_values_that_belong_together_widen_the_interval():
    values = [1] * 5 + [0] * 5
    alone, together = mean_score(values * 10), mean_score(values * 10, [i // 5 for i in range(100)])
    assert alone.value == together.value
    assert together.high - together.low > 1.8 * (alone.high - alone.low)


def test_groups_of_one_change_nothing():
    values = [0, 1, 1, 0, 1]
    assert mean_score(values, range(5)) == mean_score(values)


def test_every_category_weighs_the_same_however_many_cases_it_has():
    score = mean_of_means([[1.0] * 90, [0.0] * 10])
    assert (score.value, score.low, score.high, score.n) == (0.5, 0.5, 0.5, 100)


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="at least one"):
        mean_score([])
    with pytest.raises(ValueError, match="at least one case"):
        mean_of_means([[1.0], []])
    with pytest.raises(ValueError, match="2 values need as many groups, got 1"):
        mean_score([0, 1], ["a"])
