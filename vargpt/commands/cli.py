"""`vargpt <command>`: talk, draw, ask, edit, measure, look around. Thin: every command hands over to a room.

What a user can get wrong ends in one line on stderr and exit code 2; `--debug` shows where it came from.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vargpt.commands.options import (
    AdapterOption,
    CompileOption,
    CountOption,
    DeviceOption,
    DtypeOption,
    FaithfulnessOption,
    ForceOption,
    GuidanceOption,
    KeepScalesOption,
    ModelOption,
    NegativeOption,
    OffloadOption,
    OutOption,
    QuantizeOption,
    RegionOption,
    SeedOption,
    SizeOption,
    TemperatureOption,
    TextEncoderOption,
    TopPOption,
    VaeOption,
    VariantOption,
    loading,
)
from vargpt.commands.serve import add_serve

if TYPE_CHECKING:
    from rich.console import Console

    from vargpt.chat.engine import ChatEngine
    from vargpt.chat.painter import Order
    from vargpt.types import Artist

REFUSED, MISTAKE = 1, 2


class PlainErrors(TyperGroup):
    """Turns what users cause (bad values, missing files, missing extras) into one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever read our output has seen enough, as in `vargpt doctor | head -3`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (ValueError, OSError, ImportError) as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"vargpt: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(cls=PlainErrors, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
evaluate = typer.Typer(no_args_is_help=True)
app.add_typer(evaluate, name="evaluate")


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    """One conversation that understands pictures, draws them and edits them."""
    if version:
        from vargpt.pictures.album import software

        typer.echo(software())
        raise typer.Exit


@app.command()
def chat(
    script: Annotated[Path | None, typer.Option(help="Play a conversation from turns.jsonl, without a person.")] = None,
    out: Annotated[Path, typer.Option(help="Folder in which pictures are kept.")] = Path("vargpt-pictures"),
    model: ModelOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    offload: OffloadOption = False,
    adapter: AdapterOption = None,
    seed: SeedOption = None,
) -> None:
    """Talk in the terminal; /help lists what can be typed besides words."""
    from vargpt.commands.draw import checked_seed
    from vargpt.commands.script import play, read_script
    from vargpt.commands.terminal import Screen, TerminalChat
    from vargpt.types import ChatRequest

    template = ChatRequest(messages=(), seed=checked_seed(seed) if seed is not None else 0)
    options = loading(device, dtype, quantize, offload, adapter)
    if script is not None:
        read_script(script)  # mistakes show before the model is loaded
        screen = Screen(console())
        for event in play(open_engine(model, options), script, out, template):
            screen.show(event)
        screen.line(f"written to {out}")
        return
    TerminalChat(open_engine(model, options), console(), out, template, seed).run()


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="0.0.0.0 lets others in; see --users.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="1 to 65535.")] = 8000,
    model: ModelOption = None,
    headless: Annotated[bool, typer.Option("--headless", help="Open no browser.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder of history, pictures and votes.")] = None,
    database: Annotated[str | None, typer.Option(help="PostgreSQL address of the history.")] = None,
    users: Annotated[Path | None, typer.Option(help="Who may log in: python -m chat_ui.access.users.")] = None,
    api: Annotated[bool, typer.Option("--api", help="Answer OpenAI's clients too; keys: VARGPT_API_KEYS.")] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    offload: OffloadOption = False,
    adapter: AdapterOption = None,
    compiled: CompileOption = False,
) -> None:
    """Open the chat page in a browser."""
    try:
        from chat_ui.run import run
    except ImportError as error:
        raise ImportError(f"the chat page is not installed ({error}): pip install 'vargpt[ui]'") from error
    path = None
    if model is not None:  # a mistake shows here, not in the first visitor's browser
        from vargpt.published.families import resolve_model

        path = str(resolve_model(model).resolve())
    options = loading(device, dtype, quantize, offload, adapter, compiled)
    kept: dict[str, Any] = {"data": data, "database": database, "users": users, "with_api": api}
    run(host=host, port=port, headless=headless, model=path, options=options, **kept)


