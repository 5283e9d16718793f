"""Shows a `View` in Chainlit: one message per bubble, one Picture element per card, and only what has changed."""

from __future__ import annotations

import asyncio
import time

import chainlit as cl

from chat_ui import memory
from chat_ui.render import Bubble, Card, View, cards, props
from chat_ui.session import Turn

PACE = 0.08  # seconds that every preview stays; a small model is otherwise done before the first one is painted


class Reply:
    """The visible side of one turn. `show` takes every new view and sends what differs from the last."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._messages: list[cl.Message] = []
        self._elements: dict[int, cl.CustomElement] = {}
        self._shown = View()
        self._status: cl.Message | None = None
        self._drawn_at: dict[int, float] = {}

    async def status(self, words: str) -> None:
        """A line that stands in for the reply until there is one."""
        self._status = await cl.Message(content=f"*{words}*").send()

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

    @property
    def view(self) -> View:
        return self._shown

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
        values = await asyncio.to_thread(props, card, self._turn.prompt.text, self._turn.id, num_cards)
        element = self._elements.get(card.index)
        if element is None:
            element = cl.CustomElement(name="Picture", props=values, display="inline", for_id=message.id)
            self._elements[card.index] = element
        element.props = values
        if card.index in self._drawn_at:
            await asyncio.sleep(self._drawn_at[card.index] + PACE - time.monotonic())
        self._drawn_at[card.index] = time.monotonic()
        # Not element.send(): that writes the props to a file each time, and a preview is not worth one.
        await cl.context.emitter.send_element(element.to_dict())
        if card.state != "drawing":
            await memory.keep(element)
