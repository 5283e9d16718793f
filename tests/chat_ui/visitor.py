"""Somebody at the page in a real Chromium, and the page itself as a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
LIMIT = 120_000  # milliseconds; nothing takes that long, but a loaded machine may
# Notes every picture that is shown: which <img> it is in, a short mark of its content, and the line below it.
RECORDER = """
window.shown = [];
const numbers = new WeakMap();
new MutationObserver(() => {
  for (const figure of document.querySelectorAll("figure.picture")) {
    const image = figure.querySelector(".picture-paper img");
    if (!image) continue;
    if (!numbers.has(image)) numbers.set(image, shown.length);
    const entry = [numbers.get(image), image.src.length + image.src.slice(-80), figure.querySelector(".picture-caption").innerText];
    if (!shown.some((old) => old.join() === entry.join())) shown.push(entry);
  }
}).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
"""  # noqa: E501


@dataclass(frozen=True)
class Page:
    """A page that runs: where it is, and what it has asked of the model so far."""

    address: str
    log: Path

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What `tests.chat_ui.recorded_page` wrote down of every request, oldest first."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def served(folder: Path, model: str, adapters: Sequence[Path] = (), max_tokens: int = 0) -> Iterator[Page]:
    """The page with this model, started in `folder`, where it must leave nothing behind."""
    start, port, requests = folder / "started-here", free_port(), folder / "requests.jsonl"
    start.mkdir()
    requests.touch()
    environment = clean_environment(folder)
    options = json.dumps({"adapters": [str(path) for path in adapters]} if adapters else {})
    command = [
        sys.executable,
        "-m",
        "tests.chat_ui.recorded_page",
        str(port),
        model,
        options,
        str(requests),
        str(max_tokens),
    ]
    with open(folder / "log.txt", "w") as log:
        server = subprocess.Popen(command, cwd=start, env=environment, stdout=log, stderr=log)
    try:
        wait_for_health(f"http://127.0.0.1:{port}/health", server, folder / "log.txt")
        yield Page(f"http://127.0.0.1:{port}", requests)
        assert list(start.iterdir()) == []
    finally:
        server.terminate()
        server.wait(timeout=30)


def clean_environment(home: Path) -> dict[str, str]:
    """Ours, without what says how to start a page; what it keeps, it keeps in `home`."""
    ours = ("CHAINLIT_", "VARGPT_", "XDG_", "DATABASE_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"XDG_CACHE_HOME": str(home / "cache"), "HOME": str(home), "PYTHONPATH": str(ROOT)}


def wait_for_health(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + LIMIT / 1000
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"the page did not start:\n{log.read_text()}")


class Visitor:
    """Somebody at the page, who notes what it asks of which host and what it complains about."""

    def __init__(self, browser, address: str, **context: Any) -> None:
        self.context = browser.new_context(accept_downloads=True, **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(LIMIT)
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.add_init_script(RECORDER)
        self.page.goto(address)
        self.page.wait_for_selector("#starters button:not([disabled])")  # they wake up with the connection

    def say(self, words: str, *, draw: bool = False, wait: bool = True) -> None:
        before = self.page.locator(".ai-message").count()
        if draw:
            self.page.click("#command-Draw")
        self.page.click("#chat-input")
        self.page.keyboard.type(words)
        self.page.click("#chat-submit")
        if wait:
            self.answered(before)

    def answered(self, before: int) -> None:
        """Waits for a new message and the end of its turn."""
        self.page.wait_for_function(f"document.querySelectorAll('.ai-message').length > {before}")
        self.page.wait_for_selector("#chat-submit")

    def attach(self, path: Path) -> None:
        self.page.set_input_files("#upload-button-input", str(path))
        self.page.wait_for_function("!document.querySelector('#chat-submit')?.disabled")

    def finished(self, count: int) -> None:
        self.page.wait_for_function(
            f"document.querySelectorAll('.picture[data-state=done] .picture-paper img').length >= {count}"
        )
        self.page.wait_for_selector("#chat-submit")

    @property
    def replies(self) -> list[str]:
        return [reply.inner_text() for reply in self.page.locator(".ai-message").all()]

    @property
    def shown(self) -> list[tuple[int, str, str]]:
        return [tuple(entry) for entry in self.page.evaluate("window.shown")]

    def set(self, name: str, value: str) -> None:
        """Types into a field of the settings panel, or moves a slider one step to the right."""
        self.page.click("#chat-settings-open-modal")
        if name == "seed":
            self.page.fill("#seed", value)
        else:
            self.page.locator(f"#{name} [role=slider]").focus()
            self.page.keyboard.press("ArrowRight")
        self.page.click("#confirm")
        self.page.wait_for_selector("#confirm", state="detached")
        self.page.wait_for_timeout(300)  # nothing on the page tells that the server has them

    def figure(self, version: str) -> Any:
        """The card of a picture: "1" for the first on the page, and so on."""
        return self.page.locator("figure.picture").nth(int(version) - 1)
