"""What the commands that draw do between the command line and a model: values checked, turns shown, pictures saved."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import typer
from PIL import Image
from rich.console import Console
from tqdm import tqdm

from vargpt.chat.painter import Order
from vargpt.chat.requests import MAX_PICTURES
from vargpt.commands.terminal import Screen
from vargpt.pictures.album import draw_all, picture_paths, save_picture
from vargpt.pictures.files import open_picture
from vargpt.pictures.region import box_mask, check_mask
from vargpt.sampling import new_seed, parse_seed
from vargpt.types import Artist, ChatRequest, ImagePart, ImageSampling, Message, TurnFinished

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


def editing(template: ChatRequest, picture: Image.Image, region: str | None, faithfulness: float) -> ChatRequest:
    """The template with what an edit is held to.

    Raises:
        FileNotFoundError: the mask is not there.
        ValueError: faithfulness or region cannot be.
    """
    if not 0 <= faithfulness <= 1:
        raise ValueError(f"--faithfulness must lie between 0 and 1, got {faithfulness}")
    mask = None if region is None else parse_region(region, picture.size)
    if mask is not None:
        check_mask(mask, picture)
    return replace(template, region=mask, faithfulness=faithfulness)


def parse_region(text: str, size: tuple[int, int]) -> Image.Image:
    """ "8,16,32,24" (x, y, width, height on a picture of (width, height) pixels), or the path of a mask, as a mask."""
    numbers = text.replace(" ", "").split(",")
    if len(numbers) == 4 and all(number.isdecimal() for number in numbers):
        x, y, width, height = map(int, numbers)
        return box_mask(size, (x, y, x + width, y + height))
    path = Path(text).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"--region is the file of a mask, or x,y,w,h in pixels as in 8,16,32,24; got {text!r}")
    grey = open_picture(path).convert("L")
    with Image.open(path) as mask:  # what is transparent is no part of a mask
        return mask.convert("RGBA") if mask.has_transparency_data else grey


def refining(template: ChatRequest, prompt: str | None, path: Path | None, keep_scales: int) -> ChatRequest:
    """The template with the picture whose coarse scales stay.

    Raises:
        FileNotFoundError: there is no such picture.
        ValueError: wish, picture or number of scales cannot be.
    """
    if prompt is None or path is None or keep_scales < 0:
        raise ValueError(
            "to refine a picture, say what it shows, which it is, and how many of its scales stay, as in: "
            "vargpt draw 'a red car' --from car.png --keep-scales 3"
        )
    return replace(template, given=ImagePart(open_picture(path)), keep_scales=keep_scales)


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
    if template.keep_scales:  # a file holds pixels alone
        typer.echo(f"the {template.keep_scales} scales that were kept were read off the pixels of the picture given")


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
