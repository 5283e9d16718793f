"""B conversations answered together from beginning to end, as one stream of events.

In: a model, its processor and B requests. Out: (row, event). See `batch.py` for how turns share the model.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.chat.batch import Batch
from vargpt.chat.requests import layout_for
from vargpt.chat.turns import Events, Turn, Vocabulary
from vargpt.types import ChatRequest


def make_turn(
    index: int,
    request: ChatRequest,
    model: VARGPT,
    vocabulary: Vocabulary,
    previews: bool = True,
    cancel: threading.Event | None = None,
    owner: str = "",
) -> Turn:
    """The turn of a request that was checked (`check_request`); the arguments are `Turn`'s."""
    layout, sampling = layout_for(model.config, request), request.image_sampling or model.config.sampling()
    return Turn(index, request, layout, sampling, vocabulary, previews, cancel, owner)


def reply(
    model: VARGPT,
    processor: VargptProcessor,
    requests: Sequence[ChatRequest],
    *,
    previews: bool = True,
    cancel: threading.Event | None = None,
    vocabulary: Vocabulary | None = None,
) -> Events:
    """Answers all requests together and yields (index of the request, event); close it to stop at any event.

    Args:
        model: in evaluation mode.
        processor: the model's.
        requests: checked already (`check_request`).
        previews: decode and yield every scale of a forming picture; off saves the decoder's time.
        cancel: when set, every open turn ends with reason "cancelled" and what was finished until then.
        vocabulary: of this processor, to save building it again.

    Raises:
        ContextFullError: a conversation leaves no room for a reply.
        ValueError: a conversation cannot be answered.
        MemoryError: not even one request alone fits into memory.
    """
    vocabulary = vocabulary or Vocabulary(processor, model.config.text_config.vocab_size)
    turns = [make_turn(i, request, model, vocabulary, previews, cancel) for i, request in enumerate(requests)]
    batch = Batch(model, processor, vocabulary)
    try:
        batch.add(turns)
        while True:
            failed = next((turn.error for turn in turns if turn.error is not None), None)
            if failed is not None:
                raise failed
            if not batch.turns:
                return
            yield from batch.step()
    finally:
        batch.close()
