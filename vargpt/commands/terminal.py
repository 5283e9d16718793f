"""A conversation in a terminal: text as it comes, pictures as coloured half blocks that sharpen in place.

In: typed lines and chat events. Out: a rich console, and the pictures as PNG files.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.text import Text

from vargpt.chat.engine import ChatEngine
from vargpt.chat.streaming import MessageBuilder
from vargpt.pictures.album import file_stem, save_picture
from vargpt.pictures.files import open_picture
from vargpt.sampling import new_seed, parse_seed
from vargpt.types import (
    Artist,
    ChatEvent,
    ChatRequest,
    ImageFinished,
    ImagePart,
    ImagePreview,
    ImageStarted,
    Message,
    TextDelta,
    TurnFinished,
)

HELP = """/image PATH   attach a picture to your next message
/save PATH    save the last picture under a name of your choice
/seed N       draw with this seed from now on; /seed alone: a new one each time
/adapter NAME draw with this adapter; /adapter off: with none; /adapter alone: list them
/new          start a new conversation
/quit         leave (so does Ctrl-D); Ctrl-C stops a reply"""
PROMPT = "> "
UPPER_HALF = "▀"


def half_blocks(image: Image.Image, max_columns: int, max_rows: int) -> Text:
    """A picture as text: one character is two pixels, one above the other; shrunk to fit, never enlarged."""
    scale = min(1.0, max_columns / image.width, 2 * max_rows / image.height)
    width, height = max(1, round(image.width * scale)), max(2, round(image.height * scale / 2) * 2)
    pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BOX))
    text = Text(no_wrap=True, end="")
    for upper, lower in zip(pixels[0::2], pixels[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append(UPPER_HALF, f"rgb({','.join(map(str, above))}) on rgb({','.join(map(str, below))})")
        text.append("\n")
    return text


def harmless(text: str) -> str:
    """Text without control characters: what a model says must not steer the terminal."""
    return "".join(character for character in text if character in "\n\t" or unicodedata.category(character) != "Cc")


class Screen:
    """Shows the events of one turn. Pictures that form together stand side by side, in a terminal only."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._canvases: dict[int, Image.Image | None] = {}
        self._unfinished: set[int] = set()
        self._in_line = False

    def show(self, event: ChatEvent) -> None:
        if isinstance(event, TextDelta):
            self.console.print(harmless(event.text), end="", markup=False, highlight=False, soft_wrap=True)
            self._in_line = not event.text.endswith("\n")
        elif isinstance(event, ImageStarted):
            self._start(event.index)
        elif isinstance(event, ImagePreview):
            self._canvases[event.index] = event.image
            self._refresh()
        elif isinstance(event, ImageFinished):
            self._canvases[event.index] = event.part.image
            self._unfinished.discard(event.index)
            self._refresh()
            if not self._unfinished:
                self.close()
        else:
            self.close()

    def line(self, text: str, style: str = "dim") -> None:
        """One line of our own, on a line of its own."""
        self.close()
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Ends the line and the animation; safe to call again."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._canvases.clear()
            self._unfinished.clear()
        if self._in_line:
            self.console.print()
            self._in_line = False

    def _start(self, index: int) -> None:
        if self._in_line:
            self.console.print()
            self._in_line = False
        self._canvases[index] = None
        self._unfinished.add(index)
        if self._live is None and self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, vertical_overflow="crop")
            self._live.start()

    def _refresh(self) -> None:
        if self._live is None:
            return
        shown = [image for image in self._canvases.values() if image is not None]
        columns = math.ceil(math.sqrt(len(self._canvases)))  # about as many across as down
        rows = math.ceil(len(self._canvases) / columns)
        width, height = self.console.width // columns - 2, (self.console.height - 2) // rows - 1
        blocks = [half_blocks(image, max(1, width), max(1, height)) for image in shown]
        self._live.update(Columns(blocks, padding=(0, 2)) if len(blocks) > 1 else blocks[0], refresh=True)


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


