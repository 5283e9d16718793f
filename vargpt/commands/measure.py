"""`vargpt evaluate` and `vargpt bench`: how good a model is and how fast on this machine, as tables and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vargpt.commands import opening
from vargpt.commands.options import AdapterOption, DeviceOption, ModelOption

if TYPE_CHECKING:
    from rich.table import Table

    from vargpt.benchmarks.speed import Speed
    from vargpt.evaluation.base import Progress, Report


def evaluate_storybook(
    n: Annotated[int, typer.Option("--n", help="Cases per category.")] = 300,
    categories: Annotated[str | None, typer.Option(help="Some of the categories, with commas between.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Requests answered together.")] = 32,
    controls: Annotated[int, typer.Option(help="Per category, so many cases examine judge and tokenizer.")] = 300,
    seed: Annotated[int, typer.Option(help="Which cases; equal seeds, equal cases.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the report here, as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table here, as Markdown.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for sheets of the first pictures.")] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    adapter: AdapterOption = None,
) -> None:
    """Draw, ask, edit and talk about held-out pages of the storybook world; its judge counts what is right.

    Categories: draw (or one of single_object, two_objects, counting, colours, position, colour_attribution, background,
    style), ask, edit, route, dialogue.
    """
    from data_recipes.storybook.judging.judge import Judge
    from data_recipes.storybook.judging.scoring import Storybook
    from vargpt.evaluation import report, storybook
    from vargpt.evaluation.sheets import Gallery

    chosen = None if categories is None else [name.strip() for name in categories.split(",")]
    storybook.checked_categories(Storybook(Judge()), chosen)  # mistakes show before the model is loaded
    engine = opening.open_engine(model, {"device": device, "adapters": adapter or ()})
    world = Storybook(Judge.of_side(engine.model.config.layout().width))
    gallery = None if pictures is None else Gallery(pictures)
    rebuild = storybook.round_trip(engine)
    steps = storybook.evaluate(engine, world, rebuild, n, chosen, batch_size, seed, controls, gallery)
    result = watched(steps)
    opening.console().print(report.table(result))
    write_json(out, result.as_json())
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(report.markdown(result), encoding="utf-8")


def compare_reports(
    before: Annotated[Path, typer.Argument(help="A report that `vargpt evaluate storybook --out` wrote.")],
    after: Annotated[Path, typer.Argument(help="Another one, of the same cases.")],
) -> None:
    """Say what became better or worse between two reports, case by case, and print it as a Markdown table."""
    from vargpt.evaluation import comparison

    first, second = comparison.read_report(before), comparison.read_report(after)
    typer.echo(comparison.markdown(first, second, comparison.compare(first, second)))


def bench(
    runs: Annotated[int, typer.Option(help="Turns (or drawings) of which the median is taken.")] = 5,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Pictures drawn together.")] = 8,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers here, as JSON.")] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="A published architecture on random weights, as infinity-125m.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="With --architecture: WIDTHxHEIGHT in pixels [256x256].")
    ] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="With --architecture: fp32, or bf16 beside it.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="With --architecture: also through torch.compile.")
    ] = False,
    checkpoint: Annotated[
        float | None, typer.Option("--checkpoint", help="Instead: load a random published checkpoint of so many GB.")
    ] = None,
) -> None:
    """Measure how fast the model is on this machine, or how fast a published architecture could be on it."""
    from vargpt.commands.draw import parse_size

    if checkpoint is not None:
        opening.console().print(load_checkpoint(checkpoint, out))
        return
    if architecture is not None:
        if model is not None:
            raise ValueError("--architecture has random weights: leave --model out")
        chosen = parse_size(size or "256x256")
        for part in time_architecture(architecture, chosen, dtype or "fp32", runs, device, compiled, out):
            opening.console().print(part)
        return
    if size is not None or dtype is not None or compiled:
        raise ValueError("--size, --dtype and --compile go with --architecture; a model folder has its own")
    from vargpt.benchmarks.speed import measure_speed

    speed = measure_speed(opening.open_engine(model, {"device": device}), runs, batch_size)
    opening.console().print(speed_table(speed))
    write_json(out, speed.as_json())


def watched(steps: Iterator[Progress | Report]) -> Report:
    """A progress bar until the report is there."""
    from tqdm import tqdm

    from vargpt.evaluation.base import Progress

    with tqdm(unit="case", file=sys.stderr) as bar:
        for step in steps:
            if not isinstance(step, Progress):
                return step
            bar.total = step.total
            bar.set_description(step.task, refresh=False)
            bar.update(step.done - bar.n)
    raise AssertionError("an evaluation ends with its report")


def load_checkpoint(gigabytes: float, out: Path | None) -> str:
    """Times the loading of a checkpoint made for it; one line about time and memory.

    Raises:
        ValueError: the size lies outside 1 to 100 GB.
    """
    from vargpt.benchmarks.loading_speed import measure_loading, write_random_checkpoint

    if not 1 <= gigabytes <= 100:
        raise ValueError(f"--checkpoint is a size in GB from 1 to 100, got {gigabytes:g}")
    with TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder), round(gigabytes * 1e9))
        speed = measure_loading(Path(folder))
    write_json(out, speed.as_json())
    return (
        f"{speed.weight_bytes / 1e9:.2f} GB of weights loaded in {speed.seconds:.1f} s; "
        f"memory at its height {speed.peak_share:.2f} times the weights"
    )


def time_architecture(
    name: str, size: tuple[int, int], dtype: str, runs: int, device: str, compiled: bool, out: Path | None
) -> Iterator[Table]:
    """Times a published architecture: one table of variants and one of scales."""
    from vargpt.benchmarks.architecture_report import scale_table, variant_table
    from vargpt.benchmarks.architecture_speed import measure_architecture
    from vargpt.loading.devices import resolve_device

    speed = measure_architecture(name, size, dtype, runs, str(resolve_device(device)), compiled)
    yield variant_table(speed)
    yield scale_table(speed)
    write_json(out, speed.as_json())


def speed_table(speed: Speed) -> Table:
    """What was measured, one line each."""
    from rich.table import Table

    from vargpt.benchmarks.speed import speed_lines

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in speed_lines(speed):
        table.add_row(name, value)
    return table


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """Keeps numbers in a file, if one was named."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
