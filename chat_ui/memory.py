"""What `app.py` asks of the history: keep this, what was said here, who chose which picture.

`install` puts the store, logins and pictures into Chainlit. All else speaks of the conversation that is open.
"""

from __future__ import annotations

import json
import logging
import os
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import chainlit as cl
from chainlit.data import get_data_layer
from chainlit.element import Element
from chainlit.types import ThreadDict

from chat_ui import access
from chat_ui.data_folder import data_folder, private_folder, signing_secret
from chat_ui.schema import database_address
from chat_ui.session import Conversation
from chat_ui.store import Store
from chat_ui.votes import ballot_of
from vargpt.types import ImagePart, Message

logger = logging.getLogger(__name__)
LOST_REPLY = "*The reply was lost when the page was stopped. Ask once more.*"
_open: weakref.WeakValueDictionary[str, Conversation] = weakref.WeakValueDictionary()  # of every page that is open


def install() -> None:
    """To be called once, when the page is loaded. VARGPT_DATA, DATABASE_URL and VARGPT_USERS say where things are."""
    folder = private_folder(data_folder())
    os.environ.setdefault("CHAINLIT_AUTH_SECRET", signing_secret(folder))
    address = database_address(folder, os.environ.get("DATABASE_URL"))
    cl.data_layer(lambda: Store(address, folder))
    users = os.environ.get("VARGPT_USERS")
    from chainlit.server import app

    access.install(app, os.environ.get("CHAINLIT_HOST", "127.0.0.1"), Path(users) if users else None)


def store() -> Store:
    found = get_data_layer()
    assert isinstance(found, Store)
    return found


async def remember(conversation: Conversation, is_running: bool = False) -> None:
    """Saves what the model has been told; to be called when a turn begins (`is_running`) and however it ends."""
    thread_id = cl.context.session.thread_id
    _open[thread_id] = conversation
    if store().is_deleted(thread_id):
        return
    try:
        await store().conversations.save(thread_id, conversation, is_running)
    except OSError as error:
        logger.error("a conversation could not be saved: %s", error)
        await cl.context.emitter.send_toast(f"This conversation could not be saved: {error}", "error")


async def keep(element: Element) -> None:
    """Keeps a picture card that is finished, as it is shown now."""
    await store().create_element(element)


async def recall(thread: ThreadDict) -> Conversation | None:
    """What was said in a conversation that is opened again; None if it begins anew.

    What the visitor must know is added to `thread`, which is shown next.
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
    if loaded.is_unfinished:
        await tell(thread, LOST_REPLY)
    if loaded.num_lost:
        pictures = "A picture of" if loaded.num_lost == 1 else f"{loaded.num_lost} pictures of"
        await tell(thread, f"{pictures} this conversation cannot be read any more; all else is here.")
    if loaded.is_unfinished or loaded.num_lost:
        await store().conversations.save(thread_id, loaded.conversation)
    _open[thread_id] = loaded.conversation
    return loaded.conversation


async def drop_unwritten(thread: ThreadDict) -> None:
    """Takes out replies that a crash left without a word or picture."""
    shown = {element["forId"] for element in thread["elements"] or ()}
    empty = [
        step for step in thread["steps"]
        if step["type"] == "assistant_message" and not (step.get("output") or "").strip() and step["id"] not in shown
    ]  # fmt: skip
    for step in empty:
        thread["steps"].remove(step)
        await store().delete_step(step["id"])


async def tell(thread: ThreadDict, words: str) -> None:
    """Adds a message to a conversation that is about to be shown."""
    message = await cl.Message(content=words).send()
    thread["steps"].append(message.to_dict())


def with_earlier_pictures(conversation: Conversation, turn_id: str, prompt: Message) -> Message:
    """An edited question with the pictures that it had; after a restart its message knows nothing of them."""
    before = conversation.turns[turn_id].prompt.images if turn_id in conversation.turns else ()
    return prompt if prompt.images else replace(prompt, parts=(*before, *prompt.parts))


async def chosen(conversation: Conversation, turn_id: str, index: int, message: Message, is_shown: bool) -> None:
    """Keeps that picture `index` of a turn was chosen, as a vote and for later turns.

    `is_shown` says that the page shows it already; cards from before a restart are changed here.
    """
    thread_id = cl.context.session.thread_id
    await remember(conversation, conversation.is_busy)
    ballot = ballot_of(conversation.turns[turn_id], index)
    if ballot is not None:
        await store().add_choice(thread_id, turn_id, ballot)
    if not is_shown:
        await show_choice(thread_id, turn_id, message)


async def show_choice(thread_id: str, turn_id: str, message: Message) -> None:
    """Changes what the cards of a turn say of their role."""
    for row in await store().rows('SELECT * FROM elements WHERE "threadId" = :id', id=thread_id):
        props: dict[str, Any] = json.loads(row["props"] or "{}")
        if props.get("turn") != turn_id or "role" not in props or props.get("index", 0) >= len(message.images):
            continue
        part: ImagePart = message.images[props["index"]]
        props["role"] = "alternative" if part.settings.get("alternative", 0) else "chosen"
        card = cl.CustomElement(id=row["id"], name=row["name"], props=props, display="inline", for_id=row["forId"])
        await cl.context.emitter.send_element(card.to_dict())
        await keep(card)
