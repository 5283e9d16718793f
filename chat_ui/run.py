"""Starts the page: puts Chainlit's files into a folder of the user's own, then serves until interrupted.

Chainlit writes to the folder it is started in unless told otherwise, and its page asks other hosts for fonts and
styles. Here it gets a cache folder, and a start page without any such link.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chat_ui import api
from chat_ui.access.users import Users
from chat_ui.data_folder import data_folder, private_folder

HERE = Path(__file__).parent
# What a model writes is shown as Markdown; with this, not even a picture linked there makes the browser go elsewhere.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' ws: wss: data: blob:; form-action 'self'"
)
WORDS = {  # where Chainlit's own words do not fit
    ("chat", "input", "placeholder"): "Ask for a picture, about a picture, or for a change",
    ("chat", "watermark"): "A small model: it makes mistakes.",
    ("chat", "input", "actions", "stop"): "Stop",
    ("chat", "settings", "title"): "How to draw and speak",
    ("auth", "login", "title"): "Log in",
    ("auth", "login", "form", "email", "label"): "Name",
    ("auth", "login", "form", "email", "required"): "Enter your name",
    ("auth", "login", "form", "email", "placeholder"): "",
    ("auth", "login", "form", "password", "required"): "Enter your password",
    ("auth", "login", "form", "actions", "signin"): "Log in",
    ("auth", "login", "errors", "default"): "Name and password do not belong together.",
    ("threadHistory", "sidebar", "empty"): "No conversations yet",
    ("threadHistory", "sidebar", "title"): "Conversations",
    ("threadHistory", "thread", "actions", "delete", "description"): (
        "This deletes what was said, its pictures and your votes on them. It cannot be undone."
    ),
    ("threadHistory", "thread", "actions", "rename", "title"): "Rename conversation",
    ("threadHistory", "thread", "actions", "rename", "description"): "How this conversation is listed",
    ("threadHistory", "thread", "actions", "rename", "success"): "Renamed",
    ("threadHistory", "thread", "actions", "rename", "inProgress"): "Renaming",
    ("threadHistory", "thread", "actions", "delete", "success"): "Deleted",
    ("threadHistory", "thread", "actions", "delete", "inProgress"): "Deleting",
    ("navigation", "header", "readme"): "Help",
    ("navigation", "newChat", "button"): "New conversation",
    ("navigation", "newChat", "dialog", "title"): "New conversation",
    ("navigation", "newChat", "dialog", "tooltip"): "New conversation",
    ("navigation", "newChat", "dialog", "description"): "The one that is open stays in the list on the left.",
    ("chat", "messages", "feedback", "positive"): "Better than others",
    ("chat", "messages", "feedback", "negative"): "Worse than others",
    ("chat", "messages", "feedback", "edit"): "Change the vote",
    ("chat", "messages", "feedback", "dialog", "title"): "Your vote",
    ("chat", "messages", "feedback", "dialog", "submit"): "Vote",
    ("chat", "messages", "feedback", "dialog", "yourFeedback"): "Why, if you like",
    ("chat", "messages", "feedback", "status", "updating"): "Keeping your vote",
    ("chat", "messages", "feedback", "status", "updated"): "Vote kept",
}
FOREIGN_LINK = re.compile(r"<link\b[^>]*\bhref=\"https?://[^>]*>\s*")


def run(
    host: str = "127.0.0.1",
    port: int = 8000,
    headless: bool = False,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    data: Path | None = None,
    database: str | None = None,
    users: Path | None = None,
    with_api: bool = False,
) -> None:
    """Serves the page until it is interrupted; the process ends with it.

    Args:
        host: "127.0.0.1" is this machine only, "0.0.0.0" everyone who can reach it.
        port: 1 to 65535.
        headless: open no browser.
        model: path of a checkpoint; None is VARGPT_MODEL, or else nano.
        options: how to load it, for `ChatEngine.load`; None is VARGPT_LOAD (JSON), or else its defaults.
        data: where history and pictures are kept; None is VARGPT_DATA, or else the user's data folder.
        database: PostgreSQL address of the history; None is DATABASE_URL, or else a SQLite file in the data folder.
        users: who may log in (`chat_ui/access/users.py`); None is VARGPT_USERS, or else nobody needs a password.
        with_api: answer OpenAI's clients too (`chat_ui/api.py`), with this model and its queue.

    Raises:
        OSError: the port is taken or not allowed, or the history cannot be opened.
        ValueError: the database, or the file of users, will not do.
        ImportError: chainlit is not installed, or the driver of the database, or what the API needs.
    """
    check_port(host, port)
    if with_api:
        api.check()
        os.environ[api.SWITCH] = "1"
    os.environ.update(CHAINLIT_HOST=host, CHAINLIT_PORT=str(port))
    if model is not None:
        os.environ["VARGPT_MODEL"] = model
    if options is not None:
        os.environ["VARGPT_LOAD"] = json.dumps(dict(options))
    prepare_memory(data, database, users)
    root = Path(os.environ.get("CHAINLIT_APP_ROOT") or cache_folder() / f"page-{port}")
    os.environ["CHAINLIT_APP_ROOT"] = str(prepare(root))
    logging.getLogger("chainlit").setLevel(logging.WARNING)  # it tells of every file it writes while it is imported
    try:
        from chainlit.cli import run_chainlit
        from chainlit.config import config
    except ImportError as error:
        raise ImportError(f"the page needs chainlit ({error}): pip install 'vargpt[ui]'") from error
    logging.getLogger("chainlit").setLevel(logging.INFO)
    for chatty in ("httpx", "chainlit.markdown"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    config.run.headless = headless
    run_chainlit(str(HERE / "app.py"))


def prepare_memory(data: Path | None, database: str | None, users: Path | None) -> None:
    """Says where everything is kept, and opens it once, so that mistakes show here and not in a browser."""
    for name, value in (("VARGPT_DATA", data), ("DATABASE_URL", database), ("VARGPT_USERS", users)):
        if value is not None:
            os.environ[name] = str(value.resolve() if isinstance(value, Path) else value)
    folder = private_folder(data_folder())
    if os.environ.get("VARGPT_USERS"):
        Users(Path(os.environ["VARGPT_USERS"]))
    try:
        from chat_ui.history.schema import database_address, prepare_database
    except ImportError as error:
        raise ImportError(f"the page needs more packages ({error}): pip install 'vargpt[ui]'") from error
    asyncio.run(prepare_database(database_address(folder, os.environ.get("DATABASE_URL"))))


def check_port(host: str, port: int) -> None:
    """Raises OSError with advice if nobody could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OSError(
                f"cannot listen on {host}:{port} ({reason.lower()}); choose another, say --port {port + 1}"
            ) from None


