"""Logins and pictures over HTTP, through Chainlit's own routes: who comes in, and what is whose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chainlit.data
import pytest
from chainlit.config import config
from chainlit.server import router
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.testclient import TestClient

import chat_ui.access.logins
import chat_ui.access.users
from chat_ui.access.logins import visitor_name
from chat_ui.access.users import change
from chat_ui.history.chainlit_store import Store
from chat_ui.history.picture_files import serve_pictures
from tests.chat_ui.history.test_chainlit_store import PNG, card
from tests.chat_ui.remembered import a_talk, begun, opened

PASSWORDS = {"ada": "analytical", "eve": "adversary"}


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[tuple[TestClient, Store, Path]]:
    """Chainlit's routes with a store, and logins for the users of a file."""
    monkeypatch.setattr(chat_ui.access.users, "COST", 2**10)
    monkeypatch.setattr(chat_ui.access.logins, "AFTER_A_WRONG_PASSWORD", 0.0)
    for kind in ("password_auth_callback", "header_auth_callback"):
        monkeypatch.setattr(config.code, kind, None)
    monkeypatch.setenv("CHAINLIT_AUTH_SECRET", "a" * 64)
    for name, password in PASSWORDS.items():
        change(tmp_path / "users.txt", name, password)
    app = FastAPI()
    app.include_router(router)
    chat_ui.access.logins.install(app, "127.0.0.1", tmp_path / "users.txt")
    serve_pictures(app)
    with TestClient(app) as client:
        store = client.portal.call(opened, tmp_path)
        monkeypatch.setattr(chainlit.data, "_data_layer", store)
        monkeypatch.setattr(chainlit.data, "_data_layer_initialized", True)
        yield client, store, tmp_path / "users.txt"
        client.portal.call(store.close)


def login(client: TestClient, name: str, password: str | None = None) -> dict[str, str]:
    """The headers of a browser that has logged in."""
    answer = client.post("/login", data={"username": name, "password": password or PASSWORDS[name]})
    assert answer.status_code == 200, answer.text
    token = answer.cookies["access_token"]
    client.cookies.clear()
    return {"Cookie": f"access_token={token}"}


def conversation(client: TestClient, store: Store) -> tuple[str, str, str]:
    """Ada's, with one picture: ids of conversation and message, address of the picture."""

    async def made() -> tuple[str, str, str]:
        thread, step = await begun(store, "ada")
        shown = card(thread, step)
        await store.create_element(shown)
        await store.conversations.save(thread, a_talk())
        return thread, step, f"/pictures/{thread}/{shown.id}-src.png"

    return client.portal.call(made)


def test_a_password_lets_in_and_a_wrong_one_does_not(site) -> None:
    client, _, _ = site
    for name, password in (("ada", "adversary"), ("nobody", "analytical"), ("ada", ""), ("", "")):
        refused = client.post("/login", data={"username": name, "password": password})
        assert refused.status_code in (401, 422) and not refused.cookies
    assert client.get("/user").status_code == 401
    assert client.get("/user", headers=login(client, "ada")).json()["identifier"] == "ada"
    assert client.get("/user", headers={"Cookie": "access_token=nonsense"}).status_code == 401
    assert client.post("/auth/header").status_code == 400, "nobody comes in without a password"


def test_pictures_are_for_whom_they_belong_to(site) -> None:
    client, store, _ = site
    thread, _, address = conversation(client, store)
    ada, eve = login(client, "ada"), login(client, "eve")
    shown = client.get(address, headers=ada)
    assert (shown.status_code, shown.content, shown.headers["content-type"]) == (200, PNG, "image/png")
    assert shown.headers["cache-control"] == "private, no-store"
    assert client.get(address, headers=eve).status_code == 404
    assert client.get(address).status_code in (401, 404)
    for wrong in (f"/pictures/{thread}/..%2f..%2fsecret", f"/pictures/{thread}/nothing.png", "/pictures/x/y.png"):
        assert client.get(wrong, headers=ada).status_code == 404


def test_nobody_reads_votes_on_or_deletes_another_ones_conversation(site) -> None:
    client, store, _ = site
    thread, step, address = conversation(client, store)
    ada, eve = login(client, "ada"), login(client, "eve")
    everything = {"pagination": {"first": 20}, "filter": {}}
    assert client.post("/project/threads", json=everything, headers=eve).json()["data"] == []
    listed = client.post("/project/threads", json=everything, headers=ada).json()["data"]
    assert [one["id"] for one in listed] == [thread]
    assert client.get(f"/project/thread/{thread}", headers=eve).status_code == 401
    assert client.get(f"/project/share/{thread}", headers=eve).status_code == 404
    thumb = {"feedback": {"forId": step, "value": 0}, "sessionId": "x"}
    assert client.put("/feedback", json=thumb, headers=eve).status_code == 500
    vote = client.put("/feedback", json=thumb, headers=ada).json()["feedbackId"]
    assert client.request("DELETE", "/feedback", json={"feedbackId": vote}, headers=eve).status_code == 404
    for method, body in (("PUT", {"threadId": thread, "name": "mine"}), ("DELETE", {"threadId": thread})):
        assert client.request(method, "/project/thread", json=body, headers=eve).status_code == 401
    assert client.get(f"/project/thread/{thread}", headers=ada).json()["steps"][0]["feedback"]["value"] == 0
    assert client.request("DELETE", "/project/thread", json={"threadId": thread}, headers=ada).status_code == 200
    assert client.get(address, headers=ada).status_code == 404
    assert client.get(f"/project/thread/{thread}", headers=ada).status_code == 404


def test_whoever_is_removed_or_gets_another_password_is_out_at_once(site) -> None:
    client, _, users = site
    ada, eve = login(client, "ada"), login(client, "eve")
    change(users, "ada", "difference engine")
    change(users, "eve", None)
    for headers in (ada, eve):
        assert client.get("/user", headers=headers).status_code == 401
        assert client.get("/user", headers={"Authorization": headers["Cookie"].replace("access_token=", "Bearer ")}
                          ).status_code == 401  # fmt: skip
    assert client.get("/user", headers=login(client, "ada", "difference engine")).status_code == 200


def test_a_login_without_password_is_worth_nothing_once_there_are_passwords(site) -> None:
    import chainlit as cl
    from chainlit.auth import create_jwt

    client, _, _ = site
    token = create_jwt(cl.User(identifier="ada", metadata={"stamp": "open"}))
    assert client.get("/user", headers={"Cookie": f"access_token={token}"}).status_code == 401


@pytest.mark.parametrize(
    ("listens_on", "opened_as", "is_local"),
    [("127.0.0.1", "localhost:8000", True), ("::1", "[::1]:8000", True), ("localhost", "127.0.0.1", True),
     ("127.0.0.1", "attacker.example:8000", False), ("0.0.0.0", "localhost:8000", False), ("127.0.0.1", "", False)],
)  # fmt: skip
def test_only_this_machine_is_local_and_others_do_not_share_a_name(listens_on, opened_as, is_local) -> None:
    names = {visitor_name(listens_on, Headers({"host": opened_as})) for _ in range(2)}
    assert names == {"local"} if is_local else len(names) == 2 and all(name.startswith("guest-") for name in names)
