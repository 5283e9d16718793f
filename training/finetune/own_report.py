"""What a finetuning run tells people: a table of before and after, a sheet of pictures, how to chat with it.

In: two `Measured`s and what was done in between. Out: `report.md` and `sheet.png`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from training.finetune.forecast import ENOUGH_STEPS, few_steps
from training.finetune.own_measure import Measured, Shown
from training.finetune.own_pictures import Example, OwnPictures, Topic

SHARES = {
    "drawn": "asked for it, the model draws",
    "named": "the sentence before the picture names it",
    "recognised": "the judge recognises it in the picture",
    "recognised_elsewhere": "the judge recognises it in scenes of the storybook",
}
LOSSES = {
    "own_image_loss": "own pictures: loss per bit, nats",
    "own_text_loss": "own captions: loss per token, nats",
    "general_image_loss": "storybook: loss per bit, nats",
    "general_text_loss": "storybook: loss per token, nats",
}
RISE, FALL = 0.2, 0.95  # shares must rise, and losses fall, by at least so much to count as learnt
SIDE, LINE, COLUMNS = 96, 14, 8  # of the sheet: px of a picture, px of a line of text, pictures in a row
PAPER, INK = (255, 255, 255), (40, 40, 40)


@dataclass(frozen=True)
class Outcome:
    """Everything that a run can say for itself. `steps` were done of `total_steps`."""

    topic: Topic
    own: OwnPictures
    learning: str
    steps: int
    total_steps: int
    train_seconds: float
    adapter_bytes: int
    before: Measured
    after: Measured
    chat: tuple[str, ...]  # commands to go on with
    arithmetic: str = "float32"
    wanted: tuple[int, int] = (0, 0)  # requests and storybook cases per category that were to be measured

    @property
    def unchanged(self) -> bool:
        """Whether the model draws and says the very same as before, with the adapter off."""
        return self.before.fingerprint == self.after.fingerprint

    @property
    def not_learnt(self) -> list[str]:
        """What the numbers after say against its having learnt anything; nothing of a run that went well."""
        before, after = self.before.numbers, self.after.numbers
        reasons = []
        for name, what in (("named", "is named"), ("recognised", "is recognised")):
            if name in before and name in after and after[name] < min(0.5, before[name] + RISE):
                reasons.append(f"it {what} in {percent(after[name])} of the replies, {percent(before[name])} before")
        loss = "own_image_loss"
        if loss in before and after[loss] > FALL * before[loss]:
            reasons.append(f"own pictures are predicted no better ({before[loss]:.3f} before, {after[loss]:.3f} after)")
        return reasons


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def verdict(outcome: Outcome) -> list[str]:
    """What a report begins with where nothing was learnt."""
    if not outcome.not_learnt:
        return []
    few = f" {few_steps(outcome.steps)}." if outcome.steps < ENOUGH_STEPS else ""
    return [f"IT HAS NOT LEARNT THIS: {'; '.join(outcome.not_learnt)}.{few}"]


def rows(outcome: Outcome) -> list[tuple[str, str, str]]:
    """(what, before, after) of everything that was measured both times."""
    before, after = outcome.before, outcome.after
    lines = [
        (label, show(before.numbers[name]), show(after.numbers[name]))
        for labels, show in ((SHARES, percent), (LOSSES, "{:.3f}".format))
        for name, label in labels.items()
        if name in before.numbers and name in after.numbers
    ]
    lines += [
        (f"storybook: {name.replace('_', ' ')}", percent(before.storybook[name]), percent(after.storybook[name]))
        for name in after.storybook
        if name in before.storybook
    ]
    return lines


def summary(outcome: Outcome) -> str:
    """For a terminal: the table, the promises, and how to go on."""
    table = [("", "before", "after"), *rows(outcome)]
    width = max(len(row[0]) for row in table)
    lines = [f"{name:<{width}}  {before:>8}  {after:>8}" for name, before, after in table]
    return "\n".join(
        [*verdict(outcome), *lines, "", *facts(outcome), "", "Talk to it:", *(f"  {line}" for line in outcome.chat)]
    )


def facts(outcome: Outcome) -> list[str]:
    """What the numbers cannot say."""
    lines = [
        f"{outcome.steps} of {outcome.total_steps} steps in {outcome.train_seconds / 60:.1f} minutes "
        f"({outcome.arithmetic}); "
        f"measuring took {(outcome.before.numbers['seconds'] + outcome.after.numbers['seconds']) / 60:.1f} more",
        f"the adapter takes {outcome.adapter_bytes / 1e6:.1f} MB",
        "with the adapter off, every bit is as before"
        if outcome.unchanged
        else "WITH THE ADAPTER OFF, THE MODEL DRAWS OTHERWISE THAN BEFORE: do not use this adapter, and report it",
    ]
    lines += measured_amounts(outcome)
    if outcome.steps < outcome.total_steps:
        lines.append("it was stopped before its end: the same command goes on from there")
    if not outcome.own.held_out:
        lines.append("there were too few pictures to hold one out: its own numbers are of pictures that it has learnt")
    if not outcome.after.storybook:
        lines.append("what else it may have forgotten was not checked")
    return lines


def measured_amounts(outcome: Outcome) -> list[str]:
    """How much was measured, where time was too short for all of it."""
    wishes, check = (int(outcome.before.numbers.get(name, 0)) for name in ("wishes", "check"))
    if (wishes, check) == outcome.wanted:
        return []
    line = f"time was short: {wishes} of {outcome.wanted[0]} requests were measured before and after"
    cases = f", and {check} of {outcome.wanted[1]} storybook cases per category" if outcome.wanted[1] else ""
    return [line + cases]


def markdown(outcome: Outcome) -> str:
    """The whole report."""
    name = " ".join(word for word in (outcome.topic.name, outcome.topic.style) if word) or "changes to pictures"
    table = ["| | before | after |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows(outcome))]
    parts = [
        f"# {name}",
        *(f"**{line}**" for line in verdict(outcome)),
        "![own pictures, drawn before, drawn after](sheet.png)",
        "\n".join(table),
        "Requests are worded as training never worded them half of the time; equal seeds before and after. Storybook "
        "shares are of few cases: read changes of some points as noise, and measure with `vargpt evaluate storybook`.",
        "\n".join(f"- {fact}" for fact in facts(outcome)),
        f"{outcome.own}\n\n{outcome.learning}.",
        "Talk to it:\n\n```\n" + "\n".join(outcome.chat) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def write_report(outcome: Outcome, folder: Path) -> None:
    """`report.md` and `sheet.png`."""
    sheet(outcome.own.learnt, outcome.before.shown, outcome.after.shown).save(folder / "sheet.png")
    (folder / "report.md").write_text(markdown(outcome), encoding="utf-8")


def sheet(own: Sequence[Example], before: Sequence[Shown], after: Sequence[Shown]) -> Image.Image:
    """Three rows of pictures, with words above: somebody's own, and the same requests before and after."""
    groups: list[tuple[str, list[tuple[str, Image.Image | None]]]] = [
        ("yours", [(example.caption, example.picture) for example in own[:COLUMNS]]),
        ("before", [(one.prompt, one.picture) for one in before[:COLUMNS]]),
        ("after", [(one.prompt, one.picture) for one in after[:COLUMNS]]),
    ]
    height = SIDE + 3 * LINE
    page = Image.new("RGB", (COLUMNS * (SIDE + 4), len(groups) * height), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(LINE - 4)
    for row, (name, tiles) in enumerate(groups):
        pen.text((2, row * height), name, fill=INK, font=ImageFont.load_default(LINE - 2))
        for column, (words, picture) in enumerate(tiles):
            left, top = column * (SIDE + 4), row * height + LINE
            pen.text((left + 2, top), words[:18], fill=INK, font=font)
            if picture is None:
                pen.text((left + 2, top + SIDE // 2), "no picture", fill=INK, font=font)
            else:
                page.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left + 2, top + LINE))
    return page


def strip(pictures: Sequence[Image.Image | None]) -> Image.Image:
    """Pictures side by side, for a look at a run on its way."""
    page = Image.new("RGB", (max(1, len(pictures)) * SIDE, SIDE), PAPER)
    for column, picture in enumerate(pictures):
        if picture is not None:
            page.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (column * SIDE, 0))
    return page
