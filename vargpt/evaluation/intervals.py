"""Means with the range that another draw of as many cases would likely have given: percentile bootstrap intervals.

A bootstrap of marks that are all equal has no width; read such an interval together with `n` (with all of 30 right, the
true share may still be 0.9).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0


@dataclass(frozen=True)
class Score:
    """A mean over `n` cases and its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def mean_score(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> Score:
    """The mean of `values` (bools count as 0 and 1).

    Args:
        values: one per case.
        groups: which of the values belong together (the turns of one dialogue) and are resampled as one; default: none.

    Raises:
        ValueError: no values, or as many groups as values are missing.
    """
    if not values:
        raise ValueError("the mean of no cases is unknown; measure at least one")
    if groups is not None and len(groups) != len(values):
        raise ValueError(f"{len(values)} values need as many groups, got {len(groups)}")
    sums, counts = _grouped(np.asarray(values, dtype=np.float64), groups)
    index = np.random.default_rng(SEED).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[index].sum(axis=1) / counts[index].sum(axis=1)
    return _score(float(sums.sum() / counts.sum()), means, len(values))


def mean_of_means(categories: Sequence[Sequence[float]]) -> Score:
    """The mean over categories of their means, each category resampled by itself; every category weighs the same.

    Raises:
        ValueError: no categories, or an empty one.
    """
    if not categories or not all(categories):
        raise ValueError(f"each category needs at least one case, got {[len(values) for values in categories]}")
    rng = np.random.default_rng(SEED)
    means = np.zeros(RESAMPLES)
    for values in categories:
        array = np.asarray(values, dtype=np.float64)
        means += array[rng.integers(0, len(array), (RESAMPLES, len(array)))].mean(axis=1) / len(categories)
    value = float(np.mean([np.mean(np.asarray(values, dtype=np.float64)) for values in categories]))
    return _score(value, means, sum(map(len, categories)))


def _grouped(values: np.ndarray, groups: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count per group."""
    if groups is None:
        return values, np.ones(len(values))
    numbers: dict[Hashable, int] = {}
    members = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    return np.bincount(members, weights=values), np.bincount(members).astype(np.float64)


def _score(value: float, means: np.ndarray, n: int) -> Score:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means, (tail, 100 - tail))
    return Score(value, float(low), float(high), n)
