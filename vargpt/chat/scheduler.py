"""One thread that owns the model, and a fair queue before it: what the page, the API and a cluster replica share.

In: `ChatRequest`s from any thread or event loop. Out: a `Ticket` for each, from which its events are read as they
happen. Clients take turns: somebody who asks for ten pictures does not keep another from the first. What is taken from
the queue is answered together (`batch.py`) by those who use the same adapters; others take turns step by step.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from vargpt.chat.batch import Batch
from vargpt.chat.engine import ChatEngine, ContextFullError
from vargpt.chat.prefixes import Prefixes
from vargpt.chat.turns import Turn
from vargpt.types import ChatEvent, ChatRequest, Message, RequestError, TurnFinished

logger = logging.getLogger(__name__)


class QueueFullError(RuntimeError):
    """So many requests wait already that another one would only wait in vain."""


@dataclass(frozen=True)
class Load:
    """How busy a scheduler is: requests that wait, and those that are being answered; and what it has seen so far."""

    waiting: int
    running: int
    answered: int = 0
    most_together: int = 0
    prefix_hits: int = 0
    prefix_misses: int = 0


class Ticket:
    """One request on its way. Read its events once, with `for` from a thread or with `async for` from an event loop.

    The events end with `TurnFinished`. What went wrong is raised where the events are read: `ValueError` and
    `ContextFullError` as `ChatEngine.stream` says, `FileNotFoundError` if there is no model, `MemoryError` if not even
    this one request fits, `RuntimeError` for everything else.
    """

    def __init__(self, request: ChatRequest, client: str, previews: bool, place: Callable[[Ticket], int]) -> None:
        self.request, self.client, self.previews = request, client, previews
        self.cancelled = threading.Event()
        self._place = place
        self._events: queue.SimpleQueue[ChatEvent | Exception | None] = queue.SimpleQueue()
        self._wake: Callable[[], None] | None = None

    @property
    def position(self) -> int:
        """0 = being answered (or done), 1 = next, and so on."""
        return self._place(self)

    def cancel(self) -> None:
        """Ends the turn soon, with reason "cancelled" and what was finished until then; from any thread."""
        self.cancelled.set()

    def put(self, event: ChatEvent | Exception | None) -> None:
        """For the scheduler: another event, what went wrong, or None at the end."""
        self._events.put(event)
        if self._wake is not None:
            self._wake()

    def __iter__(self) -> Iterator[ChatEvent]:
        try:
            while (event := self._events.get()) is not None:
                yield _raised(event)
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[ChatEvent]:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(arrived.set)
            except RuntimeError:  # the loop was closed while the turn was running: nobody reads any more
                self.cancel()

        self._wake = wake
        try:
            while True:
                arrived.clear()
                while not self._events.empty():
                    event = self._events.get_nowait()
                    if event is None:
                        return
                    yield _raised(event)
                await arrived.wait()
        finally:
            self.cancel()


class Scheduler:
    """Answers the requests of many clients with one engine.

    Args:
        load: makes the engine; called once, in the scheduler's thread. If it fails, the next request tries again.
        max_waiting: requests in the queue beyond which new ones are refused.
        max_running: requests that are answered together.
        patience: steps (tokens) that a picture waits for others to be drawn with it.
        prefix_bytes: memory for what was read of conversations, which spares their next turn reading it again.
    """

    def __init__(
        self,
        load: Callable[[], ChatEngine],
        max_waiting: int = 64,
        max_running: int = 8,
        patience: int = 12,
        prefix_bytes: int = 256 * 2**20,
    ) -> None:
        if max_running < 1:
            raise ValueError(f"max_running is at least 1, got {max_running}")
        self._load, self.max_waiting, self.max_running = load, max_waiting, max_running
        self.patience = patience
        self._prefixes = Prefixes(prefix_bytes)
        self._engine: ChatEngine | None = None
        self._loading = threading.Lock()  # whoever warms up and whoever asks first must not both load
        self._waiting: dict[str, deque[Ticket]] = {}  # by client, in the order in which they take turns
        self._running: dict[int, Ticket] = {}  # by the index of their turn
        self._batches: dict[tuple[str, ...], Batch] = {}  # by adapters
        self._answered = self._most_together = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def engine(self) -> ChatEngine | None:
        """The engine, once it is loaded."""
        return self._engine

    @property
    def is_alive(self) -> bool:
        """Whether the thread that answers is there; without it nothing is answered any more."""
        return self._thread.is_alive()

    @property
    def load(self) -> Load:
        with self._changed:
            waiting = sum(map(len, self._waiting.values()))
            hits, misses = self._prefixes.hits, self._prefixes.misses
            return Load(waiting, len(self._running), self._answered, self._most_together, hits, misses)

    def warm_up(self) -> None:
        """Starts loading; returns at once. A failure is logged, and told to whoever asks first."""
        threading.Thread(target=self._try_to_load, daemon=True).start()

    def submit(self, request: ChatRequest, client: str = "", previews: bool = True) -> Ticket:
        """Queues a request; returns at once.

        Args:
            request: what `ChatEngine.stream` takes.
            client: who asks; clients take turns.
            previews: send every scale of a forming picture.

        Raises:
            QueueFullError: `max_waiting` requests wait already; try again later.
            RuntimeError: the scheduler was closed.
        """
        ticket = Ticket(request, client, previews, self._position)
        with self._changed:
            if self._closed:
                raise RuntimeError("the scheduler was closed")
            waiting = sum(map(len, self._waiting.values()))
            if waiting >= self.max_waiting:
                raise QueueFullError(f"{waiting} requests are waiting already; try again in a moment")
            self._waiting.setdefault(client, deque()).append(ticket)
            self._changed.notify_all()
        return ticket

    def close(self) -> None:
        """Cancels what runs and what waits; returns when the thread has ended."""
        with self._changed:
            self._closed = True
            for ticket in (*self._running.values(), *(one for line in self._waiting.values() for one in line)):
                ticket.cancel()
            self._changed.notify_all()
        self._thread.join(timeout=30)

    def _position(self, ticket: Ticket) -> int:
        with self._changed:
            order = self._in_order()
        return order.index(ticket) + 1 if ticket in order else 0

    def _in_order(self) -> list[Ticket]:
        """What waits, in the order in which it will be taken: one of each client, then the next of each."""
        lines = [list(line) for line in self._waiting.values()]
        longest = max(map(len, lines), default=0)
        return [line[place] for place in range(longest) for line in lines if place < len(line)]

    def _next(self) -> Ticket:
        """Takes the next ticket; its client goes to the end of the line."""
        client = next(iter(self._waiting))
        line = self._waiting.pop(client)
        ticket = line.popleft()
        if line:
            self._waiting[client] = line
        return ticket

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        number = 0
        while True:
            with self._changed:
                while not (self._waiting or self._running or self._closed):
                    self._changed.wait()
                if self._closed and not self._waiting and not self._running:
                    return
                new = {}
                while self._waiting and len(self._running) < self.max_running:
                    number += 1
                    new[number] = self._running[number] = self._next()
                self._most_together = max(self._most_together, len(self._running))
            try:
                self._begin(new)
                for names, batch in list(self._batches.items()):
                    self._step(names, batch)
            except Exception as error:  # whatever it was, the thread lives on and the readers are told
                logger.error("the engine failed: %s", error, exc_info=error)
                for batch in self._batches.values():
                    batch.close()
                self._batches.clear()
                for index in list(self._running):
                    self._end(index, error)

    def _begin(self, new: dict[int, Ticket]) -> None:
        """Reads the conversations of new tickets, those with the same adapters together."""
        groups: dict[tuple[str, ...], list[Turn]] = {}
        for index, ticket in new.items():
            if ticket.cancelled.is_set():
                ticket.put(TurnFinished(Message("assistant", ()), "cancelled"))
                self._end(index)
                continue
            try:
                engine = self._ready()
                turn = engine.turn(index, ticket.request, ticket.previews, ticket.cancelled, ticket.client)
            except Exception as error:
                self._end(index, error)
            else:
                groups.setdefault(engine.adapters.chosen(ticket.request.adapter), []).append(turn)
        for names, turns in groups.items():
            engine = self._ready()
            if names not in self._batches:
                self._batches[names] = engine.batch(self.patience, self._prefixes)
            with engine.alone(names):
                self._batches[names].add(turns)
            for turn in turns:
                if turn.error is not None:
                    self._end(turn.index, turn.error)

    def _step(self, names: tuple[str, ...], batch: Batch) -> None:
        """One step of a batch; its events go to their tickets."""
        turns = list(batch.turns)
        with self._ready().alone(names):
            events = batch.step()
        for index, event in events:
            self._running[index].put(event)
        for turn in turns:
            if turn.is_over:
                self._end(turn.index, turn.error)
        if not batch.turns:
            del self._batches[names]

    def _end(self, index: int, error: Exception | None = None) -> None:
        with self._changed:
            ticket = self._running.pop(index)
            self._answered += 1
        if error is not None:
            if not isinstance(error, RequestError | ContextFullError):  # those are the client's to mend
                logger.error("a request failed: %s", error, exc_info=error)
            ticket.put(error)
        ticket.put(None)

    def _ready(self) -> ChatEngine:
        with self._loading:
            if self._engine is None:
                self._engine = self._load()
            return self._engine

    def _try_to_load(self) -> None:
        try:
            self._ready()
        except Exception as error:
            logger.error("the model could not be loaded: %s", error)


def _raised(event: ChatEvent | Exception) -> ChatEvent:
    if isinstance(event, Exception):
        raise event
    return event
