"""Recognises things, counts, colours, places, background and style of a picture by templates, without a model.

Analysis by synthesis. Background and style are those of the empty picture that explains most of it; then things are
found one by one, the one that explains most of what is left first, each painted and styled as `render` would and
compared with the picture. A thing counts only if every part of its drawing is there. Where several looks are close (a
plain picture says little about its style), the one whose things leave the least unexplained wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_recipes.storybook.drawing.backgrounds import background
from data_recipes.storybook.drawing.render import sprite_of
from data_recipes.storybook.drawing.styles import apply_style
from data_recipes.storybook.judging.reading import Reading, Thing
from data_recipes.storybook.judging.templates import Bank, empty_picture, empty_pictures, halved, looks
from data_recipes.storybook.world.layout import PICTURE_SIDE, SIDE
from data_recipes.storybook.world.scene import SIZES, Group

MAX_THINGS = 9
MAX_REJECTED = 4
NUM_CANDIDATES = 4  # looks per size that are compared exactly before one is taken
MIN_GAIN = 10_000.0  # summed squared levels at half size; less cannot be told from noise
MIN_EXPLAINED = 0.6  # share of a thing's pixels' energy against the empty picture
MIN_PART_EXPLAINED = 0.4  # the same for each quarter of it that carries energy
MIN_CORRELATION = 0.7
# At the end, with all neighbours in place, a thing and its surroundings must be explained this well ...
FINAL_EXPLAINED = 0.7
FINAL_CORRELATION = 0.88
# ... or, where little stands out from the background, agree in form and leave little.
FAINT_CORRELATION = 0.96
FAINT_LEFT = 11.0  # root mean square, levels
_CLIP = 40.0  # levels beyond which a pixel simply does not belong to the empty picture
_SHARED = 4  # px that two neighbouring slots may share
_CERTAIN = 0.93  # explained share from which no neighbouring position or colour is tried
_MAX_CAST = 0.06  # a reconstruction may be this much brighter or darker in a channel
_NUM_LIKELY = 8
_MAX_GUESSES = 3
_PERFECT = 1.0  # levels left unexplained by a reading that needs no second opinion
_CLOSE = 3.5  # levels
_MIN_ANY_SHARE = 0.08  # below this it is no picture of the storybook at all
_MIN_EMPTY_SHARE = 0.2  # a picture of which less agrees with any empty picture has no known look


@dataclass(frozen=True)
class _Candidate:
    """A look at a position (middle of its slot, px at 64)."""

    look: int
    size: str
    x: int
    y: int

    @property
    def group(self) -> Group:
        kind, colour = looks()[self.look]
        return Group(kind, colour=colour, size=self.size)


@dataclass(frozen=True)
class _Fit:
    """How well a candidate explains the picture: `merit` ranks, the parts decide whether it counts."""

    candidate: _Candidate
    gain: float
    explained: float
    weakest_part: float
    correlation: float
    picture: np.ndarray  # unstyled picture with the thing, float32

    @property
    def merit(self) -> float:
        """The gain, unless it is bought by covering two things with one that fits neither."""
        return self.gain * max(self.explained, 0.0) ** 6

    @property
    def counts(self) -> bool:
        return (
            self.explained >= MIN_EXPLAINED
            and self.weakest_part >= MIN_PART_EXPLAINED
            and self.correlation >= MIN_CORRELATION
        )


class Judge:
    """Reads pictures. Template banks are built on first use, about a second per style."""

    def __init__(self, resolution: int = 64) -> None:
        """Pictures of `resolution` px are expected; others are refused by `detect`. Reading happens at 64 px."""
        if resolution < PICTURE_SIDE or resolution % PICTURE_SIDE:
            raise ValueError(f"the judge reads pictures of a multiple of {PICTURE_SIDE} px, got {resolution}")
        self.resolution = resolution
        self._banks: dict[str, Bank] = {}

    @classmethod
    def of_side(cls, side: int) -> Judge:
        """The judge of pictures with this side in px: at their size if it is a multiple of 64, else at 64."""
        return cls(side if side % PICTURE_SIDE == 0 else PICTURE_SIDE)

    def detect(self, images: Sequence[Image.Image]) -> list[Reading]:
        """One reading per picture.

        Raises:
            ValueError: a picture has another size than the judge was made for.
        """
        return [self._read(self._pixels(image)) for image in images]

    def _pixels(self, image: Image.Image) -> np.ndarray:
        if image.size != (self.resolution, self.resolution):
            raise ValueError(
                f"the judge reads {self.resolution} x {self.resolution} px, got {image.size}; resize first"
            )
        small = image.convert("RGB").resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float32)

    def _read(self, picture: np.ndarray) -> Reading:
        searches: list[_Search] = []
        guesses = _guess_looks(halved(picture))
        if guesses[0].share < _MIN_ANY_SHARE:
            return Reading((), None, None)
        with torch.inference_mode():
            for guess in guesses:
                searches.append(self._search(picture, guess))
                if searches[-1].unexplained < _PERFECT:
                    break
        best = min(searches, key=lambda search: search.unexplained + search.guess.cast_penalty)
        if best.guess.share < _MIN_EMPTY_SHARE:
            return Reading(tuple(best.things), None, None)
        return Reading(tuple(best.things), best.guess.background, best.guess.style)

    def _search(self, picture: np.ndarray, guess: _Guess) -> _Search:
        """A finished search under the assumption of one look."""
        if guess.style not in self._banks:
            self._banks[guess.style] = Bank(guess.style)
        search = _Search(picture / guess.cast, guess, self._banks[guess.style])
        search.run()
        return search


@dataclass(frozen=True)
class _Guess:
    """A background and style that the picture may have, and the colour cast of the picture (factor per channel)."""

    background: str
    style: str
    cast: np.ndarray
    distance: float  # mean level by which the picture differs, clipped
    share: float  # of the picture that agrees

    @property
    def cast_penalty(self) -> float:
        """In levels, as `_Search.unexplained`."""
        return 20.0 * float(np.abs(self.cast - 1).mean())


def _guess_looks(picture: np.ndarray) -> list[_Guess]:
    """The best guess first, then those that are nearly as good."""
    names, pictures = empty_pictures()
    difference = np.abs(pictures - picture).mean(axis=-1)
    likely = np.minimum(difference, _CLIP).mean(axis=(1, 2)).argsort()[:_NUM_LIKELY]
    guesses = []
    for i in likely:
        cast = np.ones(3, dtype=np.float32)
        agrees = difference[i] < _CLIP
        if agrees.mean() >= _MIN_EMPTY_SHARE:
            ratio = picture[agrees] / np.maximum(pictures[i][agrees], 1.0)
            cast = np.clip(np.median(ratio, axis=0), 1 - _MAX_CAST, 1 + _MAX_CAST).astype(np.float32)
        left = np.abs(picture / cast - pictures[i]).mean(axis=-1)
        distance, share = float(np.minimum(left, _CLIP).mean()), float((left < _CLIP / 2).mean())
        name, style = names[i]
        guesses.append(_Guess(name, style, cast, distance, share))
    guesses.sort(key=lambda guess: guess.distance + guess.cast_penalty)
    first = guesses[0].distance + guesses[0].cast_penalty
    return [guess for guess in guesses[:_MAX_GUESSES] if guess.distance + guess.cast_penalty < first + _CLOSE]


class _Search:
    """Takes things from one picture until nothing more can be explained."""

    def __init__(self, picture: np.ndarray, guess: _Guess, bank: Bank) -> None:
        self.guess = guess
        self.bank = bank
        self.picture = picture
        self.target = _softened(picture)
        self.painted = background(guess.background, PICTURE_SIDE)
        self.gains = bank.gains(halved(picture), guess.background)
        self.things: list[Thing] = []
        self.taken: list[_Candidate] = []
        self.rejected: list[_Candidate] = []
        self._remember()

    @property
    def unexplained(self) -> float:
        """Mean level by which the picture still differs from what was found, clipped."""
        return float(np.minimum(np.abs(self.target - self.shown).mean(axis=-1), _CLIP).mean())

    def run(self) -> None:
        rounds_rejected = 0
        while len(self.things) < MAX_THINGS and rounds_rejected < MAX_REJECTED:
            candidates = self._best_candidates()
            if not candidates:
                break
            fits = sorted((self._fit(candidate) for candidate in candidates), key=lambda fit: -fit.merit)
            fit = self._improved(next((fit for fit in fits if fit.counts), fits[0]))
            if fit.counts:
                self._take(fit)
            else:
                rounds_rejected += 1
                self._reject(candidates, refresh=rounds_rejected == 1 and bool(self.taken))
        self.things = [
            thing for thing, taken in zip(self.things, self.taken, strict=True) if self._stands(thing, taken)
        ]

    def _stands(self, thing: Thing, taken: _Candidate) -> bool:
        """Whether the picture around a found thing is explained too: a part of something else is not a thing."""
        reach = SIDE[taken.size] // 2 + 3
        window = (
            slice(max(taken.y - reach, 0), taken.y + reach),
            slice(max(taken.x - reach, 0), taken.x + reach),
        )
        empty = _softened(empty_picture(self.guess.background, self.guess.style).astype(np.float32))[window]
        before = float(((self.target[window] - empty) ** 2).sum())
        after = float(self.error[window].sum())
        correlation = _correlation(self.target[window], self.shown[window])
        if correlation >= FAINT_CORRELATION and (after / (3 * self.error[window].size)) ** 0.5 <= FAINT_LEFT:
            return True
        return min(thing.score, 1 - after / before) >= FINAL_EXPLAINED and correlation >= FINAL_CORRELATION

    def _take(self, fit: _Fit) -> None:
        found = fit.candidate
        kind, colour = looks()[found.look]
        self.things.append(Thing(kind, colour, found.size, (float(found.x), float(found.y)), fit.explained))
        self.painted = fit.picture
        self.taken.append(found)
        self._remember()
        self._forbid_around(found)

    def _reject(self, candidates: list[_Candidate], refresh: bool) -> None:
        """Rule the candidates out. The gains still count what taken things explain; `refresh` takes that out."""
        self.rejected += candidates
        if refresh:
            empty = halved(empty_picture(self.guess.background, self.guess.style))
            rest = halved(self.picture) - halved(self._drawn(self.painted)) + empty
            self.gains = self.bank.gains(rest, self.guess.background)
            for taken in self.taken:
                self._forbid_around(taken)
        self._forbid(self.rejected if refresh else candidates)

    def _remember(self) -> None:
        """The picture as explained so far, and what it leaves unexplained."""
        self.shown = self._styled(self.painted)
        self.error = ((self.target - self.shown) ** 2).sum(axis=-1)

    def _drawn(self, painted: np.ndarray) -> np.ndarray:
        return apply_style(self.guess.style, (painted + 0.5).clip(0, 255).astype(np.uint8))

    def _styled(self, painted: np.ndarray) -> np.ndarray:
        return _softened(self._drawn(painted).astype(np.float32))

    def _best_candidates(self) -> list[_Candidate]:
        """Per size the looks with the highest gains, and those found before, each at its best position."""
        candidates = []
        for size, gain_PL in zip(SIZES, self.gains, strict=True):
            best_L = gain_PL.amax(dim=0)
            again = {taken.look for taken in self.taken if taken.size == size}
            for look in sorted({*best_L.topk(NUM_CANDIDATES).indices.tolist(), *again}):
                if best_L[look] > MIN_GAIN:
                    candidates.append(_candidate(size, look, int(gain_PL[:, look].argmax())))
        return candidates

    def _fit(self, candidate: _Candidate) -> _Fit:
        """Paint the candidate and compare, at full size."""
        thing = sprite_of(candidate.group)
        height, width = thing.shape[:2]
        top, left = candidate.y - height // 2, candidate.x - width // 2
        rows = slice(max(top, 0), min(top + height, PICTURE_SIDE))
        columns = slice(max(left, 0), min(left + width, PICTURE_SIDE))
        thing = thing[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        painted = self.painted.copy()
        painted[rows, columns] = painted[rows, columns] * (1 - thing[..., 3:]) + thing[..., :3]
        shown = self._styled(painted)
        after = ((self.target - shown) ** 2).sum(axis=-1)
        weight = np.zeros((PICTURE_SIDE, PICTURE_SIDE), dtype=np.float32)
        weight[rows, columns] = thing[..., 3] > 0.5
        explained, weakest = _explained(self.error * weight, after * weight, rows, columns)
        window = (slice(max(rows.start - 1, 0), rows.stop + 1), slice(max(columns.start - 1, 0), columns.stop + 1))
        correlation = _correlation(self.target[window], shown[window])
        return _Fit(candidate, float((self.error - after).sum()), explained, weakest, correlation, painted)

    def _improved(self, fit: _Fit) -> _Fit:
        """The best of the neighbouring positions, then of the other colours: the wide search sees both roughly."""
        if fit.explained > _CERTAIN:
            return fit
        found = fit.candidate
        steps = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]
        moved = [_Candidate(found.look, found.size, found.x + dx, found.y + dy) for dx, dy in steps]
        fit = max([fit, *(self._fit(other) for other in moved)], key=lambda fit: fit.merit)
        found = fit.candidate
        kind, _ = looks()[found.look]
        others = [i for i, look in enumerate(looks()) if look[0] == kind and i != found.look]
        recoloured = [_Candidate(i, found.size, found.x, found.y) for i in others]
        return max([fit, *(self._fit(other) for other in recoloured)], key=lambda fit: fit.merit)

    def _forbid_around(self, taken: _Candidate) -> None:
        """Things do not overlap: no other thing reaches further than a few pixels into this one's slot."""
        for size, gain_PL in zip(SIZES, self.gains, strict=True):
            xs, ys = _middles(size)
            reach = (SIDE[size] + SIDE[taken.size]) / 2 - _SHARED
            gain_PL[((xs - taken.x).abs() < reach) & ((ys - taken.y).abs() < reach)] = -torch.inf

    def _forbid(self, candidates: list[_Candidate]) -> None:
        """These looks are not here; another look or size may be."""
        for candidate in candidates:
            xs, ys = _middles(candidate.size)
            near = ((xs - candidate.x).abs() <= 4) & ((ys - candidate.y).abs() <= 4)
            self.gains[SIZES.index(candidate.size)][near, candidate.look] = -torch.inf


