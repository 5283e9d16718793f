"""The page in a real Chromium: once with a tiny model for the mechanics, once with nano for the whole story.

Run with `pytest -m browser`; CHROMIUM names the browser if it is not found on the path.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
START = "import sys; from chat_ui.run import run; run(port=int(sys.argv[1]), headless=True, model=sys.argv[2] or None)"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
LIMIT = 300_000  # milliseconds; nothing takes that long, but a loaded machine may
# Many large scales, so that there is time to press Stop.
SLOW_TO_DRAW = {"384x384": [[1, 1], [2, 2], [4, 4], [8, 8], *[[48, 48]] * 8]}
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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def served(folder: Path, model: str) -> Iterator[str]:
    """The page with this model, started in `folder`, where it must leave nothing behind; yields its address."""
    start, port = folder / "started-here", free_port()
    start.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CHAINLIT_", "VARGPT_"))}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    with open(folder / "log.txt", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", START, str(port), model], cwd=start, env=environment, stdout=log, stderr=log
        )
    try:
        wait_for_health(f"http://127.0.0.1:{port}/health", server, folder / "log.txt")
        yield f"http://127.0.0.1:{port}"
        assert list(start.iterdir()) == []
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for_health(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + LIMIT / 1000
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"the page did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.fail("there is no Chromium; install it or name it: CHROMIUM=/path/to/chromium")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def tiny_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from vargpt.loading import save
    from vargpt.testing import tiny_model, tiny_processor

    folder = tmp_path_factory.mktemp("tiny-page")
    model = tiny_model(scale_schedules=SLOW_TO_DRAW, default_size="384x384")
    save(model, tiny_processor(), folder / "model")
    yield from served(folder, str(folder / "model"))


@pytest.fixture(scope="module")
def nano_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from served(tmp_path_factory.mktemp("nano-page"), "")


class Visitor:
    """Somebody at the page, who notes what it asks of which host and what it complains about."""

    def __init__(self, browser, address: str, **context) -> None:
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


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Visitor]]:
    visitors: list[Visitor] = []

    def open_page(address: str, **context) -> Visitor:
        visitors.append(Visitor(browser, address, **context))
        return visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.context.close()
        assert visitor.complaints == []
        assert visitor.hosts <= {visitor.page.url.split("/")[2]} | {""}, "the page asked another host"


def test_a_picture_forms_in_one_place_and_counts_its_scales(visit, tiny_address: str) -> None:
    visitor = visit(tiny_address)
    visitor.say("draw a fox", draw=True)
    visitor.finished(1)
    assert len({image for image, _, _ in visitor.shown}) == 1
    assert len({content for _, content, _ in visitor.shown}) >= 3
    counters = [caption for _, _, caption in visitor.shown if caption.startswith("scale")]
    steps = [int(caption.split()[1]) for caption in counters]
    assert steps == sorted(steps) and all(caption.endswith("of 12") for caption in counters)
    assert visitor.shown[-1][2].startswith("384 × 384 · seed")


def test_stop_ends_a_picture_on_the_way_and_the_conversation_goes_on(visit, tiny_address: str) -> None:
    visitor = visit(tiny_address)
    visitor.say("draw a fox", draw=True, wait=False)
    visitor.page.wait_for_selector(".picture-paper img")
    # Not page.click(): once the turn is over the same node is the disabled submit button, for which that waits forever.
    visitor.page.evaluate("document.querySelector('#stop-button').click()")
    clicked = time.monotonic()
    visitor.page.wait_for_selector(".picture[data-state=stopped]")
    assert time.monotonic() - clicked < 10
    assert visitor.page.inner_text(".picture-caption").startswith("stopped after scale")
    assert not any("manually" in reply for reply in visitor.replies)
    visitor.say("draw a cat", draw=True)
    visitor.finished(1)


def test_again_draws_with_the_next_seed_and_the_file_says_how(visit, tiny_address: str, tmp_path: Path) -> None:
    visitor = visit(tiny_address)
    change_setting(visitor, "seed", "41")
    visitor.say("draw a fox", draw=True)
    visitor.finished(1)
    visitor.page.click(".picture-again")
    visitor.finished(2)
    captions = visitor.page.locator(".picture-caption").all_inner_texts()
    assert [caption.split("seed ")[1] for caption in captions] == ["41", "42"]
    with visitor.page.expect_download() as download:
        visitor.page.locator(".picture-download").last.click()
    assert download.value.suggested_filename == "draw-a-fox-42.png"
    download.value.save_as(tmp_path / "fox.png")
    with Image.open(tmp_path / "fox.png") as image:
        assert image.size == (384, 384)
        assert (image.info["seed"], image.info["prompt"]) == ("42", "draw a fox")
        assert "guidance_scale" in json.loads(image.info["settings"])


def test_one_of_several_pictures_is_chosen_to_go_on_with(visit, tiny_address: str) -> None:
    visitor = visit(tiny_address)
    change_setting(visitor, "pictures", "2")
    visitor.say("draw a fox", draw=True)
    visitor.finished(2)
    assert chosen(visitor) == [True, False]
    visitor.page.click(".picture-choose")
    second = "document.querySelectorAll('figure.picture')[1]?.querySelector('.picture-chosen')"
    visitor.page.wait_for_function(second, polling=50)  # the two figures change one after the other
    visitor.page.wait_for_function(second.replace("[1]", "[0]") + " === null", polling=50)
    assert chosen(visitor) == [False, True]


def chosen(visitor: Visitor) -> list[bool]:
    figures = visitor.page.locator("figure.picture").all()
    return [figure.locator(".picture-chosen").count() == 1 for figure in figures]


def change_setting(visitor: Visitor, name: str, value: str) -> None:
    page = visitor.page
    page.click("#chat-settings-open-modal")
    if name == "seed":
        page.fill("#seed", value)
    else:  # the last slider, one step to the right
        page.locator("[role=slider]").last.focus()
        page.keyboard.press("ArrowRight")
    page.click("#confirm")
    page.wait_for_selector("#confirm", state="detached")
    page.wait_for_timeout(300)  # nothing on the page tells that the server has them


def test_a_file_that_is_no_picture_and_a_seed_that_is_no_number_are_explained(
    visit, tiny_address: str, tmp_path: Path
) -> None:
    visitor = visit(tiny_address)
    (tmp_path / "notes.png").write_bytes(b"these are no pixels")
    visitor.attach(tmp_path / "notes.png")
    visitor.say("what is this?")
    assert "“notes.png” could not be used" in visitor.replies[-1]
    change_setting(visitor, "seed", "soon")
    visitor.page.wait_for_function("document.querySelectorAll('.ai-message').length == 2")
    assert "The seed must be a whole number" in visitor.replies[-1]
    visitor.say("draw a fox", draw=True)
    visitor.finished(1)


def test_the_page_fits_a_phone(visit, tiny_address: str) -> None:
    visitor = visit(tiny_address, viewport={"width": 360, "height": 740}, is_mobile=True, color_scheme="dark")
    assert visitor.page.evaluate("document.documentElement.classList.contains('dark')")
    visitor.say("draw a fox", draw=True)
    visitor.finished(1)
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 360
    box = visitor.page.locator("figure.picture").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360


def test_the_whole_story_with_nano(visit, nano_address: str, tmp_path: Path) -> None:
    visitor = visit(nano_address)
    visitor.say("draw a fox next to a pine tree at night")
    visitor.finished(1)
    assert len({image for image, _, _ in visitor.shown}) == 1
    assert len({content for _, content, _ in visitor.shown}) >= 3  # two previews at least, and the picture
    assert any(caption.startswith("scale ") for _, _, caption in visitor.shown)
    with visitor.page.expect_download() as download:
        visitor.page.click(".picture-download")
    download.value.save_as(tmp_path / "fox.png")

    visitor.say("how many animals are there?")
    assert answer_without_picture(visitor, 1)

    visitor.say("replace the fox with a cat")
    visitor.finished(2)
    sources = [image.get_attribute("src") for image in visitor.page.locator(".picture-paper img").all()]
    assert sources[0] != sources[1]

    visitor.attach(tmp_path / "fox.png")
    visitor.say("what is in the picture?")
    assert answer_without_picture(visitor, 2)


def answer_without_picture(visitor: Visitor, num_pictures: int) -> bool:
    """Whether the last reply is words alone, with this many pictures on the page."""
    return bool(visitor.replies[-1].strip()) and visitor.page.locator("figure.picture").count() == num_pictures
