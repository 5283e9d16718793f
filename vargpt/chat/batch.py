"""Turns answered together, each beginning and ending when it likes: text token by token, pictures scale by scale.

In: turns, at any time. Out, by every `step`, the events that it brought. One step is one token of everybody who speaks
and one scale of everybody who draws; who has opened a picture waits a little for others, since next-scale prediction
makes the steps of all pictures of one layout line up:

    add -> [ speak | wait -> draw -> read back ] ... until a turn is over

Nothing is kept on the model. Memory that runs out halves what is done at once, for good, and the work goes on.

Shape legend: B rows, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from vargpt.assistant.conversation_state import ConversationState, join_states
from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import EncodedConversation, VargptProcessor
from vargpt.chat.edit_constraints import Hold, hold, together
from vargpt.chat.prefixes import Prefixes
from vargpt.chat.requests import seen_messages
from vargpt.chat.router import State
from vargpt.chat.turns import Turn, Vocabulary
from vargpt.sampling import sample, seeded, settings_of
from vargpt.types import ChatEvent, ImageFinished, ImagePart, ImagePreview, ImageProgress, ImageStarted

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")


@dataclass(eq=False)
class Row:
    """A turn and the state of its conversation alone."""

    turn: Turn
    state: ConversationState
    waited: int = 0  # steps since it opened a picture


@dataclass(eq=False)
class Speakers:
    """Turns that say something, row by row of one state."""

    turns: list[Turn]
    state: ConversationState

    def select(self, rows: Sequence[int]) -> Speakers:
        """A copy with these rows."""
        return Speakers([self.turns[row] for row in rows], self.state.select(rows).without_padding())


@dataclass(eq=False)
class Drawing:
    """Pictures of one layout and way of sampling that form together; a turn has `request.n` of them."""

    rows: list[Row]
    shown: int = 0  # scales
    progress: Iterator[ImageProgress] | None = None  # None = not begun
    canvases: list[tuple[Turn, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.canvases = [(row.turn, number) for row in self.rows for number in range(row.turn.request.n)]

    def close(self) -> None:
        if self.progress is not None:
            self.progress.close()  # type: ignore[attr-defined]


class Batch:
    """The turns that one model answers at present.

    Args:
        model: in evaluation mode, with the adapters of these turns on whenever `add` or `step` is called.
        processor: the model's.
        vocabulary: of this processor.
        patience: steps that an opened picture waits for others while somebody still speaks; None = until nobody does.
        max_rows: turns that speak, or pictures that are drawn, in one forward pass.
        prefixes: what is remembered from turn to turn; None = nothing.
    """

    def __init__(
        self,
        model: VARGPT,
        processor: VargptProcessor,
        vocabulary: Vocabulary,
        patience: int | None = None,
        max_rows: int = 64,
        prefixes: Prefixes | None = None,
    ) -> None:
        self.model, self.processor, self.vocabulary = model, processor, vocabulary
        self.patience, self.max_rows, self.prefixes = patience, max_rows, prefixes
        self.turns: list[Turn] = []
        self._speakers: list[Speakers] = []
        self._opened: list[Row] = []
        self._drawings: list[Drawing] = []

    def add(self, turns: Sequence[Turn]) -> None:
        """Reads the conversations of more turns; from now on they are part of every step.

        A turn whose conversation cannot be answered fails (`Turn.error`) and the others go on.
        """
        ready: list[tuple[Turn, EncodedConversation]] = []
        for turn in turns:
            try:
                encoded = self.processor.waiting_ids(seen_messages(turn.request.messages))
            except Exception as error:  # one conversation must not bring down those of others
                turn.fail(error)
                continue
            turn.ids, turn.seen = list(encoded.input_ids), list(encoded.pictures)
            ready.append((turn, encoded))
        self.turns += [turn for turn, _ in ready]
        for part in in_parts(ready, self.max_rows):
            self._together(part, self._read, [turn for turn, _ in part])
        self.turns = [turn for turn in self.turns if not turn.is_over]  # whoever failed is told by `turn.error`

    @torch.inference_mode()
    def step(self) -> list[tuple[int, ChatEvent]]:
        """One token or scale for every turn; returns (index of the turn, event), each turn's in order."""
        self._leave_out_cancelled()
        for speakers in list(self._speakers):
            self._speakers.remove(speakers)
            self._say(speakers)
        for drawing in list(self._drawings):
            self._draw(drawing)
        self._begin_drawings()
        events = [pair for turn in self.turns for pair in turn.collect()]
        self.turns = [turn for turn in self.turns if not turn.is_over]
        return events

    def close(self) -> None:
        """Leaves all turns as they are; nothing stays behind."""
        for drawing in self._drawings:
            drawing.close()
        self.turns, self._speakers, self._opened, self._drawings = [], [], [], []

    # -- reading ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _read(self, part: Sequence[tuple[Turn, EncodedConversation]]) -> None:
        """Those that go on from something remembered one by one, the others together; then all speak."""
        fresh, states, turns = [], [], []
        for turn, encoded in part:
            found = (
                None if self.prefixes is None else self.prefixes.find(turn.owner, encoded.input_ids, encoded.pictures)
            )
            if found is None:
                fresh.append((turn, encoded))
                continue
            length, state = found
            tensors = self.processor.tensors_of([self.processor.after(encoded, length)], self.model)
            states.append(self.model.extend(state, **tensors))
            turns.append(turn)
        if fresh:
            tensors = self.processor.tensors_of([encoded for _, encoded in fresh], self.model)
            states.append(self.model.extend(None, **tensors))
            turns += [turn for turn, _ in fresh]
        self._join(turns, join_states(states))

    def _join(self, turns: Sequence[Turn], state: ConversationState) -> None:
        """More speakers, in one state with others while that stays small enough."""
        for speakers in self._speakers:
            if len(speakers.turns) + len(turns) <= self.max_rows:
                speakers.turns += turns
                speakers.state = join_states([speakers.state, state])
                return
        self._speakers.append(Speakers(list(turns), state))

    # -- speaking --------------------------------------------------------------------------------------------------

    def _say(self, speakers: Speakers) -> None:
        """One token of everybody in a group. Who ends his turn leaves it; who opens a picture waits to draw."""
        turns, state = speakers.turns, speakers.state
        sampled = choose(state.logits, turns, self.vocabulary)
        full = [len(turn.ids) >= self.processor.max_context for turn in turns]
        fed = [turn.take(token_id, cut) for turn, token_id, cut in zip(turns, sampled, full, strict=True)]
        self._remember([row for row, token_id in enumerate(fed) if token_id is None], speakers)
        going_on = [row for row, token_id in enumerate(fed) if token_id is not None]
        if going_on:
            kept = speakers if len(going_on) == len(turns) else speakers.select(going_on)
            self._feed(kept, [token_id for token_id in fed if token_id is not None])

    def _feed(self, speakers: Speakers, ids: Sequence[int]) -> None:
        """The model reads one more id of every row; a group that does not fit into memory is halved."""
        column = torch.tensor(ids, device=speakers.state.mask.device)[:, None]
        try:
            state = self.model.extend(speakers.state, column, torch.ones_like(column))
        except Exception as error:
            speakers.state.rewind()
            if not is_out_of_memory(error) or len(ids) == 1:
                fail_all(speakers.turns, error)
                return
            for half in self._halved(range(len(ids)), error):
                self._feed(speakers.select(half), [ids[row] for row in half])
            return
        for turn, token_id in zip(speakers.turns, ids, strict=True):
            turn.ids.append(token_id)
        fed = Speakers(speakers.turns, state)
        opened = [row for row, turn in enumerate(fed.turns) if turn.state is State.IMAGE]
        self._opened += [Row(fed.turns[row], fed.select([row]).state) for row in opened]
        speaking = [row for row in range(len(ids)) if row not in opened]
        if speaking:
            self._speakers.append(fed.select(speaking) if opened else fed)

    def _remember(self, rows: Sequence[int], speakers: Speakers) -> None:
        """Keeps what turns that are over have read, for the next turn of the same conversation."""
        if self.prefixes is not None:
            for row in rows:
                turn = speakers.turns[row]
                self.prefixes.put(turn.owner, turn.ids, turn.seen, speakers.select([row]).state)

    # -- drawing ---------------------------------------------------------------------------------------------------

    def _begin_drawings(self) -> None:
        """Opens the pictures that have waited long enough, those of one kind together."""
        for row in self._opened:
            row.waited += 1
        patient = self.patience is None or all(row.waited <= self.patience for row in self._opened)
        if not self._opened or (self._speakers and patient):
            return
        opened, self._opened = self._opened, []
        while opened:
            alike = [row for row in opened if draws_like(row.turn, opened[0].turn)]
            opened = [row for row in opened if row not in alike]
            for part in in_parts(alike, self.max_rows, size=lambda row: row.turn.request.n):
                drawing = Drawing(part)
                self._drawings.append(drawing)
                for turn, number in drawing.canvases:
                    turn.emit(ImageStarted(turn.num_pictures + number, turn.layout))

    def _begun(self, rows: Sequence[Row]) -> Iterator[ImageProgress]:
        """The pictures of these rows, scale by scale."""
        state = join_states([row.state for row in rows])
        repeated = state.select([place for place, row in enumerate(rows) for _ in range(row.turn.request.n)])
        first = rows[0].turn
        seeds = [row.turn.request.seed + row.turn.num_pictures + n for row in rows for n in range(row.turn.request.n)]
        held = [self._held(row.turn) for row in rows for _ in range(row.turn.request.n)]
        kept, faithful = together(held, first.layout, self.model)
        rngs = seeded(seeds)
        return iter(self.model.draw(repeated, first.layout, first.sampling, rngs, fixed=kept, bias=faithful))

    def _held(self, turn: Turn) -> Hold:
        """To what the pictures of a turn are held; found when the first one is opened."""
        if turn.hold is None:
            turn.hold = hold(self.model, self.processor, turn.request, turn.layout)
        return turn.hold

    def _draw(self, drawing: Drawing) -> None:
        """One more scale; what does not fit into memory is begun again in halves."""
        try:
            drawing.progress = drawing.progress or self._begun(drawing.rows)
            progress = next(drawing.progress)
            if progress.step == progress.total:
                self._drawings.remove(drawing)
                self._finish(drawing, progress)
            elif progress.step > drawing.shown:
                drawing.shown = progress.step
                self._preview(drawing, progress)
        except Exception as error:
            if drawing in self._drawings:
                self._drawings.remove(drawing)
            if len(drawing.rows) == 1:
                fail_all([row.turn for row in drawing.rows], error)
                return
            self._drawings += [Drawing(half, drawing.shown) for half in self._halved(drawing.rows, error)]

    def _preview(self, drawing: Drawing, progress: ImageProgress) -> None:
        wanted = [place for place, (turn, _) in enumerate(drawing.canvases) if turn.previews and not turn.is_over]
        if not wanted:
            return
        pictures = self._pictures(progress, wanted)
        for place, image in zip(wanted, pictures, strict=True):
            turn, number = drawing.canvases[place]
            shown = self._held(turn).preview(image)
            turn.emit(ImagePreview(turn.num_pictures + number, shown, progress.step, progress.total))

    def _finish(self, drawing: Drawing, progress: ImageProgress) -> None:
        """Hands out the finished pictures and lets the first of every turn be read back."""
        images = self._pictures(progress, range(len(drawing.canvases)))
        tokens = progress.tokens.to("cpu")
        for place, ((turn, number), image) in enumerate(zip(drawing.canvases, images, strict=True)):
            held = self._held(turn)
            seed, settings = seed_and_settings(turn, number)
            part = ImagePart(held.finish(image), tokens.select([place]), seed, settings | (held.settings or {}))
            if number == 0:
                turn.read_back = part
            if not turn.is_over:
                turn.emit(ImageFinished(turn.num_pictures + number, part))
        rows = [row for row in drawing.rows if not row.turn.is_over]
        for row in rows:
            row.turn.num_pictures += row.turn.request.n
        if rows:
            self._together(rows, self._read_back, [row.turn for row in rows])

    def _pictures(self, progress: ImageProgress, wanted: Sequence[int]) -> list:
        tokens = progress.tokens.select(list(wanted))
        return self.processor.to_pil(self.model.image_tokenizer.decode(tokens))

    def _read_back(self, rows: Sequence[Row]) -> None:
        """Closes drawn pictures in their conversations: the model sees them, and text goes on."""
        turns = [row.turn for row in rows]
        parts = [part for turn in turns if (part := turn.read_back) is not None]
        tail = self.processor.encode_drawn(parts, self.model)
        state = self.model.extend(join_states([row.state for row in rows]), **tail)
        for turn, part in zip(turns, parts, strict=True):
            turn.ids += self.processor.drawn_ids(part)
            turn.seen.append(part)
            turn.router.feed(turn.router.ids.image_end)
        self._join(turns, state)

    # -- what goes wrong -------------------------------------------------------------------------------------------

    def _together(self, items: Sequence[Item], work: Callable[[Sequence[Item]], None], turns: Sequence[Turn]) -> None:
        """`work` on all items at once, on halves if that fails; in the end only the turn that cannot be done fails."""
        try:
            work(items)
        except Exception as error:
            if len(items) == 1:
                fail_all(turns, error)
                return
            half = len(self._halved(items, error)[0])
            self._together(items[:half], work, turns[:half])
            self._together(items[half:], work, turns[half:])

    def _halved(self, items: Sequence[Item], error: Exception) -> tuple[list[Item], list[Item]]:
        """Two halves of what failed together; if memory was short, no more than the larger is done at once any more."""
        half = (len(items) + 1) // 2
        if is_out_of_memory(error):
            self.max_rows = max(1, min(self.max_rows, half))
            logger.warning("memory is short: at most %d rows together from now on", self.max_rows)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return list(items[:half]), list(items[half:])

    def _leave_out_cancelled(self) -> None:
        """Ends the turns that were cancelled, and drops their rows where that saves work at once."""
        gone = {id(turn) for turn in self.turns if turn.is_cancelled}
        if not gone:
            return
        for turn in self.turns:
            if id(turn) in gone:
                turn.finish("cancelled")
        self._opened = [row for row in self._opened if id(row.turn) not in gone]
        for speakers in list(self._speakers):
            kept = [row for row, turn in enumerate(speakers.turns) if id(turn) not in gone]
            if not kept:
                self._speakers.remove(speakers)
            elif len(kept) < len(speakers.turns):
                self._speakers[self._speakers.index(speakers)] = speakers.select(kept)
        for drawing in list(self._drawings):
            if all(row.turn.is_over for row in drawing.rows):
                self._drawings.remove(drawing)
                drawing.close()


