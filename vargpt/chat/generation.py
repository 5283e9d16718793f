"""B conversations answered together: text token by token, pictures scale by scale, as one stream of events.

In: a model, its processor and B requests. Out: (row, event). All rows speak until each has opened a picture or ended;
the rows that opened one are drawn together; the drawn pictures are read back; and the text goes on:

    prefill -> [ speak -> draw -> read back ] until every turn is done

Nothing is kept on the model, so that leaving the stream at any event leaves nothing behind.

Shape legend: B rows, V vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from vargpt.chat.holding import Hold, hold, together
from vargpt.chat.requests import layout_for, seen_messages
from vargpt.chat.router import EmitText, Finish, OpenImage, Router, RouterIds, State
from vargpt.chat.streaming import MessageBuilder, TextStream, vocabulary_bytes
from vargpt.drawing import ConversationState
from vargpt.model import VARGPT
from vargpt.processing import VargptProcessor
from vargpt.sampling import sample, seeded
from vargpt.types import (
    ChatEvent,
    ChatRequest,
    FinishReason,
    ImageFinished,
    ImageLayout,
    ImagePart,
    ImagePreview,
    ImageProgress,
    ImageSampling,
    ImageStarted,
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
    """One row: its router, its text, its pictures so far. Events wait in it until they are collected."""

    def __init__(
        self, index: int, request: ChatRequest, layout: ImageLayout, sampling: ImageSampling, vocabulary: Vocabulary
    ) -> None:
        self.index, self.request, self.layout, self.sampling = index, request, layout, sampling
        self.router = Router(vocabulary.ids, request.route, request.max_images)
        self.rng = seeded([request.seed])[0]
        self.num_tokens = self.num_pictures = 0
        self.read_back: ImagePart | None = None  # the picture that the rest of the turn will see
        self.hold: Hold | None = None  # to what its pictures are held; found when the first one is opened
        self._text = TextStream(vocabulary.bytes)
        self._builder = MessageBuilder()
        self._waiting: list[ChatEvent] = []

    @property
    def state(self) -> State:
        return self.router.state

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

    def _say(self, text: str) -> None:
        if text:
            self.emit(TextDelta(text))


@torch.inference_mode()
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
    """
    if not requests:
        return
    vocabulary = vocabulary or Vocabulary(processor, model.config.text_config.vocab_size)
    default = model.config.sampling()
    turns = [
        Turn(i, request, layout_for(model.config, request), request.image_sampling or default, vocabulary)
        for i, request in enumerate(requests)
    ]
    open_turns = turns
    state = model.extend(None, **processor.encode([seen_messages(request.messages) for request in requests], model))
    while True:
        state = yield from _speak(model, state, open_turns, vocabulary, processor.max_context, cancel)
        rows = [row for row, turn in enumerate(open_turns) if turn.state is State.IMAGE]
        if not rows or _is_set(cancel):
            break
        open_turns, state = [open_turns[row] for row in rows], state.select(rows)
        yield from _draw(model, processor, state, open_turns, previews, cancel)
        if _is_set(cancel):
            break
        state = _read_back(model, processor, state, open_turns)
    for turn in turns:
        if turn.state is not State.DONE:
            turn.finish("cancelled")
        yield from turn.collect()


def _speak(
    model: VARGPT,
    state: ConversationState,
    turns: Sequence[Turn],
    vocabulary: Vocabulary,
    max_context: int,
    cancel: threading.Event | None,
) -> Generator[tuple[int, ChatEvent], None, ConversationState]:
    """Samples text until no row is in the middle of one; returns the state then."""
    while any(turn.state is State.TEXT for turn in turns) and not _is_set(cancel):
        full = state.length >= max_context
        sampled = _choose(state.logits, turns, vocabulary)
        fed = [
            turn.take(token_id, full) if turn.state is State.TEXT else None
            for turn, token_id in zip(turns, sampled, strict=True)
        ]
        for turn in turns:
            yield from turn.collect()
        if any(token_id is not None for token_id in fed):
            device = state.logits.device
            ids = torch.tensor([[token_id or 0] for token_id in fed], device=device)
            mask = torch.tensor([[token_id is not None] for token_id in fed], device=device)
            state = model.extend(state, ids, mask)
    return state


