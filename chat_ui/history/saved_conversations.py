"""Conversations on disk, as the model sees them: one folder per conversation.

In: a `Conversation`. Out: an archive (`vargpt/pictures/archive.py`) whose document is a file,

    conversation.json     every object of the conversation
    DIGEST.png            pixels
    DIGEST.safetensors    image tokens
    unfinished            there while a turn is running, and after a crash

`conversation.json` is replaced last and as a whole: a process that is killed leaves the conversation as it was after
the last turn that was saved.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat_ui.conversation.page_settings import PageSettings
from chat_ui.conversation.visitor_conversation import Conversation, Turn
from chat_ui.history.ballots import Ballot
from chat_ui.history.missing import mend
from vargpt.pictures.archive import Archive, NewerFormatError, write_whole

logger = logging.getLogger(__name__)
FILE = "conversation.json"
DAMAGED = "conversation.damaged.json"
NEWER = "conversation.newer.json"
UNFINISHED = "unfinished"
KINDS = (Conversation, Turn, PageSettings, Ballot)  # saved by these names: renaming one needs a new format


@dataclass(frozen=True)
class LoadedConversation:
    """A conversation that was read back, and what is missing: pictures, its last turn, fields of other versions."""

    conversation: Conversation
    num_lost: int = 0
    is_unfinished: bool = False
    unknown: tuple[str, ...] = ()


class SavedConversations:
    """The folders of all conversations, by id."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._saving: dict[str, asyncio.Lock] = {}

    def folder(self, thread_id: str) -> Path:
        return self.root / thread_id

    async def save(self, thread_id: str, conversation: Conversation, is_running: bool = False) -> None:
        """Writes what is new and flushes it to the disk. `is_running`: a turn has begun and not ended."""
        async with self._saving.setdefault(thread_id, asyncio.Lock()):
            await asyncio.to_thread(write_conversation, conversation, self.folder(thread_id), is_running)

    async def load(self, thread_id: str) -> LoadedConversation | None:
        """The conversation, or None if none was ever saved.

        Raises:
            ValueError: its file cannot be read; the message says what happened to the file.
        """
        return await asyncio.to_thread(read_conversation, self.folder(thread_id))

    async def document(self, thread_id: str, ballot: Ballot) -> dict[str, Any]:
        """A ballot as JSON, with its pictures beside those of the conversation."""
        return await asyncio.to_thread(archive_in(self.folder(thread_id)).write, ballot)

    async def delete(self, thread_id: str) -> None:
        self._saving.pop(thread_id, None)
        await asyncio.to_thread(shutil.rmtree, self.folder(thread_id), ignore_errors=True)


def archive_in(folder: Path) -> Archive:
    """The archive of one conversation, which knows turns, settings and ballots besides messages."""
    return Archive(folder, KINDS)


def write_conversation(conversation: Conversation, folder: Path, is_running: bool = False) -> None:
    """See `SavedConversations.save`."""
    data = json.dumps(archive_in(folder).write(conversation), ensure_ascii=False)
    write_whole(folder / FILE, data.encode("utf-8"))
    if is_running:
        (folder / UNFINISHED).touch()
    else:
        (folder / UNFINISHED).unlink(missing_ok=True)


def read_conversation(folder: Path) -> LoadedConversation | None:
    """See `SavedConversations.load`. A file that cannot be read is renamed, so that the next turn keeps it."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        restored = archive_in(folder).read(json.loads(path.read_bytes()))
        if not isinstance(restored.value, Conversation):
            raise ValueError("it holds something else")
    except NewerFormatError as error:
        os.replace(path, folder / NEWER)
        raise ValueError(
            f"{error}; its file is {folder / NEWER} now. To go on with it, update vargpt and rename the file to {FILE}"
        ) from error
    except ValueError as error:
        os.replace(path, folder / DAMAGED)
        raise ValueError(f"its file was damaged ({error}) and has been kept as {folder / DAMAGED}") from error
    for reason in restored.lost:
        logger.warning("a picture of a conversation is lost: %s", reason)
    is_unfinished = (folder / UNFINISHED).exists()
    mend(restored.value, is_unfinished)
    return LoadedConversation(restored.value, len(restored.lost), is_unfinished, restored.unknown)
