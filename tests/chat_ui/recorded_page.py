"""The page as it is, and a file that says what it asked of the model: what no one can see in a browser.

python -m tests.chat_ui.recorded_page PORT MODEL OPTIONS-AS-JSON FILE
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from chat_ui.run import run
from vargpt.chat.scheduler import Scheduler, Ticket
from vargpt.types import ChatRequest

submit = Scheduler.submit


def summary(request: ChatRequest) -> dict[str, Any]:
    """The fields of a request that the page decides about, as JSON."""
    region = request.region
    return {
        "words": request.messages[-1].text,
        "num_messages": len(request.messages),
        "pictures_seen": sum(len(message.images) for message in request.messages),
        "route": request.route,
        "n": request.n,
        "seed": request.seed,
        "size": request.size,
        "adapter": request.adapter,
        "faithfulness": request.faithfulness,
        "given_seed": request.given.seed if request.given else None,
        "keep_scales": request.keep_scales,
        "region": None if region is None else {"mode": region.mode, "size": region.size, "box": region.getbbox()},
    }


def record(file: Path, max_tokens: int) -> None:
    """From now on every request that is queued is written to `file`, and answered in `max_tokens` tokens of words."""

    def recording(self: Scheduler, request: ChatRequest, *more: Any, **named: Any) -> Ticket:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(summary(request)) + "\n")
        if max_tokens:
            short = replace(request.text_sampling, max_new_tokens=max_tokens)
            request = replace(request, text_sampling=short)
        return submit(self, request, *more, **named)

    Scheduler.submit = recording  # type: ignore[method-assign]


if __name__ == "__main__":
    port, model, options, file, max_tokens = sys.argv[1:]
    record(Path(file), int(max_tokens))
    run(port=int(port), headless=True, model=model or None, options=json.loads(options) or None)
