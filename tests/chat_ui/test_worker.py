"""One engine for all visitors, and how the page is started."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_ui.run import FOREIGN_LINK, check_port, prepare
from chat_ui.worker import Worker
from vargpt.types import ChatRequest, Message, TextDelta

# The worker


class Counting:
    """An engine that counts until it is stopped."""

    def __init__(self, limit: int = 10**9) -> None:
        self.limit, self.inside, self.worst = limit, 0, 0

    def stream(self, request: ChatRequest, cancel: threading.Event | None = None) -> Iterator[TextDelta]:
        self.inside += 1
        self.worst = max(self.worst, self.inside)
        for number in range(self.limit):
            if cancel.is_set():
                break
            yield TextDelta(str(number))
            time.sleep(0.001)
        self.inside -= 1


REQUEST = ChatRequest(messages=(Message.of("user", "count"),))


async def texts(worker: Worker) -> list[str]:
    return [event.text async for event in worker.stream(REQUEST, threading.Event())]


def test_turns_of_several_visitors_run_one_after_another_and_lose_nothing() -> None:
    engine = Counting(20)
    worker = Worker(lambda: engine)

    async def everyone() -> list[list[str]]:
        return await asyncio.gather(*(texts(worker) for _ in range(3)))

    assert asyncio.run(everyone()) == [[str(number) for number in range(20)]] * 3
    assert engine.worst == 1
    worker.close()


def test_leaving_a_turn_frees_the_engine_for_the_next_visitor() -> None:
    engine = Counting()
    worker = Worker(lambda: engine)

    async def leave_then_ask() -> list[str]:
        task = asyncio.create_task(texts(worker))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        engine.limit = 3
        return await asyncio.wait_for(texts(worker), timeout=5)

    assert asyncio.run(leave_then_ask()) == ["0", "1", "2"]
    worker.close()


def test_a_model_that_could_not_be_loaded_is_tried_again_by_the_next_turn() -> None:
    attempts = iter([FileNotFoundError("there is no model"), Counting(1)])

    def load() -> Counting:
        outcome = next(attempts)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    worker = Worker(load)
    with pytest.raises(FileNotFoundError, match="there is no model"):
        asyncio.run(texts(worker))
    assert asyncio.run(texts(worker)) == ["0"]
    worker.close()


def test_whatever_goes_wrong_in_the_engine_reaches_the_visitor_as_one_sentence() -> None:
    class Broken:
        def stream(self, request: ChatRequest, cancel: threading.Event | None = None) -> Iterator[TextDelta]:
            yield TextDelta("a")
            raise IndexError("index out of range")

    worker = Worker(Broken)
    with pytest.raises(RuntimeError, match="IndexError: index out of range"):
        asyncio.run(texts(worker))
    worker.close()


# Starting


def test_the_page_that_is_served_links_to_no_other_host(tmp_path: Path) -> None:
    pytest.importorskip("chainlit")
    root = prepare(tmp_path / "page")
    html = (root / "build" / "index.html").read_text(encoding="utf-8")
    assert not FOREIGN_LINK.search(html) and "https://" not in html
    assert "Content-Security-Policy" in html.split("<script")[0]
    assert json.loads((root / "public" / "theme.json").read_text())["custom_fonts"] == []
    assert (root / "chainlit.md").read_text(encoding="utf-8").startswith("# vargpt")
    words = json.loads((root / ".chainlit" / "translations" / "en-US.json").read_text(encoding="utf-8"))
    assert "picture" in words["chat"]["input"]["placeholder"]


def test_a_port_that_is_taken_is_said_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}.*--port {port + 1}"):
            check_port("127.0.0.1", port)
