"""`vargpt chat` and `vargpt ask`: a conversation in the terminal, and one question about one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vargpt.commands import opening
from vargpt.commands.options import (
    AdapterOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    OffloadOption,
    QuantizeOption,
    SeedOption,
)


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
    options = opening.loading(device, dtype, quantize, offload, adapter)
    if script is not None:
        read_script(script)  # mistakes show before the model is loaded
        screen = Screen(opening.console())
        for event in play(opening.open_engine(model, options), script, out, template):
            screen.show(event)
        screen.line(f"written to {out}")
        return
    TerminalChat(opening.open_engine(model, options), opening.console(), out, template, seed).run()


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
    from vargpt.commands.terminal import show_turn
    from vargpt.pictures.files import open_picture
    from vargpt.types import ChatRequest, Message

    message = Message.of("user", open_picture(image), question)
    options = opening.loading(device, dtype, quantize, offload, adapter)
    show_turn(opening.open_engine(model, options), ChatRequest(messages=(message,), route="text"))
