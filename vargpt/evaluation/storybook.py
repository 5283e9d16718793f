"""The storybook benchmark: draw, ask, edit, route and talk, on held-out cases of a drawn world that can be read back.

In: an engine, a world (cases and judge), the model's own tokenizer as a round trip. Out: a stream of `Progress` and at
last a `Report`. Categories and their mean follow GenEval (arXiv 2310.11513), with a judge that reads pages instead of a
detector. Beside each share of pictures stands what the judge says of the right pages themselves ("judge") and of their
reconstructions ("ceiling": no model that draws through this tokenizer can be expected to do better).
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence

import torch
from PIL.Image import Image, Resampling

from vargpt.chat.engine import ChatEngine
from vargpt.evaluation.base import Engine, Progress, Reconstruct, Report, Row, World, hardware
from vargpt.evaluation.intervals import mean_of_means
from vargpt.evaluation.picture_tasks import measure_drawing, measure_edits
from vargpt.evaluation.sheets import Gallery
from vargpt.evaluation.task import Measured, Run
from vargpt.evaluation.word_tasks import measure_answers, measure_dialogues, measure_routes
from vargpt.pictures.fitting import to_pixels

TALK = {"ask": measure_answers, "edit": measure_edits, "route": measure_routes, "dialogue": measure_dialogues}


def evaluate(
    engine: Engine,
    world: World,
    reconstruct: Reconstruct,
    n: int = 300,
    categories: Sequence[str] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    controls: int = 300,
    gallery: Gallery | None = None,
) -> Iterator[Progress | Report]:
    """Measures an engine; the last value is the report.

    Args:
        engine: answers in batches, with its default sampling.
        world: cases and judge.
        reconstruct: pictures through the model's image tokenizer and back (see `round_trip`).
        n: cases per category.
        categories: names of the world's drawing categories, "draw" for all of them, "ask", "edit", "route", "dialogue";
            None = everything.
        batch_size: requests answered together.
        seed: which cases, and which pictures.
        controls: of each category, so many cases examine the judge and the tokenizer.
        gallery: where pictures are kept for the eye; saved at the end.

    Raises:
        ValueError: an unknown category, or a number below 1.
    """
    chosen = checked_categories(world, categories)
    for name, value in (("n", n), ("batch_size", batch_size), ("controls", controls)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    run = Run(engine, world, reconstruct, n, batch_size, seed, controls, gallery)
    return _evaluate(run, chosen)


def checked_categories(world: World, categories: Sequence[str] | None) -> list[str]:
    """The categories to measure, in their usual order.

    Raises:
        ValueError: an unknown name.
    """
    known = (*world.draw_categories, *TALK)
    asked = set(known if categories is None else categories)
    if "draw" in asked:
        asked = asked - {"draw"} | set(world.draw_categories)
    if asked - set(known):
        raise ValueError(f"unknown categories {sorted(asked - set(known))}; known are draw, {', '.join(known)}")
    return [name for name in known if name in asked]


def _evaluate(run: Run, chosen: Sequence[str]) -> Iterator[Progress | Report]:
    started, done, total = time.perf_counter(), 0, run.n * len(chosen)
    rows: list[Row] = []
    for name in chosen:
        yield Progress(done, total, name)
        measured: Measured = TALK[name](run) if name in TALK else measure_drawing(run, name)
        while True:
            try:
                done += next(measured)
            except StopIteration as finished:
                rows += finished.value
                break
            yield Progress(done, total, name)
    rows += _headline(run.world, rows)
    if run.gallery is not None:
        run.gallery.save()
    about = {
        "model": run.engine.model_name,
        "model_hash": run.engine.model_hash,
        "n": run.n,
        "seed": run.seed,
        "batch_size": run.batch_size,
        "controls": min(run.controls, run.n),
        "hardware": hardware(getattr(run.engine, "device", "cpu")),
        "software": f"torch {torch.__version__}, Python {platform.python_version()}",
        "seconds": round(time.perf_counter() - started, 1),
    }
    yield Report("storybook", about, tuple(rows))


def _headline(world: World, rows: Sequence[Row]) -> list[Row]:
    """The mean over the headline categories, if all of them were measured."""
    parts = [row for row in rows if row.task == "draw" and row.name in world.headline]
    if len(parts) < len(world.headline):
        return []
    means = {name: mean_of_means([row.marks[name] for row in parts]) for name in ("right", "judge", "ceiling")}
    names = tuple(row.name for row in parts)
    return [Row("draw", f"mean of {len(parts)}", means.pop("right"), means, parts=names)]


def round_trip(engine: ChatEngine) -> Reconstruct:
    """Pictures through the image tokenizer of the engine's model and back, in the model's default size."""
    layout, tokenizer = engine.model.config.layout(), engine.model.image_tokenizer

    @torch.inference_mode()
    def reconstruct(images: Sequence[Image]) -> list[Image]:
        fitted = [image.resize((layout.width, layout.height), Resampling.LANCZOS) for image in images]
        pixels = to_pixels(fitted).to(engine.device)
        return engine.processor.to_pil(tokenizer.decode(tokenizer.encode(pixels, layout)))

    return reconstruct
