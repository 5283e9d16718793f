"""Runs one turn and shows it: the place in the queue, the events as they come, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

import chainlit as cl

from chat_ui.conversation.visitor_conversation import Conversation, Turn
from chat_ui.history import recorder
from chat_ui.showing.notices import explanation, set_aside, waiting
from chat_ui.showing.page import Reply
from chat_ui.showing.picture_cards import Gallery
from chat_ui.showing.view import View, advance, reply, stop
from vargpt.chat.engine import ContextFullError
from vargpt.chat.scheduler import Scheduler, Ticket
from vargpt.types import ChatEvent

logger = logging.getLogger(__name__)

LOOK = 0.3  # seconds between two looks at the queue
START_ANEW = "Start a new conversation with the pencil at the top left."


async def answer(talk: Conversation, turn: Turn, gallery: Gallery, scheduler: Scheduler) -> None:
    """Runs one turn and shows it. However it ends, the page says how, and what was said is kept."""
    shown, view, num_set_aside = gallery.begin(talk, turn), View(), 0
    ticket = None
    try:
        await recorder.remember(talk, is_running=True)
        shown.is_first = len(talk.turns) == 1
        while True:
            try:
                view = View()
                talk.running = ticket = scheduler.submit(turn.request, client=cl.context.session.id)
                async with contextlib.aclosing(events(ticket, shown, scheduler)) as coming:
                    async for event in coming:
                        view = advance(view, event)
                        await shown.show(view)
                break
            except ContextFullError as error:
                await shown.remove()
                if not turn.set_aside_a_picture():
                    raise ValueError(f"{error}. {START_ANEW}") from error
                num_set_aside += 1
    except asyncio.CancelledError:  # the Stop button
        view = stop(view)
        await shown.show(view)
    except Exception as error:  # whatever it was, the visitor is told and the page lives on
        if not isinstance(error, ValueError):  # which are about what was asked
            logger.error("a turn of the page failed: %s", error, exc_info=error)
        view = stop(view, None)
        await shown.show(view)
        await cl.ErrorMessage(explanation(error)).send()
    finally:
        if ticket is not None:
            ticket.cancel()
        talk.running = None
        talk.finish(turn, reply(view))
        await shown.close()
        await recorder.remember(talk)
    await gallery.refresh(talk, below=shown.last_message_id)
    notes = [note for note in (set_aside(num_set_aside), view.note) if note]
    if notes:
        await cl.Message(content=f"*{' '.join(notes)}*").send()


async def events(ticket: Ticket, shown: Reply, scheduler: Scheduler) -> AsyncGenerator[ChatEvent, None]:
    """The events of a turn; until the first one comes, the page says what it waits for."""
    watching = asyncio.create_task(tell_what_it_waits_for(ticket, shown, scheduler))
    try:
        async for event in ticket:
            if not watching.done():
                await ended(watching)
            yield event
    finally:
        await ended(watching)


async def tell_what_it_waits_for(ticket: Ticket, shown: Reply, scheduler: Scheduler) -> None:
    """Runs until it is cancelled."""
    while True:
        await asyncio.sleep(LOOK)
        await shown.status(waiting(scheduler.engine is not None, ticket.position))


async def ended(task: asyncio.Task) -> None:
    """Cancels a task and waits until it is over."""
    task.cancel()
    await asyncio.wait({task})  # not `await task`: that could not tell the task's cancellation from our own
