"""What one visitor's session holds: the conversation, what is shown of it, and who may speak next.

Not in Chainlit's own dictionary of the session: that is emptied when a connection breaks, and written to the history.
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass, field

import chainlit as cl
from chainlit.session import BaseSession

from chat_ui.conversation.visitor_conversation import Conversation
from chat_ui.showing.picture_cards import Gallery

_turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()  # of open conversations, by id


def lock_of_thread() -> asyncio.Lock:
    """One for all browser tabs that show the same conversation."""
    return _turns.setdefault(cl.context.session.thread_id, asyncio.Lock())


@dataclass(eq=False)
class Visit:
    """See `conversation`, `gallery`, `one_turn`."""

    conversation: Conversation
    gallery: Gallery = field(default_factory=Gallery)
    one_turn: asyncio.Lock = field(default_factory=lock_of_thread)


_visits: weakref.WeakKeyDictionary[BaseSession, Visit] = weakref.WeakKeyDictionary()


def begin(talk: Conversation) -> None:
    """Makes this the conversation of this session."""
    _visits[cl.context.session] = Visit(talk)


def has_begun() -> bool:
    """Whether this session has a conversation."""
    return cl.context.session in _visits


def conversation() -> Conversation:
    """The conversation of this session."""
    return _visits[cl.context.session].conversation


def gallery() -> Gallery:
    """What is shown of the conversation."""
    return _visits[cl.context.session].gallery


def one_turn() -> asyncio.Lock:
    """Held by a turn until it is remembered; after Stop the page lets a visitor write earlier than that."""
    return _visits[cl.context.session].one_turn
