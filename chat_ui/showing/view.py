"""From chat events to what the page shows: pure functions on frozen values, without Chainlit.

In: events of one turn, one at a time (`advance`). Out: a `View` (bubbles of words with picture cards below) and, for
every card, the props of `public/elements/Picture.jsx`. Words after a picture open a new bubble. A card that did not
change is the same object in the next view, which is how the page knows what to send.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from chat_ui.conversation.version_tree import Tree, version_id
from chat_ui.conversation.visitor_conversation import scales_of
from vargpt.pictures.files import png_with_metadata
from vargpt.types import (
    ChatEvent,
    FinishReason,
    ImageFinished,
    ImagePart,
    ImagePreview,
    ImageStarted,
    Message,
    Part,
    TextDelta,
    TextPart,
    TurnFinished,
)

SHOWN = 512  # pixels: small pictures are enlarged by a whole factor to about this side
LARGEST_SHOWN = 1024
THUMBNAIL = 96
NOTES: dict[FinishReason, str] = {
    "stop": "",
    "cancelled": "Stopped.",
    "length": "The reply reached its longest allowed length and ends here.",
}


@dataclass(frozen=True, eq=False)
class Card:
    """One picture of a reply: forming (`image` is a preview), finished (`part`), or stopped on the way."""

    index: int
    size: tuple[int, int]  # (width, height) of the finished picture
    total: int  # scales
    step: int = 0  # scales done
    image: Image.Image | None = None
    part: ImagePart | None = None
    is_stopped: bool = False

    @property
    def state(self) -> str:
        return "done" if self.part else "stopped" if self.is_stopped else "drawing"


@dataclass(frozen=True, eq=False)
class Bubble:
    words: str = ""
    cards: tuple[Card, ...] = ()


@dataclass(frozen=True, eq=False)
class View:
    """All that is shown of one turn; `reason` is set when it is over."""

    bubbles: tuple[Bubble, ...] = ()
    reason: FinishReason | None = None

    @property
    def note(self) -> str:
        """One sentence on how the turn ended; empty if it simply ended, or if a stopped picture says so already."""
        if self.reason is None or any(card.is_stopped for card in cards(self)):
            return ""
        return NOTES[self.reason]


def advance(view: View, event: ChatEvent) -> View:
    """The view after one more event."""
    match event:
        case TextDelta(text):
            return _say(view, text)
        case ImageStarted(index, layout):
            return _put(view, Card(index, (layout.width, layout.height), layout.num_scales))
        case ImagePreview(index, image, step, total):
            card = _card(view, index) or Card(index, image.size, total)
            return _put(view, replace(card, image=image, step=step, total=total))
        case ImageFinished(index, part):
            card = _card(view, index) or Card(index, part.image.size, 1)
            return _put(view, replace(card, image=part.image, part=part, step=card.total))
        case TurnFinished():
            return stop(view, event.reason)


def stop(view: View, reason: FinishReason | None = "cancelled") -> View:
    """The turn is over (None: by an error); pictures that are not finished stay as they are."""
    stopped = _each_card(view, lambda card: card if card.part else replace(card, is_stopped=True))
    return replace(stopped, reason=reason)


def rechosen(view: View, message: Message) -> View:
    """The view of a finished turn after another one of its pictures was chosen; `message` is its reply since then."""
    parts = iter(message.images)
    return _each_card(view, lambda card: replace(card, part=next(parts)) if card.part else card)


def reply(view: View) -> Message | None:
    """What has been said and finished so far as the assistant's message; None if that is nothing."""
    parts: list[Part] = []
    for bubble in view.bubbles:
        parts += [TextPart(bubble.words)] if bubble.words.strip() else []
        parts += [card.part for card in bubble.cards if card.part]
    return Message("assistant", tuple(parts)) if parts else None


def cards(view: View) -> tuple[Card, ...]:
    return tuple(card for bubble in view.bubbles for card in bubble.cards)


def caption(card: Card) -> str:
    """The line below a picture: a counter while it forms, its size and seed when it is done."""
    if card.part:
        width, height = card.part.image.size
        seed = "" if card.part.seed is None else f" · seed {card.part.seed}"
        return f"{width} × {height}{seed}"
    if card.is_stopped:
        return f"stopped after scale {card.step} of {card.total}" if card.step else "stopped before the first scale"
    return f"scale {card.step} of {card.total}"


def props(
    card: Card,
    prompt: str,
    turn_id: str,
    num_cards: int = 1,
    is_current: bool = False,
    before: Image.Image | None = None,
) -> dict[str, Any]:
    """Everything Picture.jsx needs, as JSON: a copy to look at, and of a finished picture the original file.

    Args:
        card: the picture.
        prompt: what was asked for.
        turn_id: of the turn that draws it.
        num_cards: pictures of the same reply.
        is_current: the next change starts from this picture.
        before: the picture that it was made from, to be compared with.
    """
    width, height = shown_size(*card.size)
    values: dict[str, Any] = {
        "state": card.state,
        "caption": caption(card),
        "alt": prompt,
        "src": data_url(shown_copy(card.image), "image/jpeg") if card.image else None,
        "width": width,
        "height": height,
        "step": card.step,
        "total": card.total,
        "turn": turn_id,
        "index": card.index,
        "of": num_cards,
    }
    if card.part:
        values["role"] = role(card.part, num_cards)
        values["version"] = version_id(turn_id, card.index)
        values["current"] = is_current
        values["scales"] = scales_of(card.part)
        values["recipe"] = recipe(prompt, card.part.seed)
        values["file"] = file_name(prompt, card.part.seed, card.index)
        values["png"] = data_url(original(card.part, prompt), "image/png")
        values["before"] = data_url(shown_copy(before), "image/jpeg") if before else None
    return values