@app.command()
def draw(
    prompt: Annotated[str | None, typer.Argument(help="What to draw.")] = None,
    from_file: Annotated[
        Path | None,
        typer.Option("--from", help="A file of wishes, one per line; with --keep-scales: the picture to refine."),
    ] = None,
    keep_scales: KeepScalesOption = 0,
    out: OutOption = None,
    seed: SeedOption = None,
    n: CountOption = 1,
    size: SizeOption = None,
    guidance: GuidanceOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    force: ForceOption = False,
    model: ModelOption = None,
    variant: VariantOption = None,
    negative: NegativeOption = None,
    text_encoder: TextEncoderOption = None,
    vae: VaeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    offload: OffloadOption = False,
    adapter: AdapterOption = None,
) -> None:
    """Draw a picture, or a whole file of wishes. Exit code 1: the model answered in words only."""
    from vargpt.chat.painter import Order
    from vargpt.commands.draw import check_size, draw_list, draw_one, drawing_request, refining
    from vargpt.pictures.album import read_prompts
    from vargpt.sampling import changed_sampling
    from vargpt.types import Message

    if keep_scales == 0 and (prompt is None) == (from_file is None):
        raise ValueError("say what to draw, as in: vargpt draw 'a red car'; or name a file of wishes with --from")
    prompts = [] if from_file is None or keep_scales else read_prompts(from_file)
    order = Order.of(model, variant, negative, text_encoder, vae)
    sampling = changed_sampling(order.sampling, guidance, temperature, top_p)
    template = drawing_request((), seed, n, size, sampling, force)
    check_size(order, template.size)
    if keep_scales:
        template = refining(template, prompt, from_file, keep_scales)
    options = loading(device, dtype, quantize, offload, adapter)
    if prompt is None:
        draw_list(open_artist(order, options), prompts, template, out or Path("vargpt-pictures"))
    else:
        draw_one(lambda: open_artist(order, options), template, Message.of("user", prompt), out)


@app.command()
def edit(
    image: Annotated[Path, typer.Argument(help="The picture to change.")],
    instruction: Annotated[str, typer.Argument(help="What should be different.")],
    region: RegionOption = None,
    faithfulness: FaithfulnessOption = 0.0,
    out: OutOption = None,
    seed: SeedOption = None,
    n: CountOption = 1,
    size: SizeOption = None,
    guidance: GuidanceOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    force: ForceOption = False,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    offload: OffloadOption = False,
    adapter: AdapterOption = None,
) -> None:
    """Draw a changed copy of a picture; with --region, change a part of it. Exit code 1: words were all that came."""
    from vargpt.commands.draw import draw_one, drawing_request, editing
    from vargpt.loading.models import OUTLINE
    from vargpt.pictures.files import open_picture
    from vargpt.published.families import default_sampling, resolve_model
    from vargpt.sampling import changed_sampling
    from vargpt.types import Message

    default = default_sampling(resolve_model(model, OUTLINE))
    sampling = changed_sampling(default, guidance, temperature, top_p)
    template = drawing_request((), seed, n, size, sampling, force)
    options = loading(device, dtype, quantize, offload, adapter)
    picture = open_picture(image)
    template = editing(template, picture, region, faithfulness)
    draw_one(lambda: open_engine(model, options), template, Message.of("user", picture, instruction), out)


