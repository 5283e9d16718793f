"""What stands in for a reply that has not begun: the place in the queue, and nothing once it begins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock

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


@pytest.mark.parametrize(("error", "is_logged"), [(KeyError("page"), True), (ValueError("too long"), False)])
def test_what_should_not_have_happened_is_told_to_the_visitor_and_kept_in_the_log(
    error: Exception, is_logged: bool, scheduler: Scheduler, monkeypatch, caplog
) -> None:
    told = []
    page = SimpleNamespace(ErrorMessage=lambda words: told.append(words) or AsyncMock())
    monkeypatch.setattr(answering, "cl", page)
    monkeypatch.setattr(answering.recorder, "remember", AsyncMock(side_effect=[error, None]))
    gallery = MagicMock(refresh=AsyncMock(), begin=lambda *_: AsyncMock())
    with caplog.at_level(logging.ERROR):
        asyncio.run(answering.answer(MagicMock(turns=[]), MagicMock(), gallery, scheduler))
    assert len(told) == 1 and str(error) in told[0]
    assert any(record.exc_info and record.exc_info[1] is error for record in caplog.records) is is_logged
