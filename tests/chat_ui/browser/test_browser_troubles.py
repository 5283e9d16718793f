"""What the page says when there is no room: in the queue, in memory, in what the model can read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_ui.showing.notices import OUT_OF_MEMORY, TOO_BUSY
from tests.chat_ui.troubled_page import TOO_MUCH
from tests.chat_ui.visitor import Visitor, clean_environment, free_port, wait_for_health

pytestmark = pytest.mark.browser
CONTEXT = 150  # tokens: room for one picture and a few words


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that holds up pictures while it exists."""
    return tmp_path_factory.mktemp("gate") / "closed"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, gate: Path) -> Iterator[str]:
    from vargpt.loading.models import save
    from vargpt.testing import tiny_model, tiny_processor

    folder, port = tmp_path_factory.mktemp("troubled"), free_port()
    save(tiny_model(), tiny_processor(max_context=CONTEXT), folder / "model")
    command = [sys.executable, "-m", "tests.chat_ui.troubled_page", str(port), str(folder / "model"), str(gate)]
    with open(folder / "log.txt", "w") as log:
        server = subprocess.Popen(command, env=clean_environment(folder), stdout=log, stderr=log)
    try:
        wait_for_health(f"http://127.0.0.1:{port}/health", server, folder / "log.txt")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def reads(visitor: Visitor, words: str) -> None:
    """Waits until a reply says this."""
    visitor.page.wait_for_function(
        "(words) => [...document.querySelectorAll('.ai-message')].some((reply) => reply.innerText.includes(words))",
        arg=words,
    )


def test_who_waits_reads_how_many_come_before_and_who_finds_no_room_is_sent_away(
    visit, address: str, gate: Path
) -> None:
    drawing, second, third, fourth = (visit(address) for _ in range(4))
    gate.touch()
    drawing.say("draw a fox", draw=True, wait=False)
    drawing.page.wait_for_selector(".picture[data-state=drawing]")
    second.say("draw a cat", draw=True, wait=False)
    reads(second, "You are next")
    third.say("draw a dog", draw=True, wait=False)
    reads(third, "Others are being answered first: 1 before you")
    fourth.say("draw a cow", draw=True, wait=False)
    reads(fourth, TOO_BUSY)
    gate.unlink()
    for visitor in (drawing, second, third):
        visitor.finished(1)
    assert not any("before you" in reply or "next" in reply for reply in third.replies)


def test_a_full_memory_is_told_with_what_helps_and_the_conversation_goes_on(visit, address: str) -> None:
    visitor = visit(address)
    visitor.say(f"draw {TOO_MUCH}", draw=True)
    reads(visitor, "ran out of memory")
    assert any(OUT_OF_MEMORY in reply for reply in visitor.replies)
    visitor.say("draw a fox", draw=True)
    visitor.finished(1)


def test_a_full_context_sets_the_oldest_picture_aside_says_so_and_answers(visit, address: str) -> None:
    visitor = visit(address)
    for number in range(1, 5):
        visitor.say("draw a fox", draw=True)
        visitor.finished(number)
    reads(visitor, "set aside: the conversation had grown longer than the model can read.")
    assert visitor.page.locator(".version").count() == 4  # none is lost to the visitor