def _choose(logits: Float[Tensor, "B V"], turns: Sequence[Turn], vocabulary: Vocabulary) -> list[int]:
    """The next id of every row, by its own settings and its own generator."""
    banned = torch.stack([vocabulary.banned(turn.router.banned, logits.device) for turn in turns])
    logits = logits.masked_fill(banned, float("-inf"))
    chosen = logits.argmax(-1).tolist()
    for row, turn in enumerate(turns):
        how = turn.request.text_sampling
        if how.temperature > 0 and turn.state is State.TEXT:
            row_logits = logits[row : row + 1]
            chosen[row] = int(sample(row_logits, how.temperature, [turn.rng], how.top_k, how.top_p))
    return chosen


def _draw(
    model: VARGPT,
    processor: VargptProcessor,
    state: ConversationState,
    turns: Sequence[Turn],
    previews: bool,
    cancel: threading.Event | None,
) -> Events:
    """Draws for all rows, those of one layout and one way of sampling together."""
    waiting = list(range(len(turns)))
    while waiting:
        first = turns[waiting[0]]
        group = [row for row in waiting if _draws_like(turns[row], first)]
        waiting = [row for row in waiting if row not in group]
        yield from _draw_group(model, processor, state, [(row, turns[row]) for row in group], previews, cancel)
        if _is_set(cancel):
            return


def _draws_like(turn: Turn, other: Turn) -> bool:
    return turn.layout == other.layout and turn.sampling == other.sampling


def _draw_group(
    model: VARGPT,
    processor: VargptProcessor,
    state: ConversationState,
    group: Sequence[tuple[int, Turn]],
    previews: bool,
    cancel: threading.Event | None,
) -> Events:
    layout, sampling = group[0][1].layout, group[0][1].sampling
    rows = [row for row, turn in group for _ in range(turn.request.n)]
    canvases = [(turn, number) for _, turn in group for number in range(turn.request.n)]
    for turn, number in canvases:
        turn.emit(ImageStarted(turn.num_pictures + number, layout))
    yield from _collect(turn for turn, _ in canvases)
    rngs = seeded([turn.request.seed + turn.num_pictures + number for turn, number in canvases])
    kept, faithful = together([_held(model, processor, turn) for turn, _ in canvases], layout, model)
    steps = iter(model.draw(state.select(rows), layout, sampling, rngs, kept=kept, faithful=faithful))
    with closing(steps) as drawing:  # type: ignore[type-var]
        for progress in drawing:
            if _is_set(cancel):
                return
            if progress.step == progress.total:
                _finish_pictures(model, processor, progress, canvases)
            elif previews:
                for (turn, number), page in zip(canvases, _pages(model, processor, progress), strict=True):
                    image = _held(model, processor, turn).preview(page)
                    turn.emit(ImagePreview(turn.num_pictures + number, image, progress.step, progress.total))
            yield from _collect(turn for turn, _ in canvases)
    for _, turn in group:
        turn.num_pictures += turn.request.n


def _finish_pictures(
    model: VARGPT, processor: VargptProcessor, progress: ImageProgress, canvases: Sequence[tuple[Turn, int]]
) -> None:
    pages, tokens = _pages(model, processor, progress), progress.tokens.to("cpu")
    for place, ((turn, number), page) in enumerate(zip(canvases, pages, strict=True)):
        held = _held(model, processor, turn)
        index, size = turn.num_pictures + number, [turn.layout.height, turn.layout.width]
        marks = {"size": size, "opening": turn.router.num_images - 1, "alternative": number}
        settings = asdict(turn.sampling) | marks | (held.settings or {})
        if turn.request.adapter:
            settings["adapter"] = turn.request.adapter
        part = ImagePart(held.finish(page), tokens.select([place]), turn.request.seed + index, settings)
        if number == 0:
            turn.read_back = part
        turn.emit(ImageFinished(index, part))


def _pages(model: VARGPT, processor: VargptProcessor, progress: ImageProgress) -> list[Image]:
    return processor.to_pil(model.image_tokenizer.decode(progress.tokens))


def _held(model: VARGPT, processor: VargptProcessor, turn: Turn) -> Hold:
    if turn.hold is None:
        turn.hold = hold(model, processor, turn.request, turn.layout)
    return turn.hold


def _read_back(
    model: VARGPT, processor: VargptProcessor, state: ConversationState, turns: Sequence[Turn]
) -> ConversationState:
    """Closes the drawn pictures in the conversation: the model sees them, and text goes on."""
    tail = processor.encode_drawn([turn.read_back for turn in turns], model)
    for turn in turns:
        turn.router.feed(turn.router.ids.image_end)
    return model.extend(state, **tail)


def _collect(turns: Iterable[Turn]) -> Events:
    for turn in dict.fromkeys(turns):
        yield from turn.collect()


def _is_set(cancel: threading.Event | None) -> bool:
    return cancel is not None and cancel.is_set()
