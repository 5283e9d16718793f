"""Several streams of conversations become one, by weight: sample `i` is the same on every machine.

The stream is cut into blocks of `block` samples. Every block takes exactly its share of each part (rounded by largest
remainder) in an order of its own, so proportions hold over any stretch, not only on average. A part with a size gives
every row once, in a scattered order, before any row comes again.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vargpt.types import Message

Messages = Sequence["Message"]


@dataclass(frozen=True)
class Part:
    """One stream of a mixture. `size` is the number of its rows; None = endless, any number may be asked."""

    make: Callable[[int], Messages]
    weight: float
    size: int | None = None

    @classmethod
    def of(cls, rows: Sequence[Messages], weight: float) -> Part:
        """A part of rows by number, such as a `Built` folder."""
        return cls(rows.__getitem__, weight, len(rows))


class Mixture:
    """An endless stream, `mixture(i)` for any i >= 0, in which a part that is used up starts again in another order.

    Iterating goes on until exhausted: it stops before the first part would repeat a row (`len` samples), and is refused
    if no part has a size. Weights need not add up to one.
    """

    def __init__(self, parts: Mapping[str, Part], seed: int = 0, block: int = 1000) -> None:
        """Checks the parts and rounds their shares.

        Raises:
            ValueError: no parts, an empty part, or a weight that is not positive or too small for a block.
        """
        if not parts:
            raise ValueError("a mixture has one part or more")
        for name, part in parts.items():
            if part.weight <= 0 or part.size == 0:
                raise ValueError(f"part {name!r} has weight {part.weight} and {part.size} rows; both must be positive")
        self.parts, self.seed, self.block = dict(parts), seed, block
        self.shares = rounded_shares({name: part.weight for name, part in parts.items()}, block)
        if 0 in self.shares.values():
            small = [name for name, share in self.shares.items() if share == 0]
            raise ValueError(
                f"{', '.join(small)} would never come up in {block} samples; give more weight or a larger block"
            )
        self._order = functools.lru_cache(maxsize=16)(self._make_order)

    def __call__(self, sample_id: int) -> Messages:
        name, number = self.where(sample_id)
        return self.parts[name].make(number)

    def where(self, sample_id: int) -> tuple[str, int]:
        """Which part sample `sample_id` comes from, and which of its rows it is."""
        block, place = divmod(sample_id, self.block)
        name, before = self._order(block)[place]
        count = block * self.shares[name] + before
        size = self.parts[name].size
        if size is None:
            return name, count
        epoch, position = divmod(count, size)
        return name, scattered(position, size, f"{self.seed}-{name}-{epoch}")

    def __len__(self) -> int:
        """How many samples come before the first part would repeat a row."""
        sized = {name: part.size for name, part in self.parts.items() if part.size is not None}
        if not sized:
            raise TypeError("a mixture of endless parts has no length")
        return min(self._nth(name, size) for name, size in sized.items())

    def __iter__(self) -> Iterator[Messages]:
        return (self(sample_id) for sample_id in range(len(self)))

    def _nth(self, name: str, count: int) -> int:
        """The id of the sample that would ask the part for its row `count`, counted from 0."""
        block, before = divmod(count, self.shares[name])
        place = self._order(block).index((name, before))
        return block * self.block + place

    def _make_order(self, block: int) -> list[tuple[str, int]]:
        """Part and count of samples of that part before, for each place of a block."""
        names = [name for name, share in self.shares.items() for _ in range(share)]
        random.Random(f"{self.seed}-block-{block}").shuffle(names)
        taken = dict.fromkeys(self.shares, 0)
        order = []
        for name in names:
            order.append((name, taken[name]))
            taken[name] += 1
        return order


def rounded_shares(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers that add up to `total`, in proportion to the weights (largest remainder)."""
    exact = {name: weight / sum(weights.values()) * total for name, weight in weights.items()}
    shares = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: shares[name] - exact[name])
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def scattered(position: int, size: int, key: str) -> int:
    """A permutation of range(size) without a table of it: position -> multiplier * position + offset, modulo size."""
    rng = random.Random(key)
    multiplier = rng.randrange(1, size + 1)
    while math.gcd(multiplier, size) != 1:
        multiplier = rng.randrange(1, size + 1)
    return (multiplier * position + rng.randrange(size)) % size
