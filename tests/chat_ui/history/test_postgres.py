"""The history in a real PostgreSQL server, started for these tests from the binaries of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_ui.history.chainlit_store import Store
from chat_ui.history.schema import database_address, prepare_database
from tests.chat_ui.history.test_chainlit_store import story_of_a_conversation
from tests.chat_ui.remembered import opened, run

pytestmark = pytest.mark.slow
NOT_ROOT = "postgres"  # the user that Debian's package makes; the server refuses to run as root


def binaries() -> Path | None:
    """The folder of initdb and pg_ctl, the newest version first."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    if found:
        return found[-1].parent
    named = shutil.which("initdb")
    return Path(named).resolve().parent if named else None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an empty database."""
    folder = binaries()
    if folder is None:
        pytest.skip("no PostgreSQL server here; on Debian or Ubuntu: apt install postgresql")
    user: dict[str, str] = {}
    if os.geteuid() == 0:
        if subprocess.run(["id", NOT_ROOT], capture_output=True).returncode:
            pytest.skip(f"PostgreSQL does not run as root, and there is no user {NOT_ROOT} here")
        user = {"user": NOT_ROOT, "group": NOT_ROOT}
    home = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path must be short
    if user:
        shutil.chown(home, NOT_ROOT, NOT_ROOT)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def do(program: str, *arguments: str) -> None:
        done = subprocess.run([folder / program, *arguments], cwd=home, capture_output=True, text=True, **user)
        assert done.returncode == 0, done.stdout + done.stderr

    (home / "password").write_text("se:cret")
    do("initdb", "-D", str(home / "data"), "-U", "vargpt", "--auth=scram-sha-256", f"--pwfile={home / 'password'}")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {home}"
    log = str(home / "log")
    do("pg_ctl", "-D", str(home / "data"), "-w", "-t", "240", "-l", log, "-o", options, "start")
    try:
        yield f"postgresql://vargpt:se%3Acret@127.0.0.1:{port}/postgres?sslmode=prefer"
    finally:
        do("pg_ctl", "-D", str(home / "data"), "-w", "-m", "immediate", "stop")
        shutil.rmtree(home)


def test_all_that_sqlite_does_postgresql_does(server: str, tmp_path) -> None:
    async def story() -> None:
        await story_of_a_conversation(await opened(tmp_path, server))

    run(story())
    run(prepare_database(database_address(tmp_path, server)))  # a second start finds its tables


def test_a_connection_that_broke_is_made_again(server: str, tmp_path) -> None:
    async def story() -> None:
        store: Store = await opened(tmp_path, server)
        assert await store.rows("SELECT 1 AS one") == [{"one": 1}]
        await store.execute_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid() AND usename='vargpt'",
            {},
        )
        other: Store = await opened(tmp_path, server)
        await other.execute_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid() AND usename='vargpt'",
            {},
        )
        assert await store.rows("SELECT 1 AS one") == [{"one": 1}]
        await store.close()
        await other.close()

    run(story())


def test_a_wrong_password_is_told_of_without_showing_it(server: str, tmp_path) -> None:
    with pytest.raises(OSError, match="password authentication failed") as told:
        run(prepare_database(database_address(tmp_path, server.replace("se%3Acret", "wrong-one"))))
    assert "wrong-one" not in str(told.value)