def choose(logits: Float[Tensor, "B V"], turns: Sequence[Turn], vocabulary: Vocabulary) -> list[int]:
    """The next id of every row, by its own settings and its own generator."""
    banned = torch.stack([vocabulary.banned(turn.router.banned, logits.device) for turn in turns])
    logits = logits.masked_fill(banned, float("-inf"))
    chosen = logits.argmax(-1).tolist()
    for row, turn in enumerate(turns):
        how = turn.request.text_sampling
        if how.temperature > 0:
            row_logits = logits[row : row + 1]
            chosen[row] = int(sample(row_logits, how.temperature, [turn.rng], how.top_k, how.top_p))
    return chosen


def draws_like(turn: Turn, other: Turn) -> bool:
    return turn.layout == other.layout and turn.sampling == other.sampling


def seed_and_settings(turn: Turn, number: int) -> tuple[int, dict]:
    """What a picture's file says of how it was drawn; `number` counts the pictures of one opening."""
    size = [turn.layout.height, turn.layout.width]
    settings = settings_of(turn.sampling) | {"size": size, "opening": turn.router.num_images - 1, "alternative": number}
    if turn.request.adapter:
        settings["adapter"] = turn.request.adapter
    return turn.request.seed + turn.num_pictures + number, settings


def fail_all(turns: Sequence[Turn], error: Exception) -> None:
    if is_out_of_memory(error):
        error = MemoryError(
            "not even this one request fits into memory; ask for a smaller or for fewer pictures, or shorten the "
            f"conversation ({error})"
        )
    for turn in turns:
        if not turn.is_over:
            turn.fail(error)


def is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)


def in_parts(items: Sequence[Item], most: int, size: Callable[[Item], int] = lambda item: 1) -> Iterator[list[Item]]:
    """Runs of items whose sizes add up to `most` at most; an item that is larger stands alone."""
    part: list[Item] = []
    for item in items:
        if part and sum(map(size, part)) + size(item) > most:
            yield part
            part = []
        part.append(item)
    if part:
        yield part
