"""Conversations with drawn pictures, and a store in a folder, for the tests of what the page remembers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from chainlit.context import init_http_context
from chainlit.user import PersistedUser, User
from PIL import Image

from chat_ui.access.current_user import asking
from chat_ui.conversation.visitor_conversation import Conversation
from chat_ui.history.chainlit_store import Store
from chat_ui.history.schema import database_address, prepare_database
from tests.training.preferences.made_rows import drawn
from vargpt.testing import tiny_model
from vargpt.types import ImagePart, Message

MODEL = tiny_model()
T = TypeVar("T")


def new_id() -> str:
    return str(uuid.uuid4())


def picture_part(seed: int, alternative: int = 0) -> ImagePart:
    """A drawn picture with random bits."""
    part = drawn(MODEL, seed)
    return replace(part, settings=part.settings | {"size": [32, 32], "opening": 0, "alternative": alternative})


def a_talk() -> Conversation:
    """An upload, two pictures for one wish, and another try; the turns are "1" and "2"."""
    talk = Conversation()
    upload = ImagePart(Image.linear_gradient("L").resize((40, 30)).convert("RGB"))
    turn = talk.ask("1", Message.of("user", upload, "replace the fox"))
    talk.finish(turn, Message.of("assistant", "Done.", picture_part(1), picture_part(2, alternative=1)))
    again = talk.again("1", "2")
    talk.finish(again, Message.of("assistant", "Again.", picture_part(3)))
    return talk


def same_parts(one: Message, other: Message) -> bool:
    """Equal words, pixels, tokens, seeds and settings; Pillow tells a picture and its file apart."""
    if (one.role, one.text, len(one.parts)) != (other.role, other.text, len(other.parts)):
        return False
    return all(
        a.image.tobytes() == b.image.tobytes() and replace(a, image=None) == replace(b, image=None)
        for a, b in zip(one.images, other.images, strict=True)
    )


def run(work: Awaitable[T]) -> T:
    """Runs to the end, in an event loop of its own."""

    async def alone() -> T:
        return await work

    return asyncio.run(alone())


async def opened(folder: Path, url: str | None = None) -> Store:
    """A store with its tables."""
    address = database_address(folder, url)
    await prepare_database(address)
    return Store(address, folder)


async def begun(store: Store, name: str, words: str = "draw a fox", thread: str | None = None) -> tuple[str, str]:
    """A conversation of a user, as Chainlit begins one; its id and the id of its first message."""
    user = await store.create_user(User(identifier=name))
    assert isinstance(user, PersistedUser)
    thread, step = thread or new_id(), new_id()
    init_http_context(thread_id=thread, user=user)
    await store.update_thread(thread, name=words, user_id=user.id)
    await store.create_step(message(thread, step, words, "user_message"))
    return thread, step


def message(thread: str, step: str, words: str, kind: str = "assistant_message", second: int = 0) -> dict:
    """What Chainlit writes of one message."""
    now = f"2026-01-01T00:00:{second:02d}.000000Z"
    return {
        "id": step, "threadId": thread, "parentId": None, "createdAt": now, "start": now, "end": now, "command": "Draw",
        "modes": {"size": "small"}, "output": words, "name": "vargpt", "type": kind, "language": None,
        "streaming": False, "isError": False, "waitForAnswer": False, "metadata": {"a": [1]}, "tags": ["x", "y"],
    }  # fmt: skip


class Asking:
    """As if a browser of this user were asking."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.was = asking.set(self.name)

    def __exit__(self, *_: object) -> None:
        asking.reset(self.was)
