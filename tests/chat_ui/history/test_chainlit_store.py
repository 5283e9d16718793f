"""The store: what is written is what is listed and opened, in order, by whom it belongs to, until it is deleted."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3

import chainlit as cl
import pytest
from chainlit.types import Feedback, Pagination, ThreadFilter
from sqlalchemy import text

from chat_ui.access.current_user import NotYoursError
from chat_ui.history.chainlit_store import Store
from chat_ui.history.picture_files import PictureFiles
from chat_ui.history.schema import CHANGES, FILE, database_address, prepare_database, shown
from tests.chat_ui.remembered import Asking, a_talk, begun, message, new_id, opened, run

PNG = b"\x89PNG not really"
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


def card(thread: str, step: str, turn: str = "1", index: int = 0, **props: object) -> cl.CustomElement:
    values = {"turn": turn, "index": index, "src": DATA_URL, "png": DATA_URL, "caption": "a fox"} | props
    return cl.CustomElement(name="Picture", props=values, thread_id=thread, for_id=step, display="inline")


async def listed(store: Store, name: str, **filters: object) -> list[str]:
    """The names of a user's conversations, page by page."""
    user, names, cursor = await store.get_user(name), [], None
    while True:
        page = await store.list_threads(Pagination(first=2, cursor=cursor), ThreadFilter(userId=user.id, **filters))
        names += [thread["name"] for thread in page.data]
        cursor = page.pageInfo.endCursor
        if not page.pageInfo.hasNextPage:
            return names


async def story_of_a_conversation(store: Store) -> None:
    """What must hold in every database: written, listed, opened, voted on, deleted. Also for PostgreSQL."""
    thread, question = await begun(store, "ada", "draw a fox")
    reply = new_id()
    await store.create_step(message(thread, reply, "", second=1))
    await store.update_step(message(thread, reply, "A fox.", second=1))
    shown_card = card(thread, reply)
    await store.create_element(shown_card)
    await store.create_element(card(thread, reply, turn="2"))
    upload = cl.Image(name="../../fox.png", content=PNG, mime="image/png", thread_id=thread, for_id=question)
    await store.create_element(upload)
    await store.update_thread(
        thread, metadata={"chat_settings": {"seed": "7"}, "conversation": None, "env": {"K": "V"}}
    )

    opened_again = await store.get_thread(thread)
    assert opened_again["userIdentifier"] == "ada" and opened_again["metadata"] == {"chat_settings": {"seed": "7"}}
    first, second = opened_again["steps"]
    assert (first["output"], first["type"], second["output"]) == ("draw a fox", "user_message", "A fox.")
    assert second["metadata"] == {"a": [1]} and second["tags"] == ["x", "y"] and second["isError"] is False
    picture = next(element for element in opened_again["elements"] if element["id"] == shown_card.id)
    assert picture["props"]["src"] == f"/pictures/{thread}/{shown_card.id}-src.png" and picture["forId"] == reply
    assert picture["props"]["caption"] == "a fox"
    uploaded = next(element for element in opened_again["elements"] if element["id"] == upload.id)
    assert uploaded["url"] == f"/pictures/{thread}/{upload.id}.png" and not uploaded["chainlitKey"]
    assert store.pictures.path(f"{thread}/{upload.id}.png").read_bytes() == PNG

    await store.conversations.save(thread, a_talk())
    vote = await store.upsert_feedback(Feedback(forId=reply, value=1))
    assert await store.upsert_feedback(Feedback(forId=reply, value=0, comment="blurred")) == vote
    [row] = await store.rows("SELECT * FROM votes")
    assert (row["kind"], row["value"], row["threadId"]) == ("thumb", 0, thread)
    assert (await store.get_thread(thread))["steps"][1]["feedback"]["comment"] == "blurred"

    for number in range(4):
        await begun(store, "ada", f"a cat, {number}")
    other, _ = await begun(store, "eve", "draw a fox too")
    names = await listed(store, "ada")
    assert len(names) == 5 and names.count("draw a fox") == 1 and await listed(store, "eve") == ["draw a fox too"]
    assert await listed(store, "ada", search="FOX") == ["draw a fox"]
    assert await listed(store, "ada", feedback=0) == ["draw a fox"] and await listed(store, "ada", feedback=1) == []

    await store.delete_thread(thread)
    assert await store.get_thread(thread) is None and len(await listed(store, "ada")) == 4
    for table in ("steps", "elements", "votes", "feedbacks"):
        assert await store.rows(f'SELECT * FROM {table} WHERE "threadId" = :id', id=thread) == []
    assert not (store.pictures.root / thread).exists() and not store.conversations.folder(thread).exists()
    await store.create_step(message(thread, new_id(), "still being written"))
    await store.update_thread(thread, name="still here")
    assert await store.get_thread_author(thread) == "" and await store.get_thread(thread) is None
    assert await listed(store, "eve") == ["draw a fox too"] and other
    await store.close()


