"""The tables of the history, in SQLite and in PostgreSQL alike, and the address of the database.

The first five are what Chainlit's data layer speaks to; `votes` is ours. Values that Chainlit gives as lists or
dictionaries are JSON in TEXT columns, because SQLite takes no others. A version number says which changes a database
has had; a database from a newer version is left alone.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

FILE = "history.db"
THREAD = ("id", "createdAt", "name", "userId", "userIdentifier", "tags", "metadata")
STEP = (
    "id", "name", "type", "threadId", "parentId", "streaming", "waitForAnswer", "isError", "metadata", "tags", "input",
    "output", "createdAt", "command", "modes", "start", "end", "generation", "showInput", "language", "defaultOpen",
    "autoCollapse", "icon",
)  # fmt: skip
ELEMENT = (
    "id", "threadId", "type", "url", "chainlitKey", "name", "display", "objectKey", "size", "page", "language", "forId",
    "mime", "props", "autoPlay", "playerConfig",
)  # fmt: skip
BOOLEAN = {"streaming", "waitForAnswer", "isError", "defaultOpen", "autoCollapse", "autoPlay"}
INTEGER = {"page", "value"}


def table(name: str, columns: tuple[str, ...], more: str = "") -> str:
    """The SQL that makes a table; its first column is the primary key."""
    types = [
        f'"{column}" {"BOOLEAN" if column in BOOLEAN else "INTEGER" if column in INTEGER else "TEXT"}'
        for column in columns
    ]
    return f"CREATE TABLE IF NOT EXISTS {name} ({types[0]} PRIMARY KEY, {', '.join(types[1:])}{more})"


CHANGES: tuple[tuple[str, ...], ...] = (  # version n is reached by the first n of them; never edit one, add another
    (
        table("users", ("id", "identifier", "createdAt", "metadata"), ', UNIQUE ("identifier")'),
        table("threads", THREAD),
        table("steps", STEP),
        table("elements", ELEMENT),
        table("feedbacks", ("id", "forId", "threadId", "value", "comment")),
        table("votes", ("id", "threadId", "turnId", "kind", "value", "createdAt", "document")),
        'CREATE INDEX IF NOT EXISTS threads_by_user ON threads ("userId")',
        'CREATE INDEX IF NOT EXISTS steps_by_thread ON steps ("threadId")',
        'CREATE INDEX IF NOT EXISTS elements_by_thread ON elements ("threadId")',
        'CREATE INDEX IF NOT EXISTS feedbacks_by_step ON feedbacks ("forId")',
        'CREATE INDEX IF NOT EXISTS votes_by_thread ON votes ("threadId")',
    ),
)


def database_address(folder: Path, url: str | None = None) -> str:
    """The SQLAlchemy address of a SQLite file in `folder`, or of the PostgreSQL database that `url` names.

    Raises:
        ValueError: the address names no database of these two kinds.
        ImportError: PostgreSQL is asked for without its driver.
    """
    if not url:
        return f"sqlite+aiosqlite:///{folder / FILE}"
    try:
        address = make_url(url)
    except ArgumentError:
        raise ValueError(
            "the address of the database cannot be read; write it as postgresql://USER:PASSWORD@HOST:5432/NAME"
        ) from None
    kind = address.drivername.split("+")[0]
    if kind not in ("postgresql", "postgres"):
        raise ValueError(
            f"the history is kept in SQLite or in PostgreSQL, not in {kind}; write the address as "
            "postgresql://USER:PASSWORD@HOST:5432/NAME, or unset DATABASE_URL"
        )
    if importlib.util.find_spec("asyncpg") is None:
        raise ImportError("a history in PostgreSQL needs one more package: pip install 'vargpt[postgres]'")
    query = dict(address.query)
    if "sslmode" in query:  # what libpq calls so is `ssl` to asyncpg
        query["ssl"] = query.pop("sslmode")
    return address.set(drivername="postgresql+asyncpg", query=query).render_as_string(hide_password=False)


def open_engine(address: str) -> AsyncEngine:
    """An engine for a database; it connects with its first statement."""
    if address.startswith("sqlite"):
        return create_async_engine(address, connect_args={"timeout": 30})
    return create_async_engine(address, pool_pre_ping=True)


async def prepare_database(address: str) -> None:
    """Makes or updates the tables.

    Raises:
        OSError: nothing answers there, or what answers does not let us in.
        ValueError: the database belongs to a newer version.
    """
    engine = open_engine(address)
    try:
        if engine.dialect.name == "sqlite":  # outside of a transaction; readers then never wait for a writer
            Path(str(engine.url.database)).touch(mode=0o600)  # for this user alone, whatever folder it is in
            async with engine.connect() as connection:
                await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(
                    text("PRAGMA journal_mode=WAL")
                )
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE IF NOT EXISTS vargpt_schema (version INTEGER NOT NULL)"))
            version = (await connection.execute(text("SELECT MAX(version) FROM vargpt_schema"))).scalar() or 0
            if version > len(CHANGES):
                raise ValueError(
                    f"{shown(address)} was last used by a newer vargpt (its tables are of version {version}, this one "
                    f"knows {len(CHANGES)}); update vargpt, or name another folder or database"
                )
            for number, statements in enumerate(CHANGES[version:], start=version + 1):
                for statement in statements:
                    await connection.execute(text(statement))
                await connection.execute(text("INSERT INTO vargpt_schema VALUES (:number)"), {"number": number})
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise OSError(f"the history in {shown(address)} cannot be opened: {reason}") from error
    finally:
        await engine.dispose()


def shown(address: str) -> str:
    """The address without its password, for messages."""
    url = make_url(address)
    return str(url.database) if url.drivername.startswith("sqlite") else url.render_as_string(hide_password=True)
