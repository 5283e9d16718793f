"""The figures of a load run: per kind of request how many, how quick, how many failed; and how memory went.

In: one `Sample` per request. Out: a table for people, JSON for programs.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Sample:
    """One request: when it was asked and answered (seconds of one clock), and with what."""

    kind: str
    number: int
    started: float
    ended: float = 0.0
    pictures: int = 0
    tokens: int = 0
    same: bool | None = None  # as the answer given alone; None = nobody knows that one
    error: str | None = None
    refusals: int = 0  # times the server said "later" before

    @property
    def seconds(self) -> float:
        return self.ended - self.started


@dataclass(frozen=True)
class KindFigures:
    """One kind of request, or all together. Times are of answered requests, in seconds; nan without any.

    Of the answers, `compared` are those whose counterpart, given alone, is known; `changed` differ from it.
    """

    count: int
    errors: int
    p50: float
    p95: float
    compared: int
    changed: int


@dataclass(frozen=True)
class Phase:
    """Requests asked in one stretch of `seconds`."""

    seconds: float
    kinds: dict[str, KindFigures]
    requests_per_second: float
    pictures_per_second: float
    tokens_per_second: float
    refusals: int
    messages: dict[str, int]  # what went wrong, and how often


@dataclass(frozen=True)
class LoadReport:
    """A whole run. `memory` holds (requests asked after the loaded stretch, bytes of the server)."""

    model: str
    url: str
    users: int
    asked: tuple[str, ...]
    alone: Phase
    together: Phase
    lasting: Phase | None
    memory_before: int | None
    memory: tuple[tuple[int, int | None], ...]

    @property
    def phases(self) -> list[tuple[str, Phase]]:
        named = [("alone", self.alone), (f"{self.users} users", self.together), ("lasting", self.lasting)]
        return [(name, one) for name, one in named if one is not None]

    @property
    def errors(self) -> int:
        return sum(one.kinds["all"].errors for _, one in self.phases)

    @property
    def gain(self) -> float:
        """Requests per second of all users, over those of one alone."""
        alone = self.alone.requests_per_second
        return self.together.requests_per_second / alone if alone else math.nan

    @property
    def growth(self) -> float | None:
        """Bytes of memory per request over the second half of the lasting stretch, when caches have filled."""
        known = [(count, held) for count, held in self.memory if held is not None]
        if len(known) < 5:
            return None
        (middle, held_then), (end, held_now) = known[len(known) // 2], known[-1]
        return (held_now - held_then) / (end - middle)

    def lines(self) -> list[str]:
        """What the table does not say."""
        lines = [f"{self.users} users get {self.gain:.2f} times the requests per second of one alone"]
        for name, one in self.phases:
            lines.append(
                f"{name}: {one.pictures_per_second:.2f} pictures/s, {one.tokens_per_second:.1f} text tokens/s, "
                f"{one.refusals} times told to wait, {one.kinds['all'].changed} of {one.kinds['all'].compared} "
                "answers unlike those given alone"
            )
            lines += [f"{name}: {count} x {message}" for message, count in one.messages.items()]
        if self.memory_before is not None:
            held = [self.memory_before, *(held for _, held in self.memory if held is not None)]
            lines.append("server memory, MB: " + " -> ".join(f"{one / 1e6:.0f}" for one in held))
        if self.growth is not None:
            lines.append(f"growth at the end: {self.growth / 1e3:+.2f} KB per request")
        return lines

    def as_json(self) -> dict[str, Any]:
        return _finite(dataclasses.asdict(self) | {"gain": self.gain, "growth": self.growth, "errors": self.errors})


def phase(samples: Sequence[Sample]) -> Phase:
    """The figures of some requests."""
    answered = [one for one in samples if one.error is None]
    seconds = max((one.ended for one in samples), default=0.0) - min((one.started for one in samples), default=0.0)
    names = sorted({one.kind for one in samples})
    kinds = {kind: _figures([one for one in samples if one.kind == kind]) for kind in names}

    def rate(amount: int) -> float:
        return amount / seconds if seconds else 0.0

    return Phase(
        seconds=seconds,
        kinds={**kinds, "all": _figures(samples)},
        requests_per_second=rate(len(answered)),
        pictures_per_second=rate(sum(one.pictures for one in answered)),
        tokens_per_second=rate(sum(one.tokens for one in answered)),
        refusals=sum(one.refusals for one in samples),
        messages=dict(Counter(one.error for one in samples if one.error is not None).most_common(8)),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all do not exceed; nan without values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def report_table(report: LoadReport) -> Table:
    from rich.table import Table

    table = Table(title=f"{report.model} at {report.url}")
    for name in ("phase", "request", "answered", "errors", "changed", "p50, s", "p95, s", "requests/s"):
        table.add_column(name, justify="left" if name in ("phase", "request") else "right")
    for name, one in report.phases:
        for kind, figures in one.kinds.items():
            rate = f"{one.requests_per_second:.2f}" if kind == "all" else ""
            counts = (str(count) for count in (figures.count - figures.errors, figures.errors, figures.changed))
            table.add_row(name, kind, *counts, f"{figures.p50:.2f}", f"{figures.p95:.2f}", rate)
    return table


def _figures(samples: Sequence[Sample]) -> KindFigures:
    answered = [one for one in samples if one.error is None]
    times = [one.seconds for one in answered]
    same = [one.same for one in answered if one.same is not None]
    return KindFigures(
        count=len(samples),
        errors=len(samples) - len(answered),
        p50=percentile(times, 0.5),
        p95=percentile(times, 0.95),
        compared=len(same),
        changed=same.count(False),
    )


def _finite(value: Any) -> Any:
    """JSON knows no nan."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
