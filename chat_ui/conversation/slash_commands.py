"""What may be typed with a slash or chosen as a button, and what a message then means.

In: the words of a message and the button that was chosen. Out: a `Command` and the words that are left.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vargpt.types import Route


@dataclass(frozen=True)
class Offer:
    """One command as the page offers it; with `route` it asks the model, without it does something itself."""

    id: str
    description: str
    icon: str  # of lucide
    route: Route | None = None
    is_button: bool = False
    usage: str = ""


@dataclass(frozen=True)
class Command:
    """What a message asks for: `offer` is None for plain words."""

    offer: Offer | None
    words: str

    @property
    def name(self) -> str:
        return self.offer.id.lower() if self.offer else ""

    @property
    def route(self) -> Route:
        return self.offer.route if self.offer and self.offer.route else "auto"


OFFERS = (
    Offer("Draw", "The reply is a picture, whatever is said", "palette", "image", True, "/draw a fox at night"),
    Offer("Edit", "Change the current picture", "wand-sparkles", "image", True, "/edit make it sepia"),
    Offer("Ask", "The reply is words, no picture", "message-circle-question", "text", True, "/ask how many animals?"),
    Offer("Undo", "Back to the picture before the last one", "undo-2", usage="/undo"),
    Offer("Version", "Back to any picture, by its number", "git-branch", usage="/version 2"),
    Offer("LoRA", "Switch adapters: a name, off, or nothing to list them", "layers", usage="/lora off"),
    Offer("Help", "What can be typed", "circle-help", usage="/help"),
)
BY_NAME: Mapping[str, Offer] = {offer.id.lower(): offer for offer in OFFERS}
# A slash, a word, and then a space or the end; "/home/me/a.png" is no command but words.
TYPED = re.compile(r"/([A-Za-z][\w-]*)(?:\s+(.*))?", re.DOTALL)


def parse(words: str, chosen: str | None = None) -> Command:
    """The command of a message, and its words without it. What is typed goes before the button that is pressed.

    Raises:
        ValueError: words that begin like a command, but there is none of that name.
    """
    words = words.strip()
    typed = TYPED.fullmatch(words)
    if typed is None:
        return Command(BY_NAME.get((chosen or "").lower()), words)
    name = typed[1].lower()
    if name not in BY_NAME:
        near = difflib.get_close_matches(name, BY_NAME, n=1)
        meant = f" Did you mean /{near[0]}?" if near else ""
        known = ", ".join(f"/{known}" for known in BY_NAME)
        raise ValueError(f"There is no command /{typed[1]}.{meant} There are {known}.")
    return Command(BY_NAME[name], (typed[2] or "").strip())


def check(command: Command, has_files: bool, has_picture: bool) -> None:
    """Refuses a command that lacks what it needs.

    Args:
        command: what was asked for.
        has_files: pictures are attached to the message.
        has_picture: there is a picture in the conversation already.

    Raises:
        ValueError: no words, or no picture to change.
    """
    if command.offer is None or command.route == "auto":
        return
    if command.name == "edit" and not (has_files or has_picture):
        raise ValueError("There is no picture to change yet: draw one or attach one first.")
    if not command.words and not (has_files and command.name == "ask"):
        raise ValueError(f"Say what: for example {command.offer.usage}")


def version_number(words: str) -> int:
    """The number after /version.

    Raises:
        ValueError: it is none.
    """
    if not words.lstrip("#").isdecimal():
        raise ValueError(
            "Which version? Its number stands on the pictures below the last reply: for example /version 2"
        )
    return int(words.lstrip("#"))


def buttons(names_of_adapters: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The commands as Chainlit takes them; /lora only where there are adapters."""
    return [
        {"id": offer.id, "description": offer.description, "icon": offer.icon, "button": offer.is_button}
        for offer in OFFERS
        if offer.id != "LoRA" or names_of_adapters
    ]


def help_text() -> str:
    """All commands, as Markdown."""
    lines = [f"- `{offer.usage}`: {offer.description[0].lower()}{offer.description[1:]}" for offer in OFFERS]
    return "\n".join(["What you may type:", "", *lines])
