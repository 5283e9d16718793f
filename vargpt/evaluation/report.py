"""A report for people: a table on the terminal, the same table as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vargpt.evaluation.base import Report, Row
from vargpt.evaluation.intervals import Score

if TYPE_CHECKING:
    from rich.table import Table

LEGEND = (
    "In percent, with 95 % bootstrap intervals. judge: how often the judge accepts the right pages themselves; "
    "ceiling: the same after the model's image tokenizer; words: the announcement before the picture was right; match: "
    "the picture shows what was announced; only: right, and nothing on it that nobody asked for; drawn: there was a "
    "picture. PSNR: between source and edited page where nothing should change, beside that of the tokenizer alone."
)


def columns(report: Report) -> list[str]:
    """Names of everything that stands beside a score."""
    return list(dict.fromkeys(name for row in report.rows for name in row.beside))


def cells(row: Row, beside: list[str]) -> list[str]:
    """Name, score with its interval, number of cases, and the columns beside it."""
    rest = [shown(row.beside[name], row.unit, False) if name in row.beside else "" for name in beside]
    return [row.name, shown(row.score, row.unit), str(row.score.n), *rest]


def shown(score: Score, unit: str, interval: bool = True) -> str:
    """ "93.3 [90.1, 96.0]": shares in percent, everything else as it is."""
    value, low, high = (part * (100 if unit == "share" else 1) for part in (score.value, score.low, score.high))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]" if interval else f"{value:.1f}"


def markdown(report: Report) -> str:
    """The table with what it was measured on, for a document."""
    beside = columns(report)
    head = ["task", "what", "score", "n", *beside]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join([row.task, *cells(row, beside)]) + " |" for row in report.rows]
    about = "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in report.about.items())
    return "\n".join([*lines, "", LEGEND, "", f"Measured on {about}.", ""])


def table(report: Report) -> Table:
    """The table for a terminal of 80 columns."""
    from rich.table import Table

    beside = columns(report)
    title = f"{report.benchmark}: {report.about.get('model')}"
    result = Table(title=title, caption=LEGEND, caption_justify="left", box=None, padding=(0, 1, 0, 0))
    for number, name in enumerate(["", "score", "n", *beside]):
        result.add_column(
            name, justify="right" if number else "left", no_wrap=number > 0, min_width=None if number else 18
        )
    for task in dict.fromkeys(row.task for row in report.rows):
        result.add_row(f"[bold]{task}")
        for row in report.rows:
            if row.task == task:
                result.add_row(*cells(row, beside))
    return result