@app.command()
def ask(
    image: Annotated[Path, typer.Argument(help="The picture that the question is about.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    model: ModelOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    offload: OffloadOption = False,
    adapter: AdapterOption = None,
) -> None:
    """Ask something about a picture."""
    from vargpt.commands.draw import show_turn
    from vargpt.pictures.files import open_picture
    from vargpt.types import ChatRequest, Message

    message = Message.of("user", open_picture(image), question)
    options = loading(device, dtype, quantize, offload, adapter)
    show_turn(open_engine(model, options), ChatRequest(messages=(message,), route="text"))


@app.command()
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

    loading(device, dtype, quantize, offload=False)
    quiet_transformers()
    settings = FinetuneSettings(
        topic=Topic(name, style), folder=folder, pairs=pairs, describe=describe, steps=steps, minutes=minutes,
        out=out or Path("adapters") / file_stem(" ".join(word for word in (name, style) if word) or "pairs"),
        lora=LoraSettings(rank=rank, alpha=2.0 * rank), check=check, wishes=wishes, judge=named_judge(judge),
        model=model, device=device, dtype=dtype, quantization=quantize, seed=seed,
    )  # fmt: skip
    finetune(settings, say=typer.echo)


@app.command("merge-adapter")
def merge_adapter(
    adapter: Annotated[list[Path], typer.Argument(help="Folders of adapters; several add up.")],
    out: Annotated[Path, typer.Option(help="Folder of the new model.")],
    model: ModelOption = None,
) -> None:
    """Write a model folder in which adapters are part of the weights."""
    from vargpt.loading.models import save

    engine = open_engine(model, {"device": "cpu", "dtype": "float32", "adapters": adapter})
    save(engine.adapters.merge(engine.adapters.default), engine.processor, out)
    typer.echo(f"written to {out}; talk to it: vargpt chat --model {out}")


@evaluate.callback()
def benchmarks() -> None:
    """Measure a model."""


@evaluate.command("storybook")
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
    from vargpt.commands.measure import watched, write_json
    from vargpt.evaluation import report, storybook
    from vargpt.evaluation.sheets import Gallery

    chosen = None if categories is None else [name.strip() for name in categories.split(",")]
    storybook.checked_categories(Storybook(Judge()), chosen)  # mistakes show before the model is loaded
    engine = open_engine(model, {"device": device, "adapters": adapter or ()})
    world = Storybook(Judge.of_side(engine.model.config.layout().width))
    gallery = None if pictures is None else Gallery(pictures)
    rebuild = storybook.round_trip(engine)
    steps = storybook.evaluate(engine, world, rebuild, n, chosen, batch_size, seed, controls, gallery)
    result = watched(steps)
    console().print(report.table(result))
    write_json(out, result.as_json())
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(report.markdown(result), encoding="utf-8")


@evaluate.command("compare")
def compare_reports(
    before: Annotated[Path, typer.Argument(help="A report that `vargpt evaluate storybook --out` wrote.")],
    after: Annotated[Path, typer.Argument(help="Another one, of the same cases.")],
) -> None:
    """Say what became better or worse between two reports, case by case, and print it as a Markdown table."""
    from vargpt.evaluation import comparison

    first, second = comparison.read_report(before), comparison.read_report(after)
    typer.echo(comparison.markdown(first, second, comparison.compare(first, second)))


@app.command()
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
    from vargpt.commands.measure import load_checkpoint, speed_table, time_architecture, write_json

    if checkpoint is not None:
        console().print(load_checkpoint(checkpoint, out))
        return
    if architecture is not None:
        if model is not None:
            raise ValueError("--architecture has random weights: leave --model out")
        chosen = parse_size(size or "256x256")
        for part in time_architecture(architecture, chosen, dtype or "fp32", runs, device, compiled, out):
            console().print(part)
        return
    if size is not None or dtype is not None or compiled:
        raise ValueError("--size, --dtype and --compile go with --architecture; a model folder has its own")
    from vargpt.benchmarks.speed import measure_speed

    speed = measure_speed(open_engine(model, {"device": device}), runs, batch_size)
    console().print(speed_table(speed))
    write_json(out, speed.as_json())


@app.command()
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
    typer.echo(run(order, lambda: open_engine(model, {"device": device}), out))


@app.command()
def doctor(
    model: Annotated[str | None, typer.Option("--model", help="Folder or hub id: estimate what it needs.")] = None,
) -> None:
    """Say what is installed, which device will be used, and what fits. Exit code 1: something is amiss."""
    from vargpt.commands.doctor import examine, findings_table

    findings = examine(model)
    console().print(findings_table(findings))
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(REFUSED)


# -- what the commands share -------------------------------------------------------------------------------------------


def console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def open_engine(model: str | None, options: dict[str, Any]) -> ChatEngine:
    from vargpt.chat.engine import ChatEngine

    quiet_transformers()
    return ChatEngine.load(model, **options)


def open_artist(order: Order, options: dict[str, Any]) -> Artist:
    """What carries an order out: a model that only draws, or a chat engine."""
    quiet_transformers()
    return open_engine(order.model, options) if order.published is None else order.painter(**options)


def quiet_transformers() -> None:
    """What transformers says while it loads is for `--debug` and libraries, not for this terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


add_serve(app, loading, open_engine)


def main() -> None:
    # Read when torch is loaded. Threads that spin while they wait for one another are slowed to a fifth as soon as
    # something else needs a processor; beside the page, a browser does. So there they soon sleep (docs/speed.md).
    if sys.argv[1:2] == ["ui"] and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # What transformers will call otherwise one day is news for those who write this, not for those who draw.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    app()


if __name__ == "__main__":
    main()
