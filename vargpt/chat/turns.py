"""One turn on its way: its router, its text, its pictures so far; and what the text side of a processor means to it.

In: ids that were sampled, pictures that were drawn. Out: the id to feed next, and `ChatEvent`s that wait to be read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from vargpt.assistant.processor import VargptProcessor
from vargpt.chat.edit_constraints import Hold
from vargpt.chat.router import EmitText, Finish, OpenImage, Router, RouterIds, State
from vargpt.chat.streaming import MessageBuilder, TextStream, vocabulary_bytes
from vargpt.sampling import seeded
from vargpt.types import (
    ChatEvent,
    ChatRequest,
    FinishReason,
    ImageLayout,
    ImagePart,
    ImageSampling,
    TextDelta,
    TurnFinished,
)

Events = Iterator[tuple[int, ChatEvent]]


class Vocabulary:
    """What the text side of a processor means to a turn: bytes of every id, steering ids, masks of what may be said."""

    def __init__(self, processor: VargptProcessor, num_logits: int) -> None:
        tokenizer, special = processor.tokenizer, processor.special
        self.bytes = vocabulary_bytes(tokenizer)
        spoken = {special.gen_start, special.im_end}
        marks = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
        unused = range(len(tokenizer), num_logits)  # published embeddings are padded beyond the vocabulary
        self.ids = RouterIds(
            image_start=special.gen_start,
            image_end=special.gen_end,
            end_of_turn=frozenset({special.im_end}),
            control=frozenset((marks | special.never_sampled | set(unused)) - spoken),
        )
        self._num_logits = num_logits
        self._masks: dict[tuple[frozenset[int], torch.device], Tensor] = {}

    def banned(self, ids: frozenset[int], device: torch.device) -> Tensor:
        """True at these ids: "V"."""
        if (ids, device) not in self._masks:
            mask = torch.zeros(self._num_logits, dtype=torch.bool)
            mask[sorted(token_id for token_id in ids if token_id < self._num_logits)] = True
            self._masks[ids, device] = mask.to(device)
        return self._masks[ids, device]


class Turn:
    """One row. Events wait in it until they are collected.

    Args:
        index: by which the caller knows it.
        request: checked already.
        layout: of the pictures it may open.
        sampling: how those are drawn.
        vocabulary: of the model's processor.
        previews: whether every scale of a forming picture becomes an event.
        cancel: when set, the turn ends at the next step.
        owner: whose conversation it is; what is remembered of it is used for the same owner only.
    """

    def __init__(
        self,
        index: int,
        request: ChatRequest,
        layout: ImageLayout,
        sampling: ImageSampling,
        vocabulary: Vocabulary,
        previews: bool = True,
        cancel: threading.Event | None = None,
        owner: str = "",
    ) -> None:
        self.index, self.request, self.layout, self.sampling = index, request, layout, sampling
        self.previews, self.cancel, self.owner = previews, cancel, owner
        self.router = Router(vocabulary.ids, request.route, request.max_images)
        self.rng = seeded([request.seed])[0]
        self.num_tokens = self.num_pictures = 0
        self.read_back: ImagePart | None = None  # the picture that the rest of the turn will see
        self.hold: Hold | None = None  # to what its pictures are held
        self.error: Exception | None = None
        self.ids: list[int] = []  # all that the model has read of this row
        self.seen: list[ImagePart] = []  # and the pictures at its placeholders
        self._text = TextStream(vocabulary.bytes)
        self._builder = MessageBuilder()
        self._waiting: list[ChatEvent] = []

    @property
    def state(self) -> State:
        return self.router.state

    @property
    def is_over(self) -> bool:
        return self.state is State.DONE

    @property
    def is_cancelled(self) -> bool:
        return self.cancel is not None and self.cancel.is_set()

    def emit(self, event: ChatEvent) -> None:
        self._builder.add(event)
        self._waiting.append(event)

    def collect(self) -> Events:
        """The events since the last call."""
        while self._waiting:
            yield self.index, self._waiting.pop(0)

    def take(self, token_id: int, cut: bool) -> int | None:
        """Follows the id that was sampled (`cut`: no more text may come) and returns the id to feed, or None."""
        cut = cut or self.num_tokens >= self.request.text_sampling.max_new_tokens
        action = self.router.cut() if cut else self.router.feed(token_id)
        if isinstance(action, Finish):
            self.finish("length" if cut else "stop")
            return None
        if isinstance(action, OpenImage):
            self._say(self._text.flush())
            return self.router.ids.image_start
        self.num_tokens += 1
        if isinstance(action, EmitText):
            self._say(self._text.feed(token_id))
        return token_id

    def finish(self, reason: FinishReason) -> None:
        if reason == "stop":  # a text that was cut off ends with its last whole character
            self._say(self._text.flush())
        self.router.state = State.DONE
        self.emit(TurnFinished(self._builder.message(), reason, self.num_tokens))

    def fail(self, error: Exception) -> None:
        """Ends the turn with what went wrong instead of an event."""
        self.router.state = State.DONE
        self.error = error

    def _say(self, text: str) -> None:
        if text:
            self.emit(TextDelta(text))
