"""What each stage of a training program changed: the same held-out losses and storybook cases after every one of them.

In: a model folder. Out: a `Row`, kept as a line of `stages.jsonl`, and from all rows a table in Markdown that also says
where nothing was gained. Two scores count as different only where their 95 % intervals do not touch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import torch

from data_recipes.storybook.judging.judge import Judge
from data_recipes.storybook.judging.scoring import Storybook
from data_recipes.storybook.samples import make_sample
from training.finetune.own_measure import losses
from vargpt.chat.engine import ChatEngine
from vargpt.evaluation.base import Report
from vargpt.evaluation.intervals import Score
from vargpt.evaluation.storybook import evaluate, round_trip

ROWS, TABLE = "stages.jsonl", "stages.md"
SCORES = ("draw", "ask", "edit", "route")
CATEGORIES = (*Storybook.headline, "ask", "edit", "route")
CHANCE = "not to be told from chance"
LOSSES = {"text_loss": "text, nats/token", "image_loss": "pictures, nats/bit"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stage as it was left. `size` is the height and width in px, `losses` by the names in LOSSES,
    of so many (`validation`) conversations, `scores` shares.

    `model` is the folder, `model_hash` of its weights; `note` says what must be known to read the numbers.
    """

    name: str
    steps: int
    size: tuple[int, int]
    model: str
    model_hash: str | None
    losses: dict[str, float]
    validation: int = 0
    scores: dict[str, Score] = field(default_factory=dict)
    note: str = ""


@lru_cache(maxsize=2)  # a judge builds its templates once
def world_of(side: int) -> Storybook:
    return Storybook(Judge.of_side(side))


def measured(name: str, steps: int, model: Path, n: int, validation: int, device: str = "auto", note: str = "") -> Row:
    """Measures a model folder.

    Args:
        name: of the stage.
        steps: that the stage took.
        model: the folder.
        n: storybook cases per category; 0 leaves the scores out.
        validation: held-out conversations of which the losses are taken.
        device: where.
        note: goes into the row.
    """
    engine = ChatEngine.load(model, device)
    layout = engine.model.config.layout()
    held_out = [make_sample(number, "heldout", layout.width).messages for number in range(validation)]
    return Row(
        name=name,
        steps=steps,
        size=(layout.height, layout.width),
        model=str(model),
        model_hash=engine.model_hash,
        losses=losses(engine, held_out),
        validation=validation,
        scores=storybook_scores(engine, n) if n else {},
        note=note,
    )


def storybook_scores(engine: ChatEngine, n: int) -> dict[str, Score]:
    """Shares of right drawings (the mean of six categories), answers, edits, and choices between word and picture."""
    world = world_of(engine.model.config.layout().width)
    with torch.inference_mode():
        *_, report = evaluate(engine, world, round_trip(engine), n, CATEGORIES, controls=1)
    assert isinstance(report, Report)
    found = {"draw": next(row.score for row in report.rows if row.task == "draw" and row.name.startswith("mean"))}
    return found | {row.task: row.score for row in report.rows if row.name == "all" and row.task in SCORES}


class StageLog:
    """The rows of a run: those there are, and more.

    Args:
        run_dir: its folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        file = run_dir / ROWS
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        self.rows = [parsed(line) for line in lines]

    def row(self, name: str) -> Row | None:
        """What was measured after this stage; None before it is finished."""
        return next((row for row in self.rows if row.name == name), None)

    def add(self, row: Row) -> None:
        """Writes the row, and the table of all rows anew."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with (self.run_dir / ROWS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        self.rows.append(row)
        (self.run_dir / TABLE).write_text(table(self.rows), encoding="utf-8")


def parsed(line: str) -> Row:
    """A line of `stages.jsonl`."""
    content = json.loads(line)
    scores = {name: Score(**score) for name, score in content.pop("scores").items()}
    return Row(**content | {"scores": scores, "size": tuple(content["size"])})


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, and below them, in words, what each stage changed."""
    head = ["stage", "px", "steps", *LOSSES.values(), "draw, mean of 6", *SCORES[1:]]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [row.name, f"{row.size[1]}x{row.size[0]}", f"{row.steps:,}"]
        cells += [f"{row.losses[name]:.4f}" if name in row.losses else "—" for name in LOSSES]
        cells += [shown(row.scores[name]) if name in row.scores else "—" for name in SCORES]
        lines.append("| " + " | ".join(cells) + " |")
    counts = sorted({score.n for row in rows for score in row.scores.values()})
    lines += ["", f"Scores in percent with 95 % intervals, of {' or '.join(map(str, counts)) or 'no'} cases. ", ""]
    for before, after in zip(rows, rows[1:], strict=False):
        lines.append(f"- **{after.name}**: {changed(before, after)}")
    notes = [f"- **{row.name}**: {row.note}" for row in rows if row.note]
    return "\n".join([*lines, *(["", "Notes:", "", *notes] if notes else []), ""])


def shown(score: Score) -> str:
    value, low, high = (100 * part for part in (score.value, score.low, score.high))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def changed(before: Row, after: Row) -> str:
    """What a stage changed, better and worse apart from what chance could have done."""
    said: dict[str, list[str]] = {"better": [], "worse": [], CHANCE: []}
    for name in SCORES:
        if name in before.scores and name in after.scores:
            old, new = before.scores[name], after.scores[name]
            verdict = "better" if new.low > old.high else "worse" if new.high < old.low else CHANCE
            said[verdict].append(f"{name} {100 * (new.value - old.value):+.1f}")
    text = [f"{verdict}: {', '.join(parts)}" for verdict, parts in said.items() if parts]
    if before.validation != after.validation:
        return "; ".join([*text, "the losses are of other conversations, and not comparable"]) + "."
    for name, label in LOSSES.items():
        if name not in before.losses or name not in after.losses:
            continue
        if name == "image_loss" and before.size != after.size:
            text.append("the loss of pictures is of another size, and not comparable")
        else:
            text.append(f"{label} {after.losses[name] - before.losses[name]:+.4f}")
    return "; ".join(text) + "."
