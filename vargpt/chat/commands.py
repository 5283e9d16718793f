"""What the commands that draw do between the command line and a model: values checked, turns shown, pictures saved."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import typer
from rich.console import Console
from tqdm import tqdm

from vargpt.chat.album import Artist, draw_all, picture_paths, save_picture
from vargpt.chat.painter import Order
from vargpt.chat.requests import MAX_PICTURES
from vargpt.chat.terminal import Screen, new_seed, parse_seed
from vargpt.types import ChatRequest, ImageSampling, Message, TurnFinished

REFUSED = 1  # exit code: the model answered in words only


def checked_seed(seed: int | None) -> int:
    return new_seed() if seed is None else parse_seed(str(seed))


def drawing_request(
    messages: tuple[Message, ...], seed: int | None, n: int, size: str | None, sampling: ImageSampling, force: bool
) -> ChatRequest:
    """A request from command-line values.

    Raises:
        ValueError: seed, count or size cannot be.
    """
    if not 1 <= n <= MAX_PICTURES:
        raise ValueError(f"--n must lie between 1 and {MAX_PICTURES}, got {n}")
    return ChatRequest(
        messages=messages,
        image_sampling=sampling,
        seed=checked_seed(seed),
        n=n,
        size=None if size is None else parse_size(size),
        route="image" if force else "auto",
    )


def parse_size(text: str) -> tuple[int, int]:
    """ "64x48" (width x height, as people write it) -> (48, 64), (height, width) as the library has it."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f"--size is WIDTHxHEIGHT in pixels, as in 64x64; got {text!r}")
    return int(height), int(width)


def check_size(artist: Artist | Order, size: tuple[int, int] | None) -> None:
    """Raises ValueError for a size that the model does not draw, in the words of the command line."""
    if size is not None and artist.sizes is not None and size not in artist.sizes:
        sizes = ", ".join(f"{width}x{height}" for height, width in artist.sizes)
        raise ValueError(f"{artist.model_name} draws no pictures of {size[1]}x{size[0]}; choose one of {sizes}")


def show_turn(artist: Artist, request: ChatRequest) -> TurnFinished:
    """Streams one turn to the terminal."""
    screen, last = Screen(Console(highlight=False)), None
    try:
        for event in artist.stream(request, previews=screen.console.is_terminal):
            screen.show(event)
            last = event
    finally:
        screen.close()
    assert isinstance(last, TurnFinished)
    return last


def draw_one(opened: Callable[[], Artist], template: ChatRequest, message: Message, out: Path | None) -> None:
    picture_paths(out, message.text, template.seed, template.n)  # a bad name shows before the model is loaded
    artist = opened()
    check_size(artist, template.size)
    turn = show_turn(artist, replace(template, messages=(message,)))
    pictures = turn.message.images
    if not pictures:
        raise typer.Exit(REFUSED)
    for path, part in zip(picture_paths(out, message.text, template.seed, len(pictures)), pictures, strict=True):
        typer.echo(f"saved {save_picture(path, part, message.text, artist)} (seed {part.seed})")


def draw_list(artist: Artist, prompts: list[str], template: ChatRequest, out: Path) -> None:
    check_size(artist, template.size)
    if out.suffix or out.is_file():
        raise ValueError(f"--out names the folder for the pictures of a file of wishes, got {out}")
    drawn = list(tqdm(draw_all(artist, prompts, template, out), total=len(prompts), unit="wish", file=sys.stderr))
    pictures, refused = sum(len(one.files) for one in drawn), [one for one in drawn if not one.files]
    for one in refused:
        typer.echo(f"line {one.number + 1}, {one.prompt!r}: {one.turn.message.text}")
    typer.echo(f"{pictures} pictures of {len(prompts)} wishes in {out} (seeds from {template.seed} on)")
    if refused:
        raise typer.Exit(REFUSED)
