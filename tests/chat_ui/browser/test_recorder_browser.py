"""What the page remembers, in a real Chromium: across a kill -9 and a restart, per user, until it is deleted."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_ui.access.users import change
from chat_ui.history.saved_conversations import UNFINISHED, read_conversation
from tests.chat_ui.visitor import LIMIT, clean_environment, free_port, wait_for_health

pytestmark = pytest.mark.browser
START = """
import sys; from pathlib import Path; from chat_ui.run import run
users = Path(sys.argv[4]) if sys.argv[4] else None
run(port=int(sys.argv[1]), headless=True, model=sys.argv[2], data=Path(sys.argv[3]), users=users)
"""
# Many large scales, so that there is time to kill the page while it draws.
SLOW_TO_DRAW = {"256x256": [[1, 1], [2, 2], [4, 4], [8, 8], *[[32, 32]] * 10]}
DRAWN = "[...document.querySelectorAll('.picture[data-state=done] .picture-paper img')].filter(i => i.naturalWidth)"


class Page:
    """The page as a process that can be killed and started again with the same data."""

    def __init__(self, folder: Path, model: Path, users: Path | None = None) -> None:
        self.port = free_port()
        self.folder, self.data = folder, folder / "data"
        self._command = [sys.executable, "-c", START, str(self.port), str(model), str(self.data), str(users or "")]
        self._server: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it answers."""
        with open(self.folder / "log.txt", "a") as log:
            self._server = subprocess.Popen(
                self._command, cwd=self.folder, env=clean_environment(self.folder), stdout=log, stderr=log
            )
        wait_for_health(f"{self.address}/health", self._server, self.folder / "log.txt")

    def kill(self) -> None:
        """As `kill -9` does: no goodbye, nothing tidied up."""
        if self._server is not None:
            self._server.send_signal(signal.SIGKILL)
            self._server.wait(timeout=60)
            self._server = None

    @property
    def conversations(self) -> list[Path]:
        return sorted((self.data / "conversations").glob("*"))

    def rows(self, query: str) -> list[tuple]:
        with sqlite3.connect(self.data / "history.db") as database:
            return database.execute(query).fetchall()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vargpt.loading.models import save
    from vargpt.testing import tiny_model, tiny_processor

    folder = tmp_path_factory.mktemp("tiny") / "model"
    save(tiny_model(scale_schedules=SLOW_TO_DRAW, default_size="256x256"), tiny_processor(), folder)
    return folder


class Visitor:
    """Somebody with a browser of their own."""

    def __init__(self, browser, page: Page) -> None:
        self.context = browser.new_context(viewport={"width": 1200, "height": 900})
        self.page, self.served = self.context.new_page(), page
        self.page.set_default_timeout(LIMIT)

    def come(self, path: str = "") -> None:
        self.page.goto(self.served.address + path)

    def come_in(self) -> None:
        self.come()
        self.page.wait_for_selector("#starters button:not([disabled])")

    def log_in(self, name: str, password: str) -> None:
        self.page.wait_for_selector("#email")
        self.page.fill("#email", name)
        self.page.fill("#password", password)
        self.page.click("button[type=submit]")

    def draw(self, words: str) -> None:
        self.page.click("#command-Draw")
        self.page.click("#chat-input")
        self.page.keyboard.type(words)
        self.page.click("#chat-submit")

    def sees_pictures(self, count: int) -> None:
        self.page.wait_for_function(f"{DRAWN}.length >= {count}", polling=100)
        self.page.wait_for_selector("#chat-submit")

    def opens(self, name: str) -> None:
        self.page.click(f"[id^=thread-] a:has-text('{name}')")

    def reads(self, words: str) -> None:
        self.page.wait_for_selector(f"text={words}")

    def rests(self) -> None:
        """Waits until the page has scrolled to the end of the reply; it would take away what is opened before."""
        place, last = "document.querySelector('figure.picture').getBoundingClientRect().top", None
        while (now := self.page.evaluate(place)) != last:
            last = now
            self.page.wait_for_timeout(700)

    def photograph(self, name: str) -> None:
        """A screenshot for people, where PICTURES_OF_TESTS names a folder."""
        if folder := os.environ.get("PICTURES_OF_TESTS"):
            self.page.wait_for_timeout(800)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[list[Page]]:
    running: list[Page] = []
    yield running
    for page in running:
        page.kill()


