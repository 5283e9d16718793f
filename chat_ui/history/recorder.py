"""What the page's hooks call to save and load: the open conversation, its picture cards, its votes.

`install` puts the store, logins and pictures into Chainlit. All else is about the conversation that is open.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import chainlit as cl
from chainlit.data import get_data_layer
from chainlit.element import Element
from chainlit.types import ThreadDict

from chat_ui.access import logins
from chat_ui.conversation.visitor_conversation import Conversation
from chat_ui.data_folder import data_folder, private_folder, signing_secret
from chat_ui.history.ballots import ballot_of
from chat_ui.history.chainlit_store import Store
from chat_ui.history.picture_files import serve_pictures
from chat_ui.history.saved_conversations import LoadedConversation
from chat_ui.history.schema import database_address
from vargpt.types import Message

logger = logging.getLogger(__name__)
LOST_REPLY = "The reply was lost when the page was stopped. Ask once more."
PASSING = "passing"  # marks a message that stands in for a reply
_open: weakref.WeakValueDictionary[str, Conversation] = weakref.WeakValueDictionary()  # of every page that is open


def install() -> None:
    """Sets Chainlit up, once, from the environment: VARGPT_DATA, DATABASE_URL and VARGPT_USERS."""
    folder = private_folder(data_folder())
    os.environ.setdefault("CHAINLIT_AUTH_SECRET", signing_secret(folder))
    address = database_address(folder, os.environ.get("DATABASE_URL"))
    cl.data_layer(lambda: Store(address, folder))
    users = os.environ.get("VARGPT_USERS")
    from chainlit.server import app

    logins.install(app, os.environ.get("CHAINLIT_HOST", "127.0.0.1"), Path(users) if users else None)
    serve_pictures(app)


def store() -> Store:
    found = get_data_layer()
    assert isinstance(found, Store)
    return found


async def remember(conversation: Conversation, is_running: bool = False) -> None:
    """Saves the open conversation.

    To be called when a turn begins (`is_running`) and however it ends, and after every change without a turn.
    """
    thread_id = cl.context.session.thread_id
    _open[thread_id] = conversation
    if store().is_deleted(thread_id):
        return
    try:
        await store().conversations.save(thread_id, conversation, is_running or conversation.is_busy)
    except OSError as error:
        logger.error("a conversation could not be saved: %s", error)
        await cl.context.emitter.send_toast(f"This conversation could not be saved: {error}", "error")


async def keep(element: Element) -> None:
    """Saves a finished picture card as it is shown now."""
    await store().create_element(element)


async def recall(thread: ThreadDict, adapters: Sequence[str] = ()) -> Conversation | None:
    """Loads a conversation that is opened again; None if it must begin anew.

    What the visitor must know is added to `thread`, which is shown next.

    Args:
        thread: what was shown of it.
        adapters: those that are loaded; others are switched off.
    """
    thread_id = thread["id"]
    if thread_id in _open:  # in another tab, or before a moment's loss of connection
        return _open[thread_id]
    await drop_unwritten(thread)
    try:
        loaded = await store().conversations.load(thread_id)
    except (ValueError, OSError) as error:
        await tell(thread, f"What was said here can be read but not gone on with: {error}. What comes now begins anew.")
        return None
    if loaded is None:
        return None
    said = list(what_was_lost(loaded))
    talk = loaded.conversation
    if gone := set(talk.settings.adapter or ()) - set(adapters):
        talk.settings = talk.settings.changed_to(adapter=None)
        said.append(f"The adapter {', '.join(sorted(gone))} is not loaded now; what comes now is drawn without it.")
    for words in said:
        await tell(thread, f"*{words}*")
    if said:
        await store().conversations.save(thread_id, talk)
    _open[thread_id] = talk
    return talk


def what_was_lost(loaded: LoadedConversation) -> Iterator[str]:
    """Sentences for the visitor about what of a conversation could not be loaded."""
    if loaded.is_unfinished:
        yield LOST_REPLY
    if loaded.num_lost:
        pictures = "A picture of" if loaded.num_lost == 1 else f"{loaded.num_lost} pictures of"
        yield f"{pictures} this conversation cannot be read any more; all else is here."
    if loaded.unknown:
        yield (
            f"Another version of vargpt has saved this conversation; {', '.join(loaded.unknown)} is not known to this "
            "one and was left out. All else is here."
        )


async def drop_unwritten(thread: ThreadDict) -> None:
    """Deletes what a crash has left: empty replies, and messages that stood in for a reply."""
    shown = {element["forId"] for element in thread["elements"] or ()}
    empty = [
        step for step in thread["steps"]
        if step["type"] == "assistant_message"
        and (
            (not (step.get("output") or "").strip() and step["id"] not in shown)
            or (step.get("metadata") or {}).get(PASSING)
        )
    ]  # fmt: skip
    for step in empty:
        thread["steps"].remove(step)
        await store().delete_step(step["id"])


async def tell(thread: ThreadDict, words: str) -> None:
    """Adds a message to a conversation that is about to be shown."""
    message = await cl.Message(content=words).send()
    thread["steps"].append(message.to_dict())


def with_earlier_pictures(conversation: Conversation, turn_id: str, prompt: Message) -> Message:
    """Adds to an edited question the pictures that it had; after a restart its message does not have them."""
    turn = conversation.turns.get(turn_id)
    if turn is None or turn.carried or prompt.images:  # what was carried is carried along once more
        return prompt
    return replace(prompt, parts=(*turn.prompt.images, *prompt.parts))


async def vote_for(conversation: Conversation, turn_id: str, index: int) -> None:
    """Saves a vote for picture `index` of a turn over the other pictures of its reply."""
    ballot = ballot_of(conversation.turns[turn_id], index)
    if ballot is not None:
        await store().add_choice(cl.context.session.thread_id, turn_id, ballot)
