"""What stands in for a reply that has not begun: the place in the queue, and nothing once it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("chainlit")

from chat_ui import answering
from tests.chat.scripted import ask, drawing_engine, text_of
from vargpt.chat.scheduler import Scheduler, Ticket
from vargpt.types import ChatEvent, ImageFinished, TextDelta, TurnFinished

REQUEST = ask("draw a fox")


class Line:
    """Stands where the page's status line is, and keeps what it said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def status(self, words: str) -> None:
        self.said.append(words)


async def read(ticket: Ticket, line: Line, scheduler: Scheduler) -> list[ChatEvent]:
    return [event async for event in answering.events(ticket, line, scheduler)]


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    monkeypatch.setattr(answering, "LOOK", 0.01)
    scheduler = Scheduler(drawing_engine)
    yield scheduler
    scheduler.close()


def test_a_turn_is_read_to_its_end(scheduler: Scheduler) -> None:
    events = asyncio.run(asyncio.wait_for(read(scheduler.submit(REQUEST), Line(), scheduler), 120))
    assert text_of(events) == "ok!" and isinstance(events[-1], TurnFinished)
    assert sum(isinstance(event, ImageFinished) for event in events) == 1


def test_the_line_counts_down_and_falls_silent_when_the_reply_begins(scheduler: Scheduler) -> None:
    line, place = Line(), 3

    async def wait_then_read() -> None:
        nonlocal place
        ticket = Ticket(REQUEST, "me", True, lambda _: place)
        reading = asyncio.create_task(read(ticket, line, scheduler))
        for there in (3, 2):
            place = there
            while not line.said or f"{there - 1} before you" not in line.said[-1]:
                await asyncio.sleep(0.01)
        ticket.put(TextDelta("one"))
        ticket.put(None)
        assert await reading == [TextDelta("one")]
        said = len(line.said)
        await asyncio.sleep(0.05)
        assert len(line.said) == said

    asyncio.run(asyncio.wait_for(wait_then_read(), 120))
    assert "2 before you" in line.said[0]


def test_stop_reaches_a_turn_that_waits_and_one_that_has_begun(scheduler: Scheduler) -> None:
    async def stop(*events: ChatEvent) -> Ticket:
        ticket = Ticket(REQUEST, "me", True, lambda _: 1)
        for event in events:
            ticket.put(event)
        reading = asyncio.create_task(read(ticket, Line(), scheduler))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        return ticket

    for events in ((), (TextDelta("one"),)):
        assert asyncio.run(asyncio.wait_for(stop(*events), 120)).cancelled.is_set()
