"""Tasks that are answered with a picture: drawing a request, editing an upload."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL.Image import Image

from vargpt.evaluation.base import Row
from vargpt.evaluation.intervals import mean_score
from vargpt.evaluation.task import Measured, Run
from vargpt.types import Message

BESIDE = ("judge", "ceiling", "words", "match", "only", "drawn")  # explained in report.LEGEND
MIN_OUTSIDE = 0.1  # share of the page that must lie outside an edit for its PSNR to mean something
MAX_PSNR = 60.0  # dB; above lies only the rounding to whole levels


def measure_drawing(run: Run, category: str) -> Measured:
    """One category of requests; a refusal counts as wrong."""
    world, marks = run.world, defaultdict(list)
    for start, cases in run.batches(world.draw_cases(category, run.n, run.seed)):
        turns = run.reply(category, start, [(Message.of("user", case.request),) for case in cases])
        pictures = [run.picture(turn) for turn in turns]
        for case, turn, picture, reading in zip(cases, turns, pictures, run.read(pictures), strict=True):
            right = reading is not None and world.draw_is_right(case, reading)
            announced = world.read_sentence(turn.message.text)
            marks["right"].append(right)
            marks["drawn"].append(picture is not None)
            marks["only"].append(reading is not None and world.nothing_else(case, reading))
            marks["words"].append(announced is not None and world.draw_is_right(case, announced))
            if announced is not None and reading is not None:
                marks["match"].append(world.agrees(reading, announced))
            run.show(category, [picture], case.request, right)
        control = cases[: max(run.controls - start, 0)]
        for name, readings in _controls(run, [case.scene for case in control]).items():
            marks[name] += [world.draw_is_right(*pair) for pair in zip(control, readings, strict=True)]
        yield len(cases)
    return [_row("draw", category, marks)]


def measure_edits(run: Run) -> Measured:
    """Uploaded pages and instructions: what became of the page, and of the pixels that nobody spoke of."""
    world, marks = run.world, defaultdict(list)
    kinds: dict[str, list[float]] = defaultdict(list)
    for start, cases in run.batches(world.edit_cases(run.n, run.seed)):
        sources = [world.picture(case.before) for case in cases]
        said = [(Message.of("user", source, case.instruction),) for source, case in zip(sources, cases, strict=True)]
        turns = run.reply("edit", start, said)
        pictures = [run.picture(turn) for turn in turns]
        for i, (case, reading) in enumerate(zip(cases, run.read(pictures), strict=True)):
            right = reading is not None and world.edit_is_right(case, reading)
            announced = world.read_sentence(turns[i].message.text)
            marks["right"].append(right)
            kinds[case.kind].append(right)
            marks["drawn"].append(pictures[i] is not None)
            marks["words"].append(announced is not None and world.edit_is_right(case, announced))
            if announced is not None and reading is not None:
                marks["match"].append(world.agrees(reading, announced))
            run.show("edit", [sources[i], pictures[i]], case.instruction, right)
        _compare_outside(run, cases, sources, pictures, marks)
        control = cases[: max(run.controls - start, 0)]
        for name, readings in _controls(run, [case.after for case in control]).items():
            marks[name] += [world.edit_is_right(*pair) for pair in zip(control, readings, strict=True)]
        yield len(cases)
    rows = [_row("edit", "all", marks)]
    rows += [Row("edit", kind, mean_score(values), marks={"right": values}) for kind, values in sorted(kinds.items())]
    if marks["outside"]:
        ceiling = {"ceiling": mean_score(marks["ceiling outside"])}
        rows.append(Row("edit", "PSNR outside, dB", mean_score(marks["outside"]), ceiling, "dB"))
    return rows


def _compare_outside(
    run: Run,
    cases: Sequence[Any],
    sources: Sequence[Image],
    pictures: Sequence[Image | None],
    marks: dict[str, list],
) -> None:
    """PSNR to the source where nothing should change, of the edited page and of the source's own reconstruction."""
    regions = [run.world.edited_region(case) for case in cases]
    chosen = [
        (source, picture, region)
        for source, picture, region in zip(sources, pictures, regions, strict=True)
        if picture is not None and region is not None and 1 - region.mean() >= MIN_OUTSIDE
    ]
    rebuilt = run.reconstruct([source for source, _, _ in chosen]) if chosen else []
    for (source, picture, region), again in zip(chosen, rebuilt, strict=True):
        marks["outside"].append(psnr(source, picture, ~region))
        marks["ceiling outside"].append(psnr(source, run.fitted(again), ~region))


def psnr(first: Image, second: Image, where: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two equal-sized pictures at the pixels in `where` ("H W", bool), at most 60.

    Raises:
        ValueError: the sizes differ, or no pixel is chosen.
    """
    if first.size != second.size or where.shape != first.size[::-1] or not where.any():
        raise ValueError(f"pictures of {first.size} and {second.size} cannot be compared at a mask of {where.shape}")
    a, b = (np.asarray(image.convert("RGB"), dtype=np.float64)[where] for image in (first, second))
    error = float(((a - b) ** 2).mean())
    return MAX_PSNR if error == 0 else min(10 * float(np.log10(255**2 / error)), MAX_PSNR)


def _controls(run: Run, scenes: Sequence[Any]) -> dict[str, list[Any]]:
    """Readings of the right pages, and of their reconstructions."""
    if not scenes:
        return {}
    pages = [run.world.picture(scene) for scene in scenes]
    rebuilt = [run.fitted(image) for image in run.reconstruct(pages)]
    return {"judge": run.world.read(pages), "ceiling": run.world.read(rebuilt)}


def _row(task: str, name: str, marks: dict[str, list]) -> Row:
    scores = {column: mean_score(marks[column]) for column in BESIDE if marks.get(column)}
    return Row(task, name, mean_score(marks["right"]), scores, marks=dict(marks))