def test_a_conversation_is_kept_listed_opened_voted_on_and_deleted(tmp_path) -> None:
    async def story() -> None:
        await story_of_a_conversation(await opened(tmp_path))

    run(story())


def test_the_last_update_of_a_message_wins_however_many_are_under_way(tmp_path) -> None:
    async def story() -> None:
        store = await opened(tmp_path)
        thread, _ = await begun(store, "ada")
        steps = [new_id() for _ in range(5)]
        tasks = []
        for step in steps:
            tasks.append(asyncio.create_task(store.create_step(message(thread, step, ""))))
            for words in ("A", "A fox", "A fox."):
                tasks.append(asyncio.create_task(store.update_step(message(thread, step, words))))
        await asyncio.gather(*tasks)
        said = {step["id"]: step["output"] for step in (await store.get_thread(thread))["steps"]}
        assert [said[step] for step in steps] == ["A fox."] * 5
        await store.close()

    run(story())


def test_what_was_kept_is_there_after_a_restart(tmp_path) -> None:
    async def before() -> str:
        store = await opened(tmp_path)
        thread, _ = await begun(store, "ada")
        await store.conversations.save(thread, a_talk())
        return thread  # and no goodbye

    async def after(thread: str) -> None:
        store = await opened(tmp_path)
        assert len((await store.get_thread(thread))["steps"]) == 1
        assert len((await store.conversations.load(thread)).conversation.turns) == 2
        await store.close()

    run(after(run(before())))


# Whose it is


def test_nobody_opens_changes_or_deletes_what_is_somebody_elses(tmp_path) -> None:
    async def story() -> None:
        store = await opened(tmp_path)
        hers, step = await begun(store, "ada")
        element = card(hers, step)
        await store.create_element(element)
        vote = await store.upsert_feedback(Feedback(forId=step, value=1))
        mine, my_step = await begun(store, "eve")
        before = [await store.rows(f"SELECT * FROM {table}") for table in ("threads", "steps", "elements", "feedbacks")]
        stolen = cl.CustomElement(id=element.id, name="Picture", props={}, thread_id=mine, for_id=my_step)
        forbidden = (
            lambda: store.delete_thread(hers),
            lambda: store.update_thread(hers, name="mine now"),
            lambda: store.get_element(hers, element.id),
            lambda: store.delete_element(element.id, mine),
            lambda: store.create_element(card(hers, step)),
            lambda: store.upsert_feedback(Feedback(forId=step, value=0)),
            lambda: store.upsert_feedback(Feedback(forId=new_id(), value=0)),
            lambda: store.delete_feedback(vote),
            lambda: store.delete_step(step),
        )
        with Asking("eve"):
            assert await store.get_thread(hers) is None
            for attempt in forbidden:
                with pytest.raises(NotYoursError):
                    await attempt()
            await store.create_step(message(mine, step, "mine now"))  # another's message, said to be in my conversation
            await store.create_element(stolen)
            assert await store.get_thread(mine) is not None
        after = [await store.rows(f"SELECT * FROM {table}") for table in ("threads", "steps", "elements", "feedbacks")]
        assert after == before and store.pictures.path(f"{hers}/{element.id}-src.png").exists()
        with Asking("ada"):
            assert (await store.get_thread(hers))["steps"][0]["output"] == "draw a fox"
        await store.close()

    run(story())


@pytest.mark.parametrize("evil", ["x') OR 1=1 --", "../../etc", "", "1b2c7b85-d608-4bbe-9218-01fb411618cb'"])
def test_ids_that_are_none_reach_neither_statements_nor_files(evil, tmp_path) -> None:
    async def story() -> None:
        store = await opened(tmp_path)
        thread, step = await begun(store, "ada")
        assert await store.get_thread(evil) is None
        await store.update_thread(evil, name="evil")
        await store.create_step(message(evil, new_id(), "evil"))
        await store.create_step(message(thread, evil, "evil"))
        bad = card(thread, step)
        bad.id = evil
        await store.create_element(bad)
        assert len(await store.rows("SELECT * FROM threads")) == len(await store.rows("SELECT * FROM steps")) == 1
        assert await store.rows("SELECT * FROM elements") == [] and not (tmp_path / "pictures").exists()
        await store.close()

    run(story())


@pytest.mark.parametrize(
    "key", ["a/b.png", "../x.png", "%s/../x.png", "%s/.hidden", "%s/a/b.png", "%s/", "%s", "%s/a.exe.png"]
)
def test_a_picture_has_a_plain_name_in_the_folder_of_its_conversation(key, tmp_path) -> None:
    with pytest.raises(ValueError, match="no name of a picture"):
        PictureFiles(tmp_path).path(key.replace("%s", new_id()))