def role(part: ImagePart, num_cards: int) -> str:
    """Whether later turns see a picture: the "only" one, "chosen" among several, or an "alternative"."""
    if num_cards == 1:
        return "only"
    return "alternative" if part.settings.get("alternative", 0) else "chosen"


def card_again(values: Mapping[str, Any], parts: Sequence[ImagePart]) -> Card:
    """The card of these `props`: their inverse.

    Args:
        values: the props, as the history has kept them.
        parts: the pictures of the reply; one that is lost leaves a card as if it had been stopped.
    """
    index, step, total = values["index"], values["step"], values["total"]
    if values["state"] != "done" or index >= len(parts):
        return Card(index, (values["width"], values["height"]), total, step, is_stopped=True)
    part = parts[index]
    return Card(index, part.image.size, total, step, part.image, part)


def thumbnail(image: Image.Image) -> str:
    """A small copy as a data URL, for the row of versions."""
    copy = image.convert("RGB")
    copy.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    copy.save(buffer, format="JPEG", quality=85)
    return data_url(buffer.getvalue(), "image/jpeg")


def tree_props(tree: Tree, current: str | None, is_marked: bool = False, can_undo: bool = True) -> dict[str, Any]:
    """Everything Versions.jsx needs, as JSON: every picture with its place, number and parent's place.

    Args:
        tree: the pictures.
        current: id of the one that the next change starts from.
        is_marked: only a marked part of it will change.
        can_undo: there is a picture before it.
    """
    places = tree.places()
    versions = [
        {
            "id": version.id,
            "number": number,
            "src": thumbnail(version.part.image),
            "words": version.words,
            "how": version.how,
            "place": places[version.id],
            "from": places[version.parent] if version.parent else None,
            "current": version.id == current,
        }
        for number, version in enumerate(tree.versions, 1)
    ]
    return {"versions": versions, "marked": is_marked, "canUndo": can_undo}


def recipe(prompt: str, seed: int | None) -> str:
    """What is copied to draw a picture again: the words and the seed."""
    return prompt if seed is None else f"{prompt}\nseed {seed}"


def shown_size(width: int, height: int) -> tuple[int, int]:
    """The size at which a picture is shown: small ones times a whole number, huge ones reduced."""
    longest = max(width, height)
    if longest > LARGEST_SHOWN:
        return max(1, width * LARGEST_SHOWN // longest), max(1, height * LARGEST_SHOWN // longest)
    factor = max(1, SHOWN // longest)
    return width * factor, height * factor


def shown_copy(image: Image.Image) -> bytes:
    """A JPEG to look at; the download is the original."""
    size = shown_size(*image.size)
    buffer = io.BytesIO()
    copy = image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
    copy.save(buffer, format="JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def original(part: ImagePart, prompt: str) -> bytes:
    """The PNG that is downloaded, with the words, the seed and the settings it was made from."""
    details = {"prompt": prompt, "seed": part.seed, "settings": part.settings or None, "software": "vargpt"}
    return png_with_metadata(part.image, details)


def data_url(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def file_name(prompt: str, seed: int | None, index: int = 0) -> str:
    """ "draw a fox!", 7 -> "draw-a-fox-7.png": letters of the prompt that every file system takes."""
    stem = re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:60].strip("-") or "picture"
    return f"{stem}-{seed}.png" if seed is not None else f"{stem}-{index + 1}.png"


def _say(view: View, text: str) -> View:
    """Words go on in the last bubble, or in a new one when that has pictures already."""
    if view.bubbles and not view.bubbles[-1].cards:
        last = view.bubbles[-1]
        return replace(view, bubbles=(*view.bubbles[:-1], replace(last, words=last.words + text)))
    return replace(view, bubbles=(*view.bubbles, Bubble(text)))


def _card(view: View, index: int) -> Card | None:
    return next((card for card in cards(view) if card.index == index), None)


def _put(view: View, card: Card) -> View:
    """Replaces the card of the same index, or adds it to the last bubble."""
    if _card(view, card.index) is None:
        *before, last = view.bubbles or (Bubble(),)
        return replace(view, bubbles=(*before, replace(last, cards=(*last.cards, card))))
    return _each_card(view, lambda old: card if old.index == card.index else old)


def _each_card(view: View, change: Callable[[Card], Card]) -> View:
    bubbles = tuple(replace(bubble, cards=tuple(map(change, bubble.cards))) for bubble in view.bubbles)
    return replace(view, bubbles=bubbles)
