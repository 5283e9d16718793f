"""Filters of a build: size, shape, scores and duplicates.

A filter sees an `Opened` row: its decoded pictures, its words and its scores. Those that must remember what was kept
give every kept row a `key`, which is written into the row: a build that is taken up again reads the keys back.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from data_recipes.public.base import DRAWN, ClosedPicture, SourceRow, decode, placeholders

Scorer = Callable[[Image.Image], float]


@dataclass(frozen=True)
class OpenedPicture:
    """One picture, decoded, and the bytes of its file."""

    name: str
    data: bytes
    image: Image.Image  # upright RGB
    image_format: str

    @classmethod
    def of(cls, picture: ClosedPicture) -> OpenedPicture:
        """The picture, decoded to the last pixel.

        Raises:
            BrokenImage: it cannot be.
        """
        data = picture.load()
        return cls(picture.name, data, *decode(data, picture.name))

    @functools.cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Opened:
    """A row with its pictures decoded."""

    row: SourceRow
    pictures: tuple[OpenedPicture, ...]

    @property
    def drawn(self) -> tuple[OpenedPicture, ...]:
        """The pictures that the assistant draws: the one of a caption, or those at `<image_gen>` in turns."""
        if not self.row.turns:
            return self.pictures
        found = placeholders(self.row.turns)
        return tuple(picture for picture, kind in zip(self.pictures, found, strict=True) if kind == DRAWN)


class Filter(Protocol):
    """A rule that keeps or drops a row."""

    @property
    def name(self) -> str:
        """Its name in the counts of the manifest."""

    def keeps(self, opened: Opened) -> bool: ...


@runtime_checkable
class RememberingFilter(Filter, Protocol):
    """A filter that compares a row with those kept before it."""

    def key(self, opened: Opened) -> str: ...

    def remember(self, key: str) -> None: ...


@dataclass(frozen=True)
class ShortSide:
    """Every picture is at least so many pixels high and wide."""

    minimum: float
    name: str = "short_side"

    def keeps(self, opened: Opened) -> bool:
        return all(min(picture.image.size) >= self.minimum for picture in opened.pictures)


@dataclass(frozen=True)
class Aspect:
    """The long side of every picture is at most so many times the short side: 2 keeps 2:1 and 1:2."""

    maximum: float
    name: str = "aspect"

    def keeps(self, opened: Opened) -> bool:
        return all(max(p.image.size) <= self.maximum * min(p.image.size) for p in opened.pictures)


@dataclass(frozen=True)
class ScoreFilter:
    """A score of the set's own table, or of a function, is high enough (or low enough).

    A row without the score is asked of `scorer`, which judges the pictures that are drawn, or all if none is.
    """

    name: str  # the score's, too
    threshold: float
    at_least: bool = True
    scorer: Scorer | None = None

    def keeps(self, opened: Opened) -> bool:
        """Whether it stays.

        Raises:
            ValueError: the row has no such score and there is no scorer.
        """
        if self.name in opened.row.scores:
            scores = [opened.row.scores[self.name]]
        elif self.scorer is not None:
            scores = [float(self.scorer(picture.image)) for picture in opened.drawn or opened.pictures]
        else:
            raise ValueError(
                f"row {opened.row.id!r} has no {self.name} score; leave the filter out, or give a function that "
                f"scores pictures (--scorer module:name)"
            )
        return all(score >= self.threshold if self.at_least else score <= self.threshold for score in scores)


@dataclass(frozen=True)
class ExactDuplicates:
    """No drawn picture comes twice; where none is drawn, no conversation with the same words and pictures."""

    name: str = "duplicates"
    seen: set[str] = field(default_factory=set)

    def keeps(self, opened: Opened) -> bool:
        return self.key(opened) not in self.seen

    def key(self, opened: Opened) -> str:
        parts = [picture.sha256 for picture in opened.drawn]
        if not parts:
            parts = [picture.sha256 for picture in opened.pictures]
            parts += [turn.content for turn in opened.row.turns] + list(opened.row.captions)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def remember(self, key: str) -> None:
        self.seen.add(key)


@dataclass(frozen=True)
class SimilarPictures:
    """No drawn picture looks like an earlier one: difference hashes that differ in at most `distance` of 64 bits.

    Two such hashes agree in at least one of `distance` + 1 pieces, so only hashes that share a piece are compared.
    Rows that draw nothing always stay.
    """

    distance: int
    name: str = "similar"
    seen: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def keeps(self, opened: Opened) -> bool:
        return not any(self.knows(difference_hash(picture.image)) for picture in opened.drawn)

    def knows(self, value: int) -> bool:
        near = (other for piece in self.pieces(value) for other in self.seen.get(piece, ()))
        return any((value ^ other).bit_count() <= self.distance for other in near)

    def pieces(self, value: int) -> Iterable[tuple[int, int]]:
        count = self.distance + 1
        edges = [64 * index // count for index in range(count + 1)]
        return [
            (index, value >> low & (1 << high - low) - 1) for index, (low, high) in enumerate(itertools.pairwise(edges))
        ]

    def key(self, opened: Opened) -> str:
        return " ".join(f"{difference_hash(picture.image):016x}" for picture in opened.drawn)

    def remember(self, key: str) -> None:
        for value in (int(word, 16) for word in key.split()):
            for piece in self.pieces(value):
                self.seen.setdefault(piece, []).append(value)


def difference_hash(image: Image.Image) -> int:
    """64 bits that hardly change when a picture is scaled or compressed: where brightness increases to the right."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


FILTERS: dict[str, Callable[[float, Scorer | None], Filter]] = {  # name=value of the command line
    "short_side": lambda value, scorer: ShortSide(value),
    "aspect": lambda value, scorer: Aspect(value),
    "aesthetic": lambda value, scorer: ScoreFilter("aesthetic", value, scorer=scorer),
    "watermark": lambda value, scorer: ScoreFilter("watermark", value, at_least=False),
    "score": lambda value, scorer: ScoreFilter("score", value, scorer=scorer),
    "duplicates": lambda value, scorer: ExactDuplicates(),
    "similar": lambda value, scorer: SimilarPictures(int(value)),
}


def parse_filters(specs: Sequence[str], scorer: Scorer | None = None) -> list[Filter]:
    """Filters of "name=number" ("duplicates" alone has no number); what remembers comes last, so that it knows of kept
    rows only.

    Raises:
        ValueError: an unknown name, a value that is no number or not allowed, or a scorer that no filter asks.
    """
    filters = []
    for spec in specs:
        name, _, value = spec.partition("=")
        if name not in FILTERS:
            raise ValueError(f"unknown filter {name!r}; there are {', '.join(FILTERS)}")
        try:
            number = 0.0 if spec == "duplicates" else float(value)
        except ValueError:
            raise ValueError(f"a filter is name=number, such as {name}=1, got {spec!r}") from None
        if name == "similar" and number not in range(16):
            raise ValueError(f"similar=0 to similar=15 is how many of 64 bits may differ, got {value}")
        filters.append(FILTERS[name](number, scorer))
    if scorer is not None and not {one.name for one in filters} & {"aesthetic", "score"}:
        raise ValueError("a scorer needs a filter that asks it: --filter aesthetic=5, or --filter score=0.3")
    return sorted(filters, key=lambda one: isinstance(one, RememberingFilter))
