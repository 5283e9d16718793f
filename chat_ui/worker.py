"""One engine for the whole page and one thread to run it, so turns of all visitors queue up in order.

In: a request. Out: its events on the asyncio side, as they happen. The thread is the lock: whatever the engine keeps
between tokens is never touched by two turns.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from vargpt.types import ChatEvent, ChatRequest

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """What the page needs of `vargpt.chat.engine.ChatEngine`."""

    def stream(self, request: ChatRequest, cancel: threading.Event | None = None) -> Iterator[ChatEvent]:
        """The events of one turn; blocks, and ends soon after `cancel` is set."""


class Worker:
    """Runs turns one after another. `load` is called once, in the thread; if it fails, the next turn tries again."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load = load
        self._engine: Engine | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._running: set[threading.Event] = set()

    @property
    def is_loaded(self) -> bool:
        return self._engine is not None

    @property
    def num_waiting(self) -> int:
        """Turns that are running or wait for their turn."""
        return len(self._running)

    def warm_up(self) -> None:
        """Starts loading; returns at once. A failure is logged here and told to whoever asks first."""
        self._thread.submit(self._ready).add_done_callback(_log_failure)

    async def stream(self, request: ChatRequest, cancel: threading.Event) -> AsyncIterator[ChatEvent]:
        """The events of one turn; leaving the loop early cancels it.

        Raises:
            ValueError: as the engine said it: what was asked cannot be answered.
            FileNotFoundError: there is no model where one should be.
            RuntimeError: everything else that went wrong there; the log has the whole story.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[ChatEvent | None] = asyncio.Queue()
        self._running.add(cancel)

        def turn() -> None:
            if cancel.is_set():
                return
            for event in self._ready().stream(request, cancel=cancel):
                loop.call_soon_threadsafe(events.put_nowait, event)

        future = loop.run_in_executor(self._thread, turn)
        future.add_done_callback(lambda _: events.put_nowait(None))  # runs after the events that were put before it
        future.add_done_callback(_log_failure)
        try:
            while (event := await events.get()) is not None:
                yield event
            _raise_what_went_wrong(future)
        finally:
            cancel.set()
            future.cancel()  # a turn that has not begun never will
            self._running.discard(cancel)

    def close(self) -> None:
        """Cancels what runs, forgets what waits; does not block."""
        for cancel in tuple(self._running):
            cancel.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ready(self) -> Engine:
        if self._engine is None:
            self._engine = self._load()
        return self._engine


def _log_failure(future: asyncio.Future | Future) -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None and not isinstance(error, ValueError):
        logger.error("the engine failed: %s", error, exc_info=error)


def _raise_what_went_wrong(future: asyncio.Future) -> None:
    error = None if future.cancelled() else future.exception()
    if error is None:
        return
    if isinstance(error, ValueError | FileNotFoundError):
        raise error
    raise RuntimeError(f"{type(error).__name__}: {error}") from error