def a_page_with_a_fox(browser, model: Path, pages: list[Page], folder: Path) -> tuple[Page, Visitor]:
    """A page that runs, and a visitor who has had a picture drawn."""
    page = Page(folder, model)
    pages.append(page)
    page.start()
    ada = Visitor(browser, page)
    ada.come_in()
    ada.draw("draw a fox")
    ada.sees_pictures(1)
    return page, ada


def test_a_kill_while_drawing_costs_the_unfinished_turn_and_nothing_else(browser, model, pages, tmp_path) -> None:
    page, ada = a_page_with_a_fox(browser, model, pages, tmp_path)
    [folder] = page.conversations
    before = read_conversation(folder).conversation
    ada.draw("draw a cat")
    ada.page.wait_for_selector(".picture[data-state=drawing] .picture-paper img")
    page.kill()
    assert (folder / UNFINISHED).exists(), "the turn was over before it could be killed"
    assert len(before.messages) == 2 and before.messages[-1].images[0].tokens is not None

    page.start()
    again = Visitor(browser, page)  # another browser on this machine is the same local user
    again.come_in()
    again.opens("draw a fox")
    again.sees_pictures(1)
    again.reads("draw a cat")
    again.reads("The reply was lost")
    again.photograph("after-a-kill")
    after = read_conversation(folder).conversation
    assert after.messages[-1].images[0].tokens == before.messages[-1].images[0].tokens
    assert after.messages[-1].images[0].seed == before.messages[-1].images[0].seed
    [row] = page.rows("SELECT COUNT(*) FROM elements")
    assert row == (1,)

    again.draw("draw a dog")  # the conversation goes on with all that was said
    again.sees_pictures(2)
    again.page.locator(".picture-again").first.click()  # also what was drawn before can be drawn again
    again.sees_pictures(3)
    wait_until(lambda: len(read_conversation(folder).conversation.tree.versions) == 3)
    talk = read_conversation(folder).conversation
    assert [turn.prompt.text for turn in talk.turns.values()] == [
        "draw a fox",
        "draw a cat",
        "draw a dog",
        "draw a fox",
    ]
    fox, dog, again_fox = talk.tree.versions
    assert fox.part.tokens == before.messages[1].images[0].tokens and dog.parent is None
    assert again_fox.part.seed == fox.part.seed + 1 and talk.current == again_fox.id

    vote_and_delete(again, page, folder)
    again.context.close()
    ada.context.close()


def test_versions_live_through_a_restart_and_the_first_is_changed_with_its_own_bits(
    browser, model, pages, tmp_path
) -> None:
    page, ada = a_page_with_a_fox(browser, model, pages, tmp_path)
    ada.draw("make it sepia")
    ada.sees_pictures(2)
    ada.page.wait_for_selector(".version[aria-current=true]:has-text('2')")
    [folder] = page.conversations
    wait_until(lambda: len(read_conversation(folder).conversation.tree.versions) == 2)
    before = read_conversation(folder).conversation.tree
    page.kill()

    page.start()
    again = Visitor(browser, page)
    again.come_in()
    again.opens("draw a fox")
    again.sees_pictures(2)
    again.page.wait_for_selector(".version[aria-current=true]:has-text('2')")
    assert again.page.locator(".version").count() == 2 and again.page.locator(".versions").count() == 1
    again.photograph("resumed")
    again.page.locator(".picture-edit").click()  # of the first; the other one is where the conversation goes on
    again.page.wait_for_selector(".version[aria-current=true]:has-text('1')")
    again.page.wait_for_function("document.querySelectorAll('figure.picture[data-current]').length === 1")
    wait_until(lambda: read_conversation(folder).conversation.current == before.versions[0].id)
    again.draw("add a ball")
    again.sees_pictures(3)
    again.page.wait_for_selector(".version[aria-current=true]:has-text('3')")
    again.rests()
    again.page.locator(".picture-refine-open").first.click()
    again.page.click(".picture-refine button")
    again.sees_pictures(4)
    again.page.wait_for_selector(".version[aria-current=true]:has-text('4')")
    again.photograph("resumed-and-gone-on")
    wait_until(lambda: len(read_conversation(folder).conversation.tree.versions) == 4)
    talk = read_conversation(folder).conversation
    fox, sepia, ball, refined = talk.tree.versions
    assert [version.part.tokens for version in (fox, sepia)] == [version.part.tokens for version in before.versions]
    assert (sepia.parent, ball.parent, refined.parent, refined.how) == (fox.id, fox.id, fox.id, "refined")
    assert talk.turns[ball.turn].context[1].images[0].tokens == fox.part.tokens
    kept = talk.turns[refined.turn].keep_scales
    assert kept and all(
        mine.equal(its)
        for mine, its in zip(refined.part.tokens.grids[:kept], fox.part.tokens.grids[:kept], strict=True)
    )
    for visitor in (ada, again):
        visitor.context.close()


