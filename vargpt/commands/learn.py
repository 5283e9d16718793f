"""`vargpt finetune`, `merge-adapter` and `prefer`: adapters from a few pictures, and preferences to train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from vargpt.commands import opening
from vargpt.commands.options import (
    DeviceOption,
    DtypeOption,
    GuidanceOption,
    ModelOption,
    QuantizeOption,
    TemperatureOption,
)

if TYPE_CHECKING:
    from vargpt.loading.quantization import Quantization


def finetune(
    folder: Annotated[Path | None, typer.Argument(help="Pictures, each with NAME.txt or in captions.jsonl.")] = None,
    name: Annotated[str | None, typer.Option(help="What they show, as in: --name lighthouse.")] = None,
    style: Annotated[str | None, typer.Option(help="How they are drawn, as in: --style crayon.")] = None,
    pairs: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two folders, BEFORE AFTER: learn the change.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the adapter [adapters/NAME].")] = None,
    describe: Annotated[bool, typer.Option("--describe", help="Let the model caption what has no caption.")] = False,
    steps: Annotated[int, typer.Option(help="How long to learn.")] = 1000,
    minutes: Annotated[
        float | None, typer.Option(help="Stop learning after so long; the same command goes on.")
    ] = None,
    rank: Annotated[int, typer.Option(help="How much an adapter can hold.")] = 16,
    check: Annotated[int, typer.Option(help="Storybook cases per category, before and after; 0 = none.")] = 32,
    wishes: Annotated[int, typer.Option(help="Requests for what is learnt, before and after.")] = 24,
    judge: Annotated[str | None, typer.Option(help="MODULE:FUNCTION that recognises it in a picture.")] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    seed: Annotated[int, typer.Option(help="Equal seeds, equal adapters.")] = 0,
) -> None:
    """Learn a thing or a style from a few pictures of your own, as an adapter to be switched on in any command."""
    from training.finetune.finetuning import FinetuneSettings, finetune, named_judge
    from training.finetune.lora_targets import LoraSettings
    from training.finetune.own_pictures import Topic
    from vargpt.pictures.album import file_stem

    opening.loading(device, dtype, quantize, offload=False)  # refuses another word than int8 or nf4
    opening.quiet_transformers()
    settings = FinetuneSettings(
        topic=Topic(name, style), folder=folder, pairs=pairs, describe=describe, steps=steps, minutes=minutes,
        out=out or Path("adapters") / file_stem(" ".join(word for word in (name, style) if word) or "pairs"),
        lora=LoraSettings(rank=rank, alpha=2.0 * rank), check=check, wishes=wishes, judge=named_judge(judge),
        model=model, device=device, dtype=dtype, quantization=cast("Quantization | None", quantize), seed=seed,
    )  # fmt: skip
    finetune(settings, say=typer.echo)


def merge_adapter(
    adapter: Annotated[list[Path], typer.Argument(help="Folders of adapters; several add up.")],
    out: Annotated[Path, typer.Option(help="Folder of the new model.")],
    model: ModelOption = None,
) -> None:
    """Write a model folder in which adapters are part of the weights."""
    from vargpt.loading.models import save

    engine = opening.open_engine(model, {"device": "cpu", "dtype": "float32", "adapters": adapter})
    save(engine.adapters.merge(engine.adapters.default), engine.processor, out)
    typer.echo(f"written to {out}; talk to it: vargpt chat --model {out}")


def prefer(
    out: Annotated[Path, typer.Option("--out", help="Folder of the preferences; one that was begun is continued.")],
    prompts: Annotated[Path | None, typer.Option("--prompts", help="A file with one prompt per line.")] = None,
    storybook: Annotated[int | None, typer.Option("--storybook", help="So many requests of the storybook.")] = None,
    n: Annotated[int, typer.Option("--n", help="Pictures per prompt.")] = 4,
    reward: Annotated[str | None, typer.Option("--reward", help="storybook or clip:MODEL: what judges.")] = None,
    chosen_from: Annotated[
        str | None, typer.Option("--chosen-from", help="Folder of better pictures, or storybook: pages as announced.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the prompts and of the first picture.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Prompts drawn together.")] = 8,
    temperature: TemperatureOption = None,
    guidance: GuidanceOption = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Draw several pictures of every prompt and keep which is better, for preference training."""
    from training.preferences.prefer import Order, run

    order = Order(prompts, storybook, n, reward, chosen_from, seed, batch_size, temperature, guidance)
    typer.echo(run(order, lambda: opening.open_engine(model, {"device": device}), out))
