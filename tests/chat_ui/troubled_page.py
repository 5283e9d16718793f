"""The page on a machine with little room: one is answered at a time, two may wait, and some questions fill the memory.

python -m tests.chat_ui.troubled_page PORT MODEL GATE

While the file GATE exists, a picture that has begun goes no further.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from chat_ui.run import run
from vargpt.assistant.model import VARGPT
from vargpt.chat.engine import ChatEngine
from vargpt.chat.scheduler import Scheduler, Ticket
from vargpt.types import ChatRequest, ImageProgress

TOO_MUCH = "more than fits"  # a question with these words runs out of memory
begin, submit, draw = Scheduler.__init__, Scheduler.submit, VARGPT.draw


def narrow(self: Scheduler, load: Callable[[], ChatEngine]) -> None:
    begin(self, load, max_waiting=2, max_running=1)


def submitting(self: Scheduler, request: ChatRequest, *more: Any, **named: Any) -> Ticket:
    if TOO_MUCH not in request.messages[-1].text:
        short = replace(request.text_sampling, max_new_tokens=6)
        return submit(self, replace(request, text_sampling=short), *more, **named)
    ticket = Ticket(request, "", True, lambda _: 0)
    ticket.put(MemoryError("as the scheduler says it"))
    return ticket


def drawing_at_leave(self: VARGPT, *more: Any, **named: Any) -> Iterator[ImageProgress]:
    for progress in draw(self, *more, **named):
        yield progress
        while Path(sys.argv[3]).exists():
            time.sleep(0.05)


if __name__ == "__main__":
    Scheduler.__init__, Scheduler.submit, VARGPT.draw = narrow, submitting, drawing_at_leave  # type: ignore[method-assign]
    run(port=int(sys.argv[1]), headless=True, model=sys.argv[2])
