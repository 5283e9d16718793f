"""Mixtures: proportions that hold everywhere, every row once per round, and the same sample on every machine."""

from __future__ import annotations

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_recipes.mixtures import Mixture, Part, rounded_shares, scattered
from vargpt.types import Message


def rows(name: str, size: int) -> list[tuple[Message, ...]]:
    return [(Message.of("user", f"{name} {number}"),) for number in range(size)]


def text(messages) -> str:
    return messages[0].text


MIXTURE = Mixture(
    {"chat": Part.of(rows("chat", 70), 5), "draw": Part.of(rows("draw", 400), 3), "edit": Part.of(rows("edit", 90), 2)},
    block=100,
)


def test_every_block_holds_exactly_its_shares() -> None:
    for block in range(5):
        names = collections.Counter(text(MIXTURE(block * 100 + place)).split()[0] for place in range(100))
        assert names == {"chat": 50, "draw": 30, "edit": 20}


def test_a_part_gives_every_row_once_before_any_comes_again() -> None:
    seen = [text(MIXTURE(i)) for i in range(1000) if text(MIXTURE(i)).startswith("chat")]
    for start in range(0, 420, 70):
        assert len(set(seen[start : start + 70])) == 70
    assert seen[:70] != seen[70:140] and seen[:70] != sorted(seen[:70])


def test_a_sample_depends_on_its_number_alone() -> None:
    again = Mixture(MIXTURE.parts, block=100)
    ids = [990, 3, 512, 0, 3]
    assert [text(again(i)) for i in ids] == [text(MIXTURE(i)) for i in ids]
    other_seed = Mixture(MIXTURE.parts, seed=1, block=100)
    assert [text(other_seed(i)) for i in range(100)] != [text(MIXTURE(i)) for i in range(100)]


def test_iterating_stops_before_any_row_would_repeat() -> None:
    seen = [text(messages) for messages in MIXTURE]
    assert len(seen) == len(MIXTURE) == len(set(seen))
    assert len({text(MIXTURE(i)) for i in range(len(MIXTURE) + 1)}) == len(MIXTURE)  # the next one is a repetition


def test_an_endless_part_is_asked_for_ever_new_numbers_and_has_no_end() -> None:
    mixture = Mixture({"drawn": Part(lambda number: (Message.of("user", f"drawn {number}"),), 1.0)}, block=10)
    assert [text(mixture(i)) for i in range(25)] == [f"drawn {i}" for i in range(25)]
    with pytest.raises(TypeError, match="no length"):
        len(mixture)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "one part or more"),
        ({"a": Part.of([], 1.0)}, "both must be positive"),
        ({"a": Part.of(rows("a", 3), 0.0)}, "both must be positive"),
        ({"a": Part.of(rows("a", 3), 1.0), "b": Part.of(rows("b", 3), 1e-6)}, "b would never come up in 1000 samples"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(parts, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture(parts)


@given(st.dictionaries(st.text(min_size=1), st.floats(0.001, 1000), min_size=1, max_size=8), st.integers(1, 2000))
@settings(max_examples=60, deadline=None)
def test_shares_add_up_and_are_off_by_less_than_one(weights, total) -> None:
    shares = rounded_shares(weights, total)
    assert sum(shares.values()) == total
    whole = sum(weights.values())
    assert all(abs(shares[name] - weight / whole * total) < 1 + 1e-6 for name, weight in weights.items())


@given(st.integers(1, 500), st.text())
@settings(max_examples=60, deadline=None)
def test_scattering_is_a_permutation(size: int, key: str) -> None:
    assert sorted(scattered(position, size, key) for position in range(size)) == list(range(size))
