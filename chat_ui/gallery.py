"""All pictures of a conversation on the page: the cards of every reply, the row of versions, the sheet to mark a part.

In: the conversation after every change to it. Out: what of the page is sent anew: the marks on cards that lost or won
them, and the one row of versions, which stays below the last reply.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import chainlit as cl

from chat_ui.page import Reply
from chat_ui.render import data_url, shown_copy, shown_size, tree_props
from chat_ui.session import Conversation, Turn


class Gallery:
    """The visible side of one conversation."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self._row_id = str(uuid.uuid4())
        self._row_below: str | None = None  # id of the message
        self._has_row = False

    def begin(self, talk: Conversation, turn: Turn) -> Reply:
        """The reply of a turn that is about to run."""
        sources = [version.part.image for version in talk.tree.versions if version.id == turn.made_from]
        self.replies[turn.id] = Reply(turn, sources[0] if sources else None)
        return self.replies[turn.id]

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
        is_marked, can_undo = talk.marked is not None, talk.undone is not None
        props = await asyncio.to_thread(tree_props, talk.tree, talk.current, is_marked, can_undo)
        await self._send("Versions", self._row_id, self._row_below, props)

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
        await self._send("Region", f"{self._row_id}-region", self._below_all, props)

    @property
    def _below_all(self) -> str | None:
        """The message that holds the row, or else the last of a reply."""
        last = [shown.last_message_id for shown in self.replies.values() if shown.last_message_id]
        return self._row_below or (last[-1] if last else None)

    async def _send(self, name: str, element_id: str, below: str | None, props: dict[str, Any]) -> None:
        element = cl.CustomElement(name=name, props=props, display="inline", for_id=below, id=element_id)
        await cl.context.emitter.send_element(element.to_dict())


def is_worth_a_row(talk: Conversation) -> bool:
    """One drawn picture is its own row; two pictures, or an attached one, need one to be gone back to."""
    versions = talk.tree.versions
    is_attached = any(version.how == "attached" for version in versions)
    return len(versions) > 1 or is_attached or talk.marked is not None
