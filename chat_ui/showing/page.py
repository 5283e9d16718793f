"""Shows a `View` in Chainlit: one message per bubble, one Picture element per card, and only what has changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import chainlit as cl
from PIL import Image

from chat_ui.conversation.version_tree import version_id
from chat_ui.conversation.visitor_conversation import Turn
from chat_ui.history import recorder
from chat_ui.showing.view import Bubble, Card, View, card_again, cards, props, rechosen

PACE = 0.08  # seconds that every preview stays; a small model is otherwise done before the first one is painted
FIRST_PACE = 1.0  # the first one of a conversation: until then the browser has only begun to load what shows it


class Reply:
    """The visible side of one turn. `show` takes every new view and sends what differs from the last.

    Args:
        turn: the turn.
        before: the picture that its pictures are made from, if any.
    """

    def __init__(self, turn: Turn, before: Image.Image | None = None) -> None:
        self._turn = turn
        self._before = before
        self._messages: list[cl.Message] = []
        self._elements: dict[int, cl.CustomElement] = {}
        self._shown = View()
        self._status: cl.Message | None = None
        self._drawn_at: dict[int, float] = {}
        self.is_first = False  # of its conversation
        self._num_drawn = 0
        self._current: str | None = None

    @classmethod
    def from_history(
        cls,
        turn: Turn,
        kept: Sequence[tuple[cl.Message, Sequence[cl.CustomElement]]],
        current: str | None,
        before: Image.Image | None = None,
    ) -> Reply:
        """A finished reply that was shown before the page was opened again.

        Args:
            turn: the turn.
            kept: its messages that have pictures, each with the cards below it.
            current: id of the picture that the next change starts from, as the cards say.
            before: the picture that its pictures are made from, if any.
        """
        shown = cls(turn, before)
        parts = turn.reply.images if turn.reply else ()
        shown._messages = [message for message, _ in kept]
        shown._elements = {element.props["index"]: element for _, elements in kept for element in elements}
        shown._shown = View(
            tuple(
                Bubble(message.content, tuple(card_again(element.props, parts) for element in elements))
                for message, elements in kept
            )
        )
        shown._current = current
        return shown

    async def status(self, words: str) -> None:
        """A line that stands in for the reply until there is one; none if it is empty."""
        if not words:
            await self._clear_status()
        elif self._status is None:
            self._status = cl.Message(content=f"*{words}*", metadata={recorder.PASSING: True})
            await self._status.send()
        elif self._status.content != f"*{words}*":
            self._status.content = f"*{words}*"
            await self._status.update()

    async def show(self, view: View) -> None:
        """Brings the page from the last view to this one."""
        await self._clear_status()
        for index, bubble in enumerate(view.bubbles):
            old = self._shown.bubbles[index] if index < len(self._shown.bubbles) else Bubble()
            if bubble is old and index < len(self._messages):
                continue
            message = await self._message(index)
            if bubble.words != old.words:
                await message.stream_token(bubble.words[len(old.words) :])
            if bubble.cards and message.streaming:
                await message.update()
            for card in bubble.cards:
                if card not in old.cards:
                    await self._draw(message, card, len(cards(view)))
        self._shown = view

    async def settle(self, current: str | None) -> None:
        """Brings the finished cards up to date after the conversation went on elsewhere, or from another of them.

        Args:
            current: id of the picture that the next change starts from.
        """
        old, self._current, past = self._shown, current, self._current
        if self._turn.reply and len(self._turn.reply.images) == sum(card.part is not None for card in cards(old)):
            self._shown = rechosen(old, self._turn.reply)
        was = {card.index: card.part for card in cards(old)}
        for index, bubble in enumerate(self._shown.bubbles):
            for card in bubble.cards:
                is_touched = version_id(self._turn.id, card.index) in {past, current} and past != current
                if card.part and (is_touched or card.part is not was[card.index]):
                    await self._draw(self._messages[index], card, len(was))

    async def resend(self) -> None:
        """Shows all of it once more, in its place."""
        for message in self._messages:
            await cl.context.emitter.send_step(message.to_dict())
        for element in self._elements.values():
            await cl.context.emitter.send_element(element.to_dict())

    @property
    def last_message_id(self) -> str | None:
        return self._messages[-1].id if self._messages else None

    async def close(self) -> None:
        """Ends streaming; to be called however the turn ended."""
        await self._clear_status()
        for message in self._messages:
            if message.streaming:
                await message.update()

    async def remove(self) -> None:
        """Takes back all that was shown."""
        await self._clear_status()
        for message in self._messages:
            await message.remove()
        self._messages, self._elements, self._shown = [], {}, View()

    async def _clear_status(self) -> None:
        if self._status is not None:
            status, self._status = self._status, None
            await status.remove()

    async def _message(self, index: int) -> cl.Message:
        while len(self._messages) <= index:
            self._messages.append(await cl.Message(content="").send())
        return self._messages[index]

    async def _draw(self, message: cl.Message, card: Card, num_cards: int) -> None:
        is_current = version_id(self._turn.id, card.index) == self._current
        words, before = self._turn.prompt.text, self._before
        values = await asyncio.to_thread(props, card, words, self._turn.id, num_cards, is_current, before)
        element = self._elements.get(card.index)
        if element is None:
            element = cl.CustomElement(name="Picture", props=values, display="inline", for_id=message.id)
            self._elements[card.index] = element
        element.props = values
        if card.index in self._drawn_at:
            pace = FIRST_PACE if self.is_first and self._num_drawn == 1 else PACE
            await asyncio.sleep(self._drawn_at[card.index] + pace - time.monotonic())
        self._num_drawn += 1
        self._drawn_at[card.index] = time.monotonic()
        # Not element.send(): that writes the props to a file each time, and a preview is not worth one.
        await cl.context.emitter.send_element(element.to_dict())
        if card.state != "drawing":
            await recorder.keep(element)
