"""Two reports of the same cases, case by case: what became better, what worse, and what chance alone could have done.

In: reports as `vargpt evaluate storybook --out` writes them, of the same cases and seeds. Out: one `Change` per row.
Cases are resampled in pairs (both models on one case), which tells far smaller differences apart than two intervals do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vargpt.evaluation.intervals import Score, mean_of_means, mean_score

SAME = ("benchmark", "n", "seed")  # what two reports must share to be about the same cases
CHANCE = "not to be told from chance"


@dataclass(frozen=True)
class Change:
    """One row of two reports; `difference` is after minus before, with its paired interval."""

    task: str
    name: str
    before: float
    after: float
    difference: Score

    @property
    def verdict(self) -> str:
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else CHANCE


def read_report(path: Path) -> dict[str, Any]:
    """A report with its marks.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no report, or one that was written without marks.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no report {path}; `vargpt evaluate storybook --out {path}` writes one")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        rows = report["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no report of `vargpt evaluate storybook --out` ({error})") from None
    if not any("marks" in row for row in rows):
        raise ValueError(f"{path} has no marks of single cases; measure again with this version")
    return report


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The rows that both reports have, in their order; the mean over a task's headline categories comes last.

    Raises:
        ValueError: the reports are of other cases, or have no row in common.
    """
    for name in SAME:
        if before.get(name) != after.get(name):
            raise ValueError(
                f"the reports are not of the same cases: {name} is {before.get(name)!r} before and "
                f"{after.get(name)!r} after; measure both with the same --n and --seed"
            )
    later = {(row["task"], row["name"]): row for row in after["rows"]}
    pairs = [(row, later[row["task"], row["name"]]) for row in before["rows"] if (row["task"], row["name"]) in later]
    changes, differences = [], {}
    for old, new in pairs:
        marks, again = old.get("marks"), new.get("marks")
        if not marks or not again or len(marks) != len(again):
            continue
        key = old["task"], old["name"]
        differences[key] = [int(b) - int(a) for a, b in zip(marks, again, strict=True)]
        groups = old["groups"].split() or None
        changes.append(Change(*key, old["value"], new["value"], mean_score(differences[key], groups)))
    for old, new in pairs:
        if old.get("parts") and old["parts"] == new.get("parts"):
            parts = [differences[old["task"], name] for name in old["parts"]]
            changes.append(Change(old["task"], old["name"], old["value"], new["value"], mean_of_means(parts)))
    if not changes:
        raise ValueError("the reports have no row in common; measure both with the same --categories")
    return changes


def markdown(before: Mapping[str, Any], after: Mapping[str, Any], changes: Sequence[Change]) -> str:
    """The changes as a table in percent, for a document or a terminal."""
    lines = ["| task | what | n | before | after | difference | |", "|---|---|---|---|---|---|---|"]
    for change in changes:
        d = change.difference
        cells = [change.task, change.name, str(d.n), f"{100 * change.before:.1f}", f"{100 * change.after:.1f}"]
        cells += [f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]", change.verdict]
        lines.append("| " + " | ".join(cells) + " |")
    names = " -> ".join(f"{report['model']} ({report['model_hash']})" for report in (before, after))
    about = f"In percent, paired 95 % bootstrap intervals. {names}; seed {before['seed']}."
    return "\n".join([*lines, "", about, ""])
