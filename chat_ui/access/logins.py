"""Logins: which user a browser's requests belong to.

Without a file of users nobody needs a password. A browser on the machine itself is then the user "local"; one from
elsewhere gets a name of its own, so that visitors of a shared page do not see each other's conversations.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import chainlit as cl
from chainlit.auth import decode_jwt, get_token_from_cookies
from chainlit.config import config
from fastapi import FastAPI
from jwt import InvalidTokenError
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from chat_ui.access.current_user import asking
from chat_ui.access.users import Users

LOCAL, GUEST, OPEN = "local", "guest-", "open"
A_YEAR = 365 * 24 * 3600
AFTER_A_WRONG_PASSWORD = 1.0  # seconds
SOCKET = "/ws/socket.io"  # Chainlit knows who is at its other end, and checks it


def is_this_machine(host: str | None) -> bool:
    """Whether a host name or address means the machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def visitor_name(listens_on: str, headers: Headers) -> str:
    """The user name of a browser that needs no password.

    It is "local" only if the page listens to this machine alone and was opened under one of its own names: another
    site whose name was made to point here would be opened under that.
    """
    opened_as = urlsplit(f"//{headers.get('host', '')}").hostname
    if is_this_machine(listens_on) and is_this_machine(opened_as):
        return LOCAL
    return GUEST + secrets.token_hex(12)


class Gate:
    """Middleware that sets the user of every request (`asking`) and ignores logins that are no longer valid.

    Args:
        app: what comes behind the gate.
        users: who may log in; None = everybody, without a password.
    """

    def __init__(self, app: ASGIApp, users: Users | None) -> None:
        self.app, self.users = app, users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        name = self.name(Headers(scope=scope))
        if name is None:
            headers = [pair for pair in scope["headers"] if pair[0] not in (b"cookie", b"authorization")]
            scope = dict(scope, headers=headers)
        was = asking.set(None if SOCKET in scope["path"] else name)
        try:
            await self.app(scope, receive, send)
        finally:
            asking.reset(was)

    def name(self, headers: Headers) -> str | None:
        """The user whose login these headers carry; None if they carry none that is valid."""
        bearer = headers.get("authorization", "").partition(" ")[2]
        token = get_token_from_cookies(cookie_parser(headers.get("cookie", ""))) or bearer
        try:
            user = decode_jwt(token)
        except (InvalidTokenError, KeyError, TypeError):
            return None
        stamp = user.metadata.get("stamp")
        known = OPEN if self.users is None else self.users.stamp(user.identifier)
        return user.identifier if known is not None and stamp == known else None


def install(app: FastAPI, listens_on: str, users_file: Path | None) -> None:
    """Puts logins into Chainlit's application; to be called once, before it serves.

    Args:
        app: the application, with Chainlit's routes.
        listens_on: host name or address.
        users_file: who may log in; None = everybody, without a password.
    """
    users = None if users_file is None else Users(users_file)
    guesses = asyncio.Semaphore(2)  # each takes a core and 32 MiB

    async def with_password(name: str, password: str) -> cl.User | None:
        async with guesses:
            if users is not None and await asyncio.to_thread(users.check, name, password):
                return cl.User(identifier=name, metadata={"stamp": users.stamp(name)})
            await asyncio.sleep(AFTER_A_WRONG_PASSWORD)
            return None

    async def without_password(headers: Headers) -> cl.User:
        return cl.User(identifier=visitor_name(listens_on, headers), metadata={"stamp": OPEN})

    if users is None:
        cl.header_auth_callback(without_password)
        config.project.user_session_timeout = A_YEAR  # a guest who forgets a name could not ask for it again
    else:
        cl.password_auth_callback(with_password)
    app.add_middleware(Gate, users=users)
