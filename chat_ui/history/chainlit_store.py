"""Chainlit's data layer: the messages, cards and votes of every conversation in a database, with pictures as files.

`SQLAlchemyDataLayer` does most of it. Here is what it lacks: SQLite takes no lists; statements of one conversation must
arrive in order (a reply's last update may otherwise be overtaken by its first); ids come from browsers and end up in
statements and names of files; a list of conversations need not read all messages; and no user may touch
what belongs to another.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chainlit.data.sql_alchemy import SQLAlchemyDataLayer
from chainlit.data.utils import queue_until_user_message
from chainlit.element import Element, ElementDict
from chainlit.step import StepDict
from chainlit.types import Feedback, PageInfo, PaginatedResponse, Pagination, ThreadDict, ThreadFilter
from chainlit.user import PersistedUser, User
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from chat_ui.access.current_user import NotYoursError, check_owner, is_allowed
from chat_ui.history.ballots import Ballot, ballot_below, picked
from chat_ui.history.picture_files import PictureFiles, is_id
from chat_ui.history.saved_conversations import SavedConversations
from chat_ui.history.schema import BOOLEAN, ELEMENT, STEP, open_engine

logger = logging.getLogger(__name__)
KEPT_OF_A_SESSION = ("chat_profile", "chat_settings")
JSON_COLUMNS = ("metadata", "tags", "generation", "props", "playerConfig", "modes")


def in_order(method: Callable) -> Callable:
    """Runs changes of the store one after another, in the order of the calls (asyncio's locks are fair)."""

    @functools.wraps(method)
    async def wrapper(self: Store, *args: Any, **kwargs: Any) -> Any:
        async with self._changing:
            return await method(self, *args, **kwargs)

    return wrapper


class Store(SQLAlchemyDataLayer):
    """The history in a database and the folders `pictures` and `conversations`.

    Args:
        address: as `database_address` makes it; the tables are there already (`prepare_database`).
        folder: where files are kept.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.pictures = PictureFiles(folder / "pictures")
        self.conversations = SavedConversations(folder / "conversations")
        super().__init__(address, storage_provider=self.pictures)
        self.engine = open_engine(address)
        self.async_session = async_sessionmaker(self.engine, expire_on_commit=False, class_=AsyncSession)
        self._changing = asyncio.Lock()
        self._deleted: set[str] = set()  # a page that is still open may go on writing

    async def execute_sql(self, query: str, parameters: dict) -> list[dict[str, Any]] | int | None:
        """One statement in a transaction of its own: rows, or how many rows it changed; None (and a log) on failure."""
        values = {
            name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in parameters.items()
        }
        try:
            async with self.engine.begin() as connection:
                result = await connection.execute(text(query), values)
                return [dict(row) for row in result.mappings()] if result.returns_rows else result.rowcount
        except (SQLAlchemyError, OSError) as error:
            logger.error("the history could not be read or written: %s", getattr(error, "orig", None) or error)
            return None

    async def rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of a SELECT; none if the database does not answer."""
        found = await self.execute_sql(query, parameters)
        return found if isinstance(found, list) else []

    async def get_current_timestamp(self) -> str:
        return datetime.now(UTC).isoformat().replace("+00:00", "Z")

    def is_deleted(self, thread_id: str) -> bool:
        return thread_id in self._deleted

    # -- whose it is ---------------------------------------------------------------------------------------------------

    async def get_thread_author(self, thread_id: str) -> str:
        """The identifier of the user who owns a conversation; empty if there is no such conversation."""
        found = await self.rows('SELECT "userIdentifier" FROM threads WHERE "id" = :id', id=thread_id)
        return (found[0]["userIdentifier"] or "") if found else ""

    async def create_user(self, user: User) -> PersistedUser | None:
        """Makes a user, or finds the existing one, also when two first visits come at once."""
        values = {"id": str(uuid.uuid4()), "name": user.identifier, "now": await self.get_current_timestamp()}
        await self.execute_sql(
            'INSERT INTO users ("id", "identifier", "createdAt", "metadata") '
            "VALUES (:id, :name, :now, '{}') ON CONFLICT (\"identifier\") DO NOTHING",
            values,
        )
        return await self.get_user(user.identifier)

    # -- conversations -------------------------------------------------------------------------------------------------

    async def get_thread(self, thread_id: str) -> ThreadDict | None:
        """The messages and elements of a conversation; None if there is none that the current user may see."""
        if not is_id(thread_id):
            return None
        thread = await super().get_thread(thread_id)
        if thread is None or not is_allowed(thread["userIdentifier"]):
            return None
        for entry in (thread, *thread["steps"], *thread["elements"]):
            read_back(entry)
        return thread

    @in_order
    async def update_thread(
        self,
        thread_id: str,
        name: str | None = None,
        user_id: str | None = None,
        metadata: dict | None = None,
        tags: list[str] | None = None,
    ) -> None:
        await self._update_thread(thread_id, name, user_id, metadata, tags)

    async def _update_thread(self, thread_id: str, *values: Any) -> None:
        if thread_id in self._deleted or not is_id(thread_id):
            return
        author = await self.get_thread_author(thread_id)
        if author:
            check_owner(author)
        name, user_id, metadata, tags = (*values, None, None, None, None)[:4]
        if metadata is not None:
            metadata = {key: value for key, value in metadata.items() if key in KEPT_OF_A_SESSION}
        await super().update_thread(thread_id, name, user_id, metadata, tags)

    @in_order
    async def delete_thread(self, thread_id: str) -> None:
        """Removes a conversation with all its files; later writes to it are ignored.

        Files go first: a machine that stops in between leaves a conversation that can be deleted once more.
        """
        check_owner(await self.get_thread_author(thread_id))
        self._deleted.add(thread_id)
        await asyncio.to_thread(self.pictures.delete_conversation, thread_id)
        await self.conversations.delete(thread_id)
        await self.execute_sql('DELETE FROM votes WHERE "threadId" = :id', {"id": thread_id})
        await super().delete_thread(thread_id)

    async def list_threads(self, pagination: Pagination, filters: ThreadFilter) -> PaginatedResponse:
        """One page of a user's conversations, the latest first, without what was said in them.

        The cursor is the number of conversations before the page.
        """
        start = int(pagination.cursor) if (pagination.cursor or "").isdigit() else 0
        query = ['SELECT t.* FROM threads t WHERE t."userId" = :user']
        values: dict[str, Any] = {"user": filters.userId, "start": start, "many": pagination.first + 1}
        if filters.search:
            query.append(
                'AND EXISTS (SELECT 1 FROM steps s WHERE s."threadId" = t."id" AND LOWER(s."output") LIKE :word)'
            )
            values["word"] = f"%{filters.search.lower()}%"
        if filters.feedback is not None:
            query.append(
                'AND EXISTS (SELECT 1 FROM feedbacks f JOIN steps s ON s."id" = f."forId" '
                'WHERE s."threadId" = t."id" AND f."value" = :liked)'
            )
            values["liked"] = int(filters.feedback)
        query.append(
            'ORDER BY COALESCE((SELECT MAX(s."createdAt") FROM steps s WHERE s."threadId" = t."id"), t."createdAt") '
            'DESC, t."id" LIMIT :many OFFSET :start'  # fmt: skip
        )
        found = await self.rows(" ".join(query), **values)
        threads = [read_back(row | {"steps": [], "elements": []}) for row in found[: pagination.first]]
        info = PageInfo(len(found) > pagination.first, str(start), str(start + len(threads)))
        return PaginatedResponse(pageInfo=info, data=threads)

    # -- what was said -------------------------------------------------------------------------------------------------

    @queue_until_user_message()
    @in_order
    async def create_step(self, step_dict: StepDict) -> None:
        """Inserts or updates a message. An id that belongs to another conversation is left alone."""
        thread_id = step_dict["threadId"]
        await self._update_thread(thread_id)
        if thread_id in self._deleted or not (is_id(thread_id) and is_id(step_dict["id"])):
            return
        row = {name: step_dict[name] for name in STEP if step_dict.get(name) is not None}  # type: ignore[literal-required]
        if "showInput" in row:
            row["showInput"] = str(row["showInput"]).lower()
        await self._put("steps", row)

    @queue_until_user_message()
    async def update_step(self, step_dict: StepDict) -> None:
        await self.create_step(step_dict)

    @queue_until_user_message()
    @in_order
    async def delete_step(self, step_id: str) -> None:
        """Removes a message and the pictures below it."""
        for row in await self.rows('SELECT "threadId" FROM steps WHERE "id" = :id', id=step_id):
            check_owner(await self.get_thread_author(row["threadId"]))
        for row in await self.rows('SELECT "id", "threadId" FROM elements WHERE "forId" = :id', id=step_id):
            await asyncio.to_thread(self.pictures.delete_element, row["threadId"], row["id"])
        for statement in ('feedbacks WHERE "forId"', 'elements WHERE "forId"', 'steps WHERE "id"'):
            await self.execute_sql(f"DELETE FROM {statement} = :id", {"id": step_id})

    # -- pictures ------------------------------------------------------------------------------------------------------

    @queue_until_user_message()
    @in_order
    async def create_element(self, element: Element) -> None:
        """Saves an upload or the current state of a picture card; data in its props becomes files."""
        thread_id = element.thread_id
        if not element.for_id or thread_id in self._deleted or not (is_id(thread_id) and is_id(element.id)):
            return
        check_owner(await self.get_thread_author(thread_id))
        shown = element.to_dict()
        row = {name: shown[name] for name in ELEMENT if shown.get(name) is not None}  # type: ignore[literal-required]
        row.pop("chainlitKey", None)  # a file of this session only
        if element.type == "custom":
            row["props"] = await self.pictures.keep_props(thread_id, element.id, row.get("props", {}))
        else:
            data = await asyncio.to_thread(Path(element.path).read_bytes) if element.path else element.content
            if not data:
                return
            mime = element.mime or "application/octet-stream"
            uploaded = await self.pictures.upload_file(f"{thread_id}/{element.id}", data, mime)
            row |= {"objectKey": uploaded["object_key"], "url": uploaded["url"]}
        await self._put("elements", row)

    async def get_element(self, thread_id: str, element_id: str) -> ElementDict | None:
        check_owner(await self.get_thread_author(thread_id))
        found = await self.rows(
            'SELECT * FROM elements WHERE "threadId" = :thread AND "id" = :id', thread=thread_id, id=element_id
        )
        return read_back(found[0]) if found else None

    @queue_until_user_message()
    @in_order
    async def delete_element(self, element_id: str, thread_id: str | None = None) -> None:
        for row in await self.rows('SELECT "threadId" FROM elements WHERE "id" = :id', id=element_id):
            check_owner(await self.get_thread_author(row["threadId"]))
            await asyncio.to_thread(self.pictures.delete_element, row["threadId"], element_id)
            await self.execute_sql('DELETE FROM elements WHERE "id" = :id', {"id": element_id})

    async def _put(self, table: str, row: dict[str, Any]) -> None:
        """Inserts a row, or changes it if it is of the same conversation."""
        columns, places = (", ".join(form.format(name) for name in row) for form in ('"{}"', ":{}"))
        changes = ", ".join(f'"{name}" = :{name}' for name in row if name != "id")
        await self.execute_sql(
            f'INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT ("id") DO UPDATE SET {changes} '
            f'WHERE {table}."threadId" = :threadId',
            row,
        )

    # -- votes ---------------------------------------------------------------------------------------------------------

    @in_order
    async def upsert_feedback(self, feedback: Feedback) -> str:
        """A thumb up (1) or down (0) on a message; one per message, and a vote on the pictures below it.

        Raises:
            NotYoursError: there is no such message, or it is somebody else's.
        """
        step = await self.rows('SELECT "threadId" FROM steps WHERE "id" = :id', id=feedback.forId)
        if not step:
            raise NotYoursError("message")
        thread_id = step[0]["threadId"]
        check_owner(await self.get_thread_author(thread_id))
        known = await self.rows('SELECT "id" FROM feedbacks WHERE "forId" = :id', id=feedback.forId)
        vote = known[0]["id"] if known else str(uuid.uuid4())
        row = {"id": vote, "forId": feedback.forId, "threadId": thread_id, "value": feedback.value}
        await self._put("feedbacks", row | ({} if feedback.comment is None else {"comment": feedback.comment}))
        cards = await self._cards_of(thread_id, feedback.forId)
        talk = await self.conversations.load(thread_id) if cards else None
        below = ballot_below(talk.conversation, cards) if talk else None
        if below:
            await self._vote(vote, thread_id, below[0], "thumb", feedback.value, below[1])
        return vote

    async def _cards_of(self, thread_id: str, step_id: str) -> list[dict[str, Any]]:
        """The props of the picture cards that a thumb is about.

        Chainlit shows one pair of thumbs below a reply. They belong to the run that wrote its messages; where there
        is none, to a message: its own cards then count, or those of the last message before it in the same reply.
        """
        steps = await self.rows(
            'SELECT "id", "type", "parentId" FROM steps WHERE "threadId" = :id ORDER BY "createdAt"', id=thread_id
        )
        elements = await self.rows('SELECT "forId", "props" FROM elements WHERE "threadId" = :id', id=thread_id)
        place = next(place for place, step in enumerate(steps) if step["id"] == step_id)
        written = [step for step in steps if step["parentId"] == step_id and step["type"] != "run"]
        for step in reversed(written or steps[: place + 1]):
            cards = [read_back(row)["props"] for row in elements if row["forId"] == step["id"] and row["props"]]
            if cards or step["type"] == "user_message":
                return cards
        return []

    @in_order
    async def delete_feedback(self, feedback_id: str) -> bool:
        for row in await self.rows('SELECT "threadId" FROM feedbacks WHERE "id" = :id', id=feedback_id):
            check_owner(await self.get_thread_author(row["threadId"]))
            for table in ("feedbacks", "votes"):
                await self.execute_sql(f'DELETE FROM {table} WHERE "id" = :id', {"id": feedback_id})
        return True

    @in_order
    async def add_choice(self, thread_id: str, turn_id: str, ballot: Ballot) -> None:
        """Saves which picture of a reply was chosen; a later choice replaces an earlier one."""
        if thread_id not in self._deleted and await self.get_thread_author(thread_id):
            opening = picked(ballot).settings.get("opening", 0)
            await self._vote(f"{turn_id}:{opening}", thread_id, turn_id, "choice", ballot.index, ballot)

    async def _vote(self, vote: str, thread_id: str, turn_id: str, kind: str, value: int, ballot: Ballot) -> None:
        document = await self.conversations.document(thread_id, ballot)
        await self._put("votes", {
            "id": vote, "threadId": thread_id, "turnId": turn_id, "kind": kind, "value": value,
            "createdAt": await self.get_current_timestamp(), "document": document,
        })  # fmt: skip


def read_back(row: Any) -> Any:
    """Parses JSON columns and SQLite's numbers of a row, in place; returns the row."""
    for name in JSON_COLUMNS:
        if isinstance(row.get(name), str):
            try:
                row[name] = json.loads(row[name])
            except ValueError:
                row[name] = None
    if row.get("metadata", {}) is None:
        row["metadata"] = {}
    for name in BOOLEAN:
        if isinstance(row.get(name), int):
            row[name] = bool(row[name])
    return row