def cache_folder() -> Path:
    """Where this user's programs keep what can be made again."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "vargpt"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vargpt"
    return Path.home() / (Path("Library") / "Caches" if sys.platform == "darwin" else ".cache") / "vargpt"


def prepare(root: Path) -> Path:
    """Lays out what Chainlit reads in `root` (a temporary folder if it cannot be written); returns the folder."""
    try:
        (root / ".chainlit").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / "config.toml", root / ".chainlit" / "config.toml")
    except OSError:
        return prepare(Path(tempfile.mkdtemp(prefix="vargpt-page-")))
    for name in ("chainlit.md", "chainlit_en-US.md"):
        shutil.copyfile(HERE / "welcome.md", root / name)
    shutil.rmtree(root / "public", ignore_errors=True)
    shutil.copytree(HERE / "public", root / "public")
    package = chainlit_folder()
    if package is not None:  # run() says what to install
        build(package / "frontend" / "dist", root / "build")
        translate(package / "translations" / "en-US.json", root / ".chainlit" / "translations" / "en-US.json")
    return root


def chainlit_folder() -> Path | None:
    """Where chainlit is installed, without importing it."""
    found = importlib.util.find_spec("chainlit")
    return Path(found.origin).parent if found and found.origin else None


def build(page: Path, folder: Path) -> None:
    """Copies Chainlit's own page to `folder`, without the links to other hosts and forbidden to follow any."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    html = (page / "index.html").read_text(encoding="utf-8")
    html = FOREIGN_LINK.sub("", html).replace(
        "<head>", f'<head>\n    <meta http-equiv="Content-Security-Policy" content="{POLICY}" />', 1
    )
    (folder / "index.html").write_text(html, encoding="utf-8")
    shutil.copytree(page / "assets", folder / "assets", ignore=shutil.ignore_patterns("*.map"))


def translate(original: Path, target: Path) -> None:
    """Chainlit's English with our words; a place that a newer Chainlit no longer has is left out."""
    words = json.loads(original.read_text(encoding="utf-8"))
    for (*path, last), text in WORDS.items():
        place = words
        for key in path:
            place = place.get(key, {})
        if last in place:
            place[last] = text
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(words), encoding="utf-8")