def vote_and_delete(visitor: Visitor, page: Page, folder: Path) -> None:
    """A thumb is kept as a vote on the picture; then the conversation is deleted with all that belongs to it."""
    visitor.page.locator(".positive-feedback-off").first.click()
    visitor.page.click("#submit-feedback")
    visitor.page.wait_for_selector(".positive-feedback-on")
    wait_until(lambda: page.rows("SELECT kind, value FROM votes") == [("thumb", 1)])
    shown = page.data / "pictures" / folder.name
    # a copy to look at and a file to download for each
    assert len(list(shown.iterdir())) == 6 and len(list(folder.glob("*.safetensors"))) == 3
    visitor.page.hover(f"#thread-{folder.name}")
    visitor.page.click(f"#thread-{folder.name} #thread-options")
    visitor.page.click("#delete-thread")
    visitor.page.click("[role=alertdialog] button:has-text('Confirm')")
    visitor.page.wait_for_selector(f"#thread-{folder.name}", state="detached")
    wait_until(lambda: not folder.exists() and not shown.exists())
    for table in ("threads", "steps", "elements", "feedbacks", "votes"):
        assert page.rows(f"SELECT * FROM {table}") == []


def test_passwords_let_in_and_keep_conversations_apart(browser, model, pages, tmp_path) -> None:
    users = tmp_path / "users.txt"
    change(users, "ada", "analytical")
    change(users, "eve", "adversary")
    page = Page(tmp_path, model, users)
    pages.append(page)
    page.start()
    ada, eve = Visitor(browser, page), Visitor(browser, page)
    ada.come()
    ada.log_in("ada", "adversary")
    ada.reads("do not belong together")
    ada.photograph("wrong-password")
    assert ada.page.url.endswith("/login")
    ada.log_in("ada", "analytical")
    ada.page.wait_for_selector("#starters button:not([disabled])")
    set_two_pictures(ada)
    ada.draw("draw a fox")
    ada.sees_pictures(2)
    ada.page.click(".picture-choose")
    wait_until(lambda: page.rows("SELECT kind, value FROM votes") == [("choice", 1)])
    ada.photograph("history")
    [folder] = page.conversations
    source = ada.page.locator(".picture-paper img").first.get_attribute("src")
    kept = f"/pictures/{folder.name}/{sorted((page.data / 'pictures' / folder.name).iterdir())[0].name}"
    assert source and ada.page.request.get(page.address + kept).status == 200

    eve.come()
    eve.log_in("eve", "adversary")
    eve.page.wait_for_selector("#starters button:not([disabled])")
    eve.reads("No conversations yet")
    assert eve.page.request.get(page.address + kept).status == 404
    assert eve.page.request.get(f"{page.address}/project/thread/{folder.name}").status == 401
    assert eve.page.request.delete(f"{page.address}/project/thread", data={"threadId": folder.name}).status == 401
    eve.come(f"/thread/{folder.name}")
    eve.page.wait_for_timeout(3000)
    assert eve.page.locator("figure.picture").count() == 0 and "draw a fox" not in eve.page.inner_text("body")

    page.kill()
    page.start()
    ada.come(f"/thread/{folder.name}")  # still logged in
    ada.sees_pictures(2)
    chosen = "document.querySelectorAll('figure.picture')[%d].querySelector('.picture-chosen') %s null"
    ada.page.wait_for_function(chosen % (1, "!=="))
    ada.page.click(".picture-choose")  # of a picture from before the restart
    ada.page.wait_for_function(chosen % (0, "!=="))
    ada.page.wait_for_function(chosen % (1, "==="))
    wait_until(lambda: page.rows("SELECT kind, value FROM votes") == [("choice", 0)])
    ada.context.close()
    eve.context.close()


def set_two_pictures(visitor: Visitor) -> None:
    page = visitor.page
    page.click("#chat-settings-open-modal")
    page.locator("#pictures [role=slider]").focus()
    page.keyboard.press("ArrowRight")
    page.click("#confirm")
    page.wait_for_selector("#confirm", state="detached")
    page.wait_for_timeout(300)  # nothing on the page tells that the server has them


def wait_until(holds) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)