@cache
def _middles(size: str) -> tuple[Tensor, Tensor]:
    """Middle of the slot at each position of the wide search, px at 64: x "P", y "P"."""
    steps = torch.arange(0, PICTURE_SIDE - SIDE[size] + 1, 2) + SIDE[size] // 2
    return steps.repeat(len(steps)), steps.repeat_interleave(len(steps))


def _candidate(size: str, look: int, position: int) -> _Candidate:
    xs, ys = _middles(size)
    return _Candidate(look, size, int(xs[position]), int(ys[position]))


def _softened(picture: np.ndarray) -> np.ndarray:
    """A light blur (1 2 1), so that a soft reconstruction and a sharp drawing are compared fairly."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    return (across[:-2] + 2 * across[1:-1] + across[2:]) / 4


def _explained(before: np.ndarray, after: np.ndarray, rows: slice, columns: slice) -> tuple[float, float]:
    """Share of the energy that is gone, over all and in the worst quarter with a tenth of the energy or more."""
    total = float(before.sum())
    if total <= 0:
        return 0.0, 0.0
    middle_row, middle_column = (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2
    shares = []
    for vertical in (slice(rows.start, middle_row), slice(middle_row, rows.stop)):
        for horizontal in (slice(columns.start, middle_column), slice(middle_column, columns.stop)):
            part = float(before[vertical, horizontal].sum())
            if part >= 0.1 * total:
                shares.append(1 - float(after[vertical, horizontal].sum()) / part)
    return 1 - float(after.sum()) / total, min(shares, default=0.0)


def _correlation(seen: np.ndarray, drawn: np.ndarray) -> float:
    """Of two windows "h w 3", their mean colours removed."""
    a, b = seen - seen.mean(axis=(0, 1)), drawn - drawn.mean(axis=(0, 1))
    return float((a * b).sum() / max(float(np.sqrt((a * a).sum() * (b * b).sum())), 1e-6))