def test_what_is_no_picture_gets_no_pictures_ending(tmp_path) -> None:
    files, thread = PictureFiles(tmp_path), new_id()
    kept = run(files.upload_file(f"{thread}/page", b"<script>", "text/html"))
    assert kept == {"object_key": f"{thread}/page.bin", "url": f"/pictures/{thread}/page.bin"}
    props = {"src": "data:image/jpeg;base64,!!!", "width": 3, "alt": "data:", "png": DATA_URL}
    found = run(files.keep_props(thread, "e", props))
    assert found == {"width": 3, "alt": "data:", "png": f"/pictures/{thread}/e-png.png"}
    files.delete_conversation("..")
    assert tmp_path.exists() and run(files.delete_file(f"{thread}/page.bin")) is True


# The database


def test_tables_are_made_once_and_a_newer_database_is_left_alone(tmp_path) -> None:
    address = database_address(tmp_path)
    run(prepare_database(address))
    run(prepare_database(address))
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("SELECT version FROM vargpt_schema").fetchall() == [(len(CHANGES),)]
        database.execute("INSERT INTO vargpt_schema VALUES (99)")
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    with pytest.raises(ValueError, match="newer vargpt"):
        run(prepare_database(address))


def test_a_start_that_was_killed_between_two_tables_is_repeated(tmp_path) -> None:
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute(CHANGES[0][0])
    run(prepare_database(database_address(tmp_path)))


def test_a_file_that_is_no_database_is_told_of(tmp_path) -> None:
    (tmp_path / FILE).write_bytes(b"these are no tables " * 100)
    with pytest.raises(OSError, match="cannot be opened: file is not a database"):
        run(prepare_database(database_address(tmp_path)))


def test_addresses_of_databases(tmp_path) -> None:
    address = database_address(tmp_path, "postgres://ada:secret@db:5432/chat?sslmode=require")
    assert address == "postgresql+asyncpg://ada:secret@db:5432/chat?ssl=require" and "secret" not in shown(address)
    for wrong in ("mysql://x/y", "sqlite:///x", "nonsense"):
        with pytest.raises(ValueError, match=r"postgresql://USER:PASSWORD@HOST:5432/NAME"):
            database_address(tmp_path, wrong)
    with pytest.raises(OSError, match=r"postgresql\+asyncpg://ada:\*\*\*@127.0.0.1:1/x cannot be opened"):
        run(prepare_database(database_address(tmp_path, "postgresql://ada:secret@127.0.0.1:1/x")))


def test_a_database_that_fails_is_logged_and_the_page_goes_on(tmp_path, caplog) -> None:
    async def story() -> None:
        store = await opened(tmp_path)
        thread, _ = await begun(store, "ada")
        async with store.engine.begin() as connection:
            await connection.execute(text("DROP TABLE steps"))
        await store.create_step(message(thread, new_id(), "hello"))
        assert await store.rows("SELECT * FROM steps") == []
        await store.close()

    run(story())
    assert "the history could not be read or written: no such table: steps" in caplog.text


def test_a_thumb_below_a_reply_is_about_the_pictures_above_it(tmp_path) -> None:
    async def story() -> None:
        store = await opened(tmp_path)
        thread, _ = await begun(store, "ada")
        await store.conversations.save(thread, a_talk())
        picture, note, question, answer = (new_id() for _ in range(4))
        for second, (step, kind) in enumerate(
            [(picture, "assistant_message"), (note, "assistant_message"), (question, "user_message"),
             (answer, "assistant_message")], start=1
        ):  # fmt: skip
            await store.create_step(message(thread, step, "words", kind, second=second))
        await store.create_element(card(thread, picture, turn="1"))
        run_of_another, its_picture = new_id(), new_id()
        await store.create_step(message(thread, run_of_another, "", "run", second=5))
        await store.create_step(message(thread, its_picture, "words", second=6) | {"parentId": run_of_another})
        await store.create_element(card(thread, its_picture, turn="2"))
        for step in (note, answer, run_of_another):
            await store.upsert_feedback(Feedback(forId=step, value=1))
        assert len(await store.rows("SELECT * FROM feedbacks")) == 3
        assert [row["turnId"] for row in await store.rows('SELECT * FROM votes ORDER BY "turnId"')] == ["1", "2"]
        await store.close()

    run(story())


def test_votes_in_the_table_name_the_files_beside_the_conversation(tmp_path) -> None:
    async def story() -> None:
        store = await opened(tmp_path)
        thread, step = await begun(store, "ada")
        await store.conversations.save(thread, a_talk())
        await store.create_element(card(thread, step, turn="1", index=1, role="alternative"))
        await store.create_element(card(thread, step, turn="1", index=0, role="chosen"))
        vote = await store.upsert_feedback(Feedback(forId=step, value=1))
        [row] = await store.rows("SELECT * FROM votes")
        named = {entry["fields"]["image"]["picture"] for entry in json.loads(row["document"])["objects"]
                 if entry["is"] == "ImagePart"}  # fmt: skip
        assert len(named) == 3 and all((store.conversations.folder(thread) / name).is_file() for name in named)
        await store.delete_feedback(vote)
        assert await store.rows("SELECT * FROM votes") == await store.rows("SELECT * FROM feedbacks") == []
        await store.close()

    run(story())
