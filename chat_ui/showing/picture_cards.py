"""All pictures of a conversation on the page: the cards of every reply, the row of versions, the sheet to mark a part.

In: the conversation after every change to it. Out: what of the page is sent anew: the marks on cards that lost or won
them, and the one row of versions, which stays below the last reply.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import chainlit as cl
from chainlit.element import ElementDict
from chainlit.types import ThreadDict
from PIL import Image

from chat_ui.conversation.visitor_conversation import Conversation, Turn
from chat_ui.showing.page import Reply
from chat_ui.showing.view import data_url, role, shown_copy, shown_size, tree_props


class Gallery:
    """The visible side of one conversation."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self._row_id = str(uuid.uuid4())
        self._row_below: str | None = None  # id of the message
        self._has_row = False

    def begin(self, talk: Conversation, turn: Turn) -> Reply:
        """The reply of a turn that is about to run."""
        self.replies[turn.id] = Reply(turn, source_of(talk, turn))
        return self.replies[turn.id]

    def resume(self, talk: Conversation, thread: ThreadDict) -> None:
        """Knows from now on what a conversation that is opened again shows, and puts marks and row into `thread`."""
        elements = thread["elements"] or []
        pictures = sorted(filter(is_card, elements), key=lambda element: element["props"]["index"])
        others = [element for element in elements if not is_card(element)]
        for props in (element["props"] for element in pictures):
            props["current"] = props.get("version", "") == talk.current
        for turn in talk.turns.values():
            cards = [element for element in pictures if element["props"]["turn"] == turn.id]
            tell_roles(cards, turn)
            if cards and turn.id not in self.replies:
                kept = kept_of(thread, cards)
                self.replies[turn.id] = Reply.from_history(turn, kept, talk.current, source_of(talk, turn))
        replies = [step["id"] for step in thread["steps"] if step["type"] == "assistant_message"]
        self._row_below = replies[-1] if replies else None
        row = [self._row(talk)] if replies and is_worth_a_row(talk) else []
        thread["elements"] = [*others, *pictures, *row]

    async def refresh(self, talk: Conversation, below: str | None = None) -> None:
        """Brings marks and row up to date.

        Args:
            talk: the conversation.
            below: id of the message that the row moves below; None = where it is, or below the last reply.
        """
        self.replies = {turn_id: shown for turn_id, shown in self.replies.items() if turn_id in talk.turns}
        for shown in self.replies.values():
            await shown.settle(talk.current)
        self._row_below = below or self._below_all
        self._has_row = self._has_row or is_worth_a_row(talk)
        if self._row_below is None or not self._has_row:
            return
        await cl.context.emitter.send_element(await asyncio.to_thread(self._row, talk))

    async def resend(self, talk: Conversation) -> None:
        """Shows everything once more: what is sent while a connection is broken never arrives."""
        for shown in self.replies.values():
            await shown.resend()
        if self.replies:
            await self.refresh(talk)

    async def open_region(self, talk: Conversation, version: str) -> None:
        """Opens the sheet on which a part of a picture is marked.

        Raises:
            ValueError: no such picture.
        """
        found = talk.tree.find(version)
        width, height = shown_size(*found.part.image.size)
        source = data_url(await asyncio.to_thread(shown_copy, found.part.image), "image/jpeg")
        props = {"version": version, "src": source, "width": width, "height": height, "sheet": uuid.uuid4().hex}
        props["number"] = talk.tree.number(version)
        sheet = custom("Region", f"{self._row_id}-region", self._below_all, props)
        await cl.context.emitter.send_element(sheet)

    @property
    def _below_all(self) -> str | None:
        """The message that holds the row, or else the last of a reply."""
        last = [shown.last_message_id for shown in self.replies.values() if shown.last_message_id]
        return self._row_below or (last[-1] if last else None)

    def _row(self, talk: Conversation) -> ElementDict:
        is_marked, can_undo = talk.marked is not None, talk.undone is not None
        props = tree_props(talk.tree, talk.current, is_marked, can_undo)
        return custom("Versions", self._row_id, self._row_below, props)


def custom(name: str, element_id: str, below: str | None, props: dict[str, Any]) -> ElementDict:
    """One of `public/elements` as Chainlit sends it to the browser."""
    return cl.CustomElement(name=name, props=props, display="inline", for_id=below, id=element_id).to_dict()


def is_card(element: ElementDict) -> bool:
    """Whether this is the card of a picture of a reply."""
    return element.get("name") == "Picture" and "index" in (element.get("props") or {})


def source_of(talk: Conversation, turn: Turn) -> Image.Image | None:
    """The picture that those of a turn's reply are made from."""
    return next((version.part.image for version in talk.tree.versions if version.id == turn.made_from), None)


def tell_roles(cards: Sequence[ElementDict], turn: Turn) -> None:
    """Lets the kept cards of one reply say which of them is chosen now."""
    parts = turn.reply.images if turn.reply else ()
    for props in (card["props"] for card in cards):
        if "version" in props and props["index"] < len(parts):
            props["role"] = role(parts[props["index"]], len(cards))


def kept_of(thread: ThreadDict, cards: Sequence[ElementDict]) -> list[tuple[cl.Message, list[cl.CustomElement]]]:
    """The messages of these cards, each with its own."""
    kept = []
    for step in thread["steps"]:
        below = [card for card in cards if card.get("forId") == step["id"]]
        elements = [
            cl.CustomElement(id=card["id"], name="Picture", props=card["props"], display="inline", for_id=step["id"])
            for card in below
        ]
        if elements:
            kept.append((cl.Message.from_dict(step), elements))
    return kept


def is_worth_a_row(talk: Conversation) -> bool:
    """One drawn picture is its own row; two pictures, or an attached one, need one to be gone back to."""
    versions = talk.tree.versions
    is_attached = any(version.how == "attached" for version in versions)
    return len(versions) > 1 or is_attached or talk.marked is not None