class TerminalChat:
    """One person's conversation with an engine.

    Args:
        engine: what answers.
        console: where it is shown.
        out: folder in which every drawn picture is kept.
        template: settings of every turn (seed and messages are filled in).
        seed: of the pictures; None = a new one each turn.
    """

    def __init__(
        self, engine: ChatEngine, console: Console, out: Path, template: ChatRequest, seed: int | None = None
    ) -> None:
        self.engine, self.console, self.out, self.template, self.seed = engine, console, out, template, seed
        self.screen = Screen(console)
        self.messages: tuple[Message, ...] = ()
        self.attached: list[ImagePart] = []
        self.last: tuple[ImagePart, str] | None = None

    def run(self, lines: Iterator[str] | None = None) -> None:
        """Talks until /quit or the end of the input; `lines` stand in for a person."""
        self.screen.line(f"{self.engine.model_name} on {self.engine.device}. Ask for a picture; /help lists commands.")
        read: Callable[[], str] = (lambda: next(lines)) if lines is not None else (lambda: self.console.input(PROMPT))
        while True:
            try:
                line = read().strip()
            except (EOFError, StopIteration):
                return
            except KeyboardInterrupt:
                self.screen.line("Ctrl-D or /quit leaves.")
                continue
            if line == "/quit":
                return
            if line or self.attached:
                self.answer(line)

    def answer(self, line: str) -> None:
        """A command, or a message with the attached pictures; what goes wrong is said, never raised."""
        try:
            if line.startswith("/"):
                name, _, argument = line.partition(" ")
                self._command(name, argument.strip())
            else:
                self._say(line)
        except (ValueError, OSError) as error:
            self.screen.line(str(error), style="red")

    def _command(self, name: str, argument: str) -> None:
        if name == "/image":
            self.attached.append(ImagePart(open_picture(argument.strip("'\""))))
            self.screen.line(f"{argument} goes with your next message.")
        elif name == "/save":
            self._save(argument)
        elif name == "/seed":
            self.seed = None if not argument else parse_seed(argument)
            self.screen.line("a new seed each time" if self.seed is None else f"seed {self.seed} from now on")
        elif name == "/adapter":
            self._adapt(argument)
        elif name == "/new":
            self.messages, self.attached, self.last = (), [], None
            self.screen.line("A new conversation.")
        elif name == "/help":
            self.screen.line(HELP)
        else:
            raise ValueError(f"there is no command {name}; /help lists them")

    def _adapt(self, argument: str) -> None:
        adapters = self.engine.adapters
        if argument:
            chosen = () if argument == "off" else adapters.chosen(argument)
            self.template = replace(self.template, adapter=chosen)
        on = adapters.chosen(self.template.adapter)
        there = ", ".join(f"{name} (on)" if name in on else name for name in adapters.names)
        self.screen.line(f"adapters: {there}" if there else "no adapter is loaded; start with --adapter FOLDER")

    def _save(self, argument: str) -> None:
        if self.last is None:
            raise ValueError("there is no picture to save yet")
        if not argument:
            raise ValueError("/save needs a name, as in: /save fox.png")
        path = Path(argument).expanduser()
        part, prompt = self.last
        path = path if path.suffix.lower() == ".png" else path.with_name(f"{path.name}.png")
        self.screen.line(f"saved {save_picture(path, part, prompt, self.engine)}")

    def _say(self, line: str) -> None:
        prompt = Message.of("user", *self.attached, line)
        seed = new_seed() if self.seed is None else self.seed
        request = replace(self.template, messages=(*self.messages, prompt), seed=seed)
        builder, reason = MessageBuilder(), "stop"
        try:
            for event in self.engine.stream(request, previews=self.console.is_terminal):
                builder.add(event)
                self.screen.show(event)
                if isinstance(event, ImageFinished):
                    self.last = (event.part, prompt.text)
                elif isinstance(event, TurnFinished):
                    reason = event.reason
        except KeyboardInterrupt:
            reason = "cancelled"
        finally:
            self.screen.close()
        reply = builder.message()
        for path in self._keep(reply, prompt.text):
            self.screen.line(f"saved {path}")
        if reason != "stop":
            self.screen.line("stopped" if reason == "cancelled" else "the longest allowed reply ends here")
        if reply.parts:
            self.messages, self.attached = (*request.messages, reply), []

    def _keep(self, reply: Message, prompt: str) -> Iterator[Path]:
        for part in reply.images:
            name = f"{file_stem(prompt)}-{part.seed}"
            path, again = self.out / f"{name}.png", 1
            while path.exists():
                again += 1
                path = self.out / f"{name}-{again}.png"
            yield save_picture(path, part, prompt, self.engine)
