"""`vargpt draw` and `vargpt edit`: one request or a list of them, from the command line to saved pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vargpt.commands import opening
from vargpt.commands.options import (
    AdapterOption,
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
)

if TYPE_CHECKING:
    from PIL import Image

    from vargpt.chat.painter import Order
    from vargpt.types import Artist, ChatRequest, ImageSampling, Message

REFUSED = 1  # exit code: the model answered in words only


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
    options = opening.loading(device, dtype, quantize, offload, adapter)
    if prompt is None:
        draw_list(opening.open_artist(order, options), prompts, template, out or Path("vargpt-pictures"))
    else:
        draw_one(lambda: opening.open_artist(order, options), template, Message.of("user", prompt), out)


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
    from vargpt.loading.models import OUTLINE
    from vargpt.pictures.files import open_picture
    from vargpt.published.families import default_sampling, resolve_model
    from vargpt.sampling import changed_sampling
    from vargpt.types import Message

    default = default_sampling(resolve_model(model, OUTLINE))
    sampling = changed_sampling(default, guidance, temperature, top_p)
    template = drawing_request((), seed, n, size, sampling, force)
    options = opening.loading(device, dtype, quantize, offload, adapter)
    picture = open_picture(image)
    template = editing(template, picture, region, faithfulness)
    draw_one(lambda: opening.open_engine(model, options), template, Message.of("user", picture, instruction), out)


def checked_seed(seed: int | None) -> int:
    from vargpt.sampling import new_seed, parse_seed

    return new_seed() if seed is None else parse_seed(str(seed))


def drawing_request(
    messages: tuple[Message, ...], seed: int | None, n: int, size: str | None, sampling: ImageSampling, force: bool
) -> ChatRequest:
    """A request from command-line values.

    Raises:
        ValueError: seed, count or size cannot be.
    """
    from vargpt.chat.requests import MAX_PICTURES
    from vargpt.types import ChatRequest

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
    from vargpt.pictures.region import check_mask

    if not 0 <= faithfulness <= 1:
        raise ValueError(f"--faithfulness must lie between 0 and 1, got {faithfulness}")
    mask = None if region is None else parse_region(region, picture.size)
    if mask is not None:
        check_mask(mask, picture)
    return replace(template, region=mask, faithfulness=faithfulness)


def parse_region(text: str, size: tuple[int, int]) -> Image.Image:
    """ "8,16,32,24" (x, y, width, height on a picture of (width, height) pixels), or the path of a mask, as a mask."""
    from PIL import Image

    from vargpt.pictures.files import open_picture
    from vargpt.pictures.region import box_mask

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
    from vargpt.pictures.files import open_picture
    from vargpt.types import ImagePart

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


def draw_one(opened: Callable[[], Artist], template: ChatRequest, message: Message, out: Path | None) -> None:
    from vargpt.commands.terminal import show_turn
    from vargpt.pictures.album import picture_paths, save_picture

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
    from tqdm import tqdm

    from vargpt.pictures.album import draw_all

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
