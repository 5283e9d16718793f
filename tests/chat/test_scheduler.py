"""Many clients, one engine: fairness, batches that form and dissolve, what is remembered, and what must never mix."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.chat.scripted import ask, drawing_engine, red_square, text_of
from vargpt.chat.batch import Batch, in_parts
from vargpt.chat.engine import ChatEngine, ContextFullError
from vargpt.chat.prefixes import Prefixes
from vargpt.chat.scheduler import QueueFullError, Scheduler, Ticket
from vargpt.sampling import seeded
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import ChatRequest, ImageSampling, ImageStarted, Message, TextSampling, TurnFinished

PATIENCE = 60.0  # seconds, for a machine that does other things


@pytest.fixture(scope="module")
def engine() -> ChatEngine:
    return drawing_engine()


@pytest.fixture(scope="module")
def free() -> ChatEngine:
    return ChatEngine(tiny_model(), tiny_processor())


@pytest.fixture
def make() -> Iterator[Callable[..., Scheduler]]:
    made: list[Scheduler] = []

    def scheduler(engine: ChatEngine | Callable[[], ChatEngine], **options: int) -> Scheduler:
        made.append(Scheduler(engine if not isinstance(engine, ChatEngine) else lambda: engine, **options))
        return made[-1]

    yield scheduler
    for one in made:
        one.close()


def finished(ticket: Ticket) -> TurnFinished:
    *_, last = ticket
    assert isinstance(last, TurnFinished)
    return last


def bits(turn: TurnFinished) -> torch.Tensor:
    return turn.message.images[0].tokens.flat()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Gate:
    """Keeps the scheduler's thread in `load` until it is opened, so that requests pile up."""

    def __init__(self, engine: ChatEngine) -> None:
        self.engine, self.open, self.reached = engine, threading.Event(), threading.Event()

    def __call__(self) -> ChatEngine:
        self.reached.set()
        assert self.open.wait(PATIENCE)
        return self.engine


def test_a_ticket_reads_like_a_stream_of_the_engine(engine: ChatEngine, make: Callable[..., Scheduler]) -> None:
    alone, events = list(engine.stream(ask(seed=5))), list(make(engine).submit(ask(seed=5)))
    assert [type(event) for event in events] == [type(event) for event in alone]
    assert events[-1].message == alone[-1].message


def test_requests_that_wait_together_are_answered_together_and_like_alone(
    free: ChatEngine, make: Callable[..., Scheduler]
) -> None:
    warm = ImageSampling(temperature=1.0)
    requests = [
        ask("hi", red_square(), seed=1, text_sampling=TextSampling(temperature=1.0, max_new_tokens=6)),
        ask("draw a much longer wish than the others", route="image", n=2, seed=2, image_sampling=warm),
        ask("draw", route="image", seed=3, image_sampling=warm, text_sampling=TextSampling(max_new_tokens=3)),
        ask("draw", route="image", size=(16, 32), seed=4),
    ]
    gate = Gate(free)
    scheduler = make(gate)
    scheduler.submit(ask("first", route="text"))
    assert gate.reached.wait(PATIENCE)
    tickets = [scheduler.submit(request, client=str(number)) for number, request in enumerate(requests)]
    gate.open.set()
    for ticket, request in zip(tickets, requests, strict=True):
        turn, alone = finished(ticket), free.reply(request)
        assert turn.message.text == alone.message.text
        assert (turn.reason, turn.num_text_tokens) == (alone.reason, alone.num_text_tokens)
        assert [part.seed for part in turn.message.images] == [part.seed for part in alone.message.images]
        for ours, theirs in zip(turn.message.images, alone.message.images, strict=True):
            assert torch.equal(ours.tokens.flat(), theirs.tokens.flat())
    assert scheduler.load.most_together >= 4


def test_somebody_who_comes_later_joins_those_who_are_being_answered(
    engine: ChatEngine, make: Callable[..., Scheduler]
) -> None:
    scheduler = make(engine)
    long = ask("x", route="text", text_sampling=TextSampling(max_new_tokens=400))
    free = ChatEngine(tiny_model(), tiny_processor())  # rambles
    scheduler = make(free)
    first = iter(scheduler.submit(long))
    next(first)
    second = finished(scheduler.submit(ask("y", route="text", text_sampling=TextSampling(max_new_tokens=3))))
    assert second.num_text_tokens <= 3
    if not any(isinstance(event, TurnFinished) for event in first):
        pytest.fail("the first turn was lost")
    assert scheduler.load.most_together == 2


def test_clients_take_turns(engine: ChatEngine, make: Callable[..., Scheduler]) -> None:
    gate = Gate(engine)
    scheduler = make(gate, max_running=1)
    scheduler.submit(ask(), client="a")
    assert gate.reached.wait(PATIENCE)
    greedy = [scheduler.submit(ask(), client="a") for _ in range(3)]
    other = scheduler.submit(ask(), client="b")
    assert [ticket.position for ticket in (*greedy, other)] == [1, 3, 4, 2]
    gate.open.set()
    finished(other)
    assert greedy[2].position > 0
    assert finished(greedy[2]).reason == "stop"
    assert greedy[2].position == 0


def test_a_full_queue_refuses_and_a_closed_scheduler_too(engine: ChatEngine, make: Callable[..., Scheduler]) -> None:
    gate = Gate(engine)
    scheduler = make(gate, max_waiting=2, max_running=1)
    scheduler.submit(ask())
    assert gate.reached.wait(PATIENCE)
    waiting = [scheduler.submit(ask()) for _ in range(2)]
    with pytest.raises(QueueFullError, match="2 requests are waiting"):
        scheduler.submit(ask())
    gate.open.set()
    assert finished(waiting[1]).reason == "stop"
    scheduler.close()
    with pytest.raises(RuntimeError, match="closed"):
        scheduler.submit(ask())


@pytest.mark.parametrize("number", range(7))
def test_cancelling_one_of_two_leaves_the_other_as_it_is(
    engine: ChatEngine, make: Callable[..., Scheduler], number: int
) -> None:
    alone = engine.reply(ask(seed=7))
    scheduler = make(engine)
    going, leaving = scheduler.submit(ask(seed=7)), scheduler.submit(ask(seed=8))
    last = None
    for place, event in enumerate(leaving):
        last = event
        if place == number:
            leaving.cancel()
    assert isinstance(last, TurnFinished) and last.reason in ("cancelled", "stop")
    turn = finished(going)
    assert turn.message.text == alone.message.text and torch.equal(bits(turn), bits(alone))


def test_who_no_longer_reads_is_no_longer_answered(free: ChatEngine, make: Callable[..., Scheduler]) -> None:
    scheduler = make(free)
    for event in scheduler.submit(ask("x", route="text", text_sampling=TextSampling(max_new_tokens=100_000))):
        assert event is not None
        break
    until(lambda: scheduler.load.running == 0)


def test_events_reach_an_event_loop(engine: ChatEngine, make: Callable[..., Scheduler]) -> None:
    scheduler = make(engine)

    async def read(seed: int) -> str:
        return text_of([event async for event in scheduler.submit(ask(seed=seed), client=str(seed))])

    async def all_of_them() -> list[str]:
        return await asyncio.wait_for(asyncio.gather(*map(read, range(4))), PATIENCE)

    assert asyncio.run(all_of_them()) == ["ok!"] * 4


def test_what_cannot_be_answered_is_told_to_its_reader_alone(
    engine: ChatEngine, make: Callable[..., Scheduler]
) -> None:
    gate = Gate(engine)
    scheduler = make(gate)
    first = scheduler.submit(ask())
    assert gate.reached.wait(PATIENCE)
    bad = [scheduler.submit(ask(n=99)), scheduler.submit(ask("word " * 2000)), scheduler.submit(ask(adapter="no"))]
    good = scheduler.submit(ask(seed=3))
    gate.open.set()
    for ticket, (kind, words) in zip(
        bad, [(ValueError, "between 1 and 16"), (ContextFullError, "oldest pictures"), (ValueError, "adapter")],
        strict=True,
    ):  # fmt: skip
        with pytest.raises(kind, match=words):
            finished(ticket)
    assert finished(first).reason == finished(good).reason == "stop"


def test_a_model_that_cannot_be_loaded_is_tried_again(engine: ChatEngine, make: Callable[..., Scheduler]) -> None:
    attempts = []

    def load() -> ChatEngine:
        attempts.append(1)
        if len(attempts) == 1:
            raise FileNotFoundError("no model there")
        return engine

    scheduler = make(load)
    with pytest.raises(FileNotFoundError, match="no model there"):
        finished(scheduler.submit(ask()))
    assert finished(scheduler.submit(ask())).reason == "stop"


def test_an_engine_that_breaks_fails_its_requests_and_lives_on(make: Callable[..., Scheduler]) -> None:
    engine = drawing_engine()
    draw = engine.model.draw

    def broken(*args: object, **fields: object) -> object:
        engine.model.draw = draw
        raise RuntimeError("a wire came off")

    engine.model.draw = broken
    scheduler = make(engine)
    with pytest.raises(RuntimeError, match="a wire came off"):
        finished(scheduler.submit(ask()))
    assert finished(scheduler.submit(ask())).reason == "stop"


def test_a_conversation_that_breaks_the_processor_harms_nobody_else(make: Callable[..., Scheduler]) -> None:
    engine = drawing_engine()
    read = engine.processor.text_ids

    def fragile(text: str) -> list[int]:
        if "poison" in text:
            raise TypeError("not even text")
        return read(text)

    engine.processor.text_ids = fragile
    gate = Gate(engine)
    scheduler = make(gate)
    scheduler.submit(ask())
    assert gate.reached.wait(PATIENCE)
    tickets = [scheduler.submit(ask(words)) for words in ("draw a fox", "poison", "draw a cat")]
    gate.open.set()
    with pytest.raises(TypeError, match="not even text"):
        finished(tickets[1])
    assert finished(tickets[0]).reason == finished(tickets[2]).reason == "stop"


def test_a_conversation_that_breaks_while_it_is_read_harms_none_that_is_being_answered(
    make: Callable[..., Scheduler],
) -> None:
    engine = drawing_engine()
    draw, extend = engine.model.draw, engine.model.extend
    scheduler = make(engine)
    late: list[Ticket] = []

    def fragile(state: object, *more: object, **fields: object) -> object:
        if state is None:
            raise ValueError("a picture that cannot be read")
        return extend(state, *more, **fields)

    def draw_while_another_comes(*args: object, **fields: object) -> object:
        engine.model.draw, engine.model.extend = draw, fragile
        late.append(scheduler.submit(ask("draw a cat")))
        return draw(*args, **fields)

    engine.model.draw = draw_while_another_comes
    assert finished(scheduler.submit(ask("draw a fox"))).reason == "stop"
    with pytest.raises(ValueError, match="a picture that cannot be read"):
        finished(late[0])


# -- memory ------------------------------------------------------------------------------------------------------------


def run(engine: ChatEngine, requests: list[ChatRequest], **options: object) -> tuple[Batch, list[TurnFinished]]:
    batch = Batch(engine.model, engine.processor, engine._vocabulary, **options)
    turns = [engine.turn(number, request) for number, request in enumerate(requests)]
    batch.add(turns)
    last: dict[int, TurnFinished] = {}
    while batch.turns:
        for index, event in batch.step():
            if isinstance(event, TurnFinished):
                last[index] = event
    assert [turn.error for turn in turns] == [None] * len(turns)
    return batch, [last[number] for number in range(len(requests))]


@pytest.mark.parametrize("where", ["extend", "draw"])
def test_memory_that_runs_out_halves_the_batch_and_changes_nothing_else(where: str) -> None:
    engine = drawing_engine()
    requests = [ask(seed=seed) for seed in range(5)]
    alone = [engine.reply(request) for request in requests]
    sizes = []
    real = getattr(engine.model, where)

    def small(*args: object, **fields: object) -> object:
        state = args[0]
        ids = args[1] if len(args) > 1 and where == "extend" else fields.get("input_ids")
        rows = len(ids) if where == "extend" else len(state.mask)
        sizes.append(rows)
        if rows > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory")
        return real(*args, **fields)

    setattr(engine.model, where, small)
    batch, turns = run(engine, requests)
    assert max(sizes) == 5 and batch.max_rows <= 2
    for turn, one in zip(turns, alone, strict=True):
        assert turn.message.text == one.message.text and torch.equal(bits(turn), bits(one))


def test_what_does_not_fit_even_alone_is_a_memory_error_with_advice(make: Callable[..., Scheduler]) -> None:
    engine = drawing_engine()

    def none_left(*args: object, **fields: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine.model.draw = none_left
    with pytest.raises(MemoryError, match="fewer pictures"):
        finished(make(engine).submit(ask()))


@pytest.mark.parametrize("where", ["extend", "draw"])
def test_what_is_wrong_with_one_turn_fails_that_turn_and_no_other(where: str) -> None:
    engine = drawing_engine()
    requests = [ask(seed=seed) for seed in range(5)]
    alone = [engine.reply(request) for request in requests]
    real, calls = getattr(engine.model, where), []
    bad = 3

    def picky(*args: object, **fields: object) -> object:
        if where == "draw":
            seeds = [rng.initial_seed() for rng in args[3]]
            calls.append(len(seeds))
            if engine_seed in seeds:
                raise ValueError("this picture cannot be drawn")
        elif args[0] is None:
            rows = [row.tolist() for row in fields["input_ids"]]
            calls.append(len(rows))
            if any(marked in row for row in rows):
                raise ValueError("this conversation cannot be read")
        return real(*args, **fields)

    engine_seed = seeded([requests[bad].seed])[0].initial_seed()
    marked = engine.processor.tokenizer.convert_tokens_to_ids("z")
    if where == "extend":
        requests[bad] = ask("draw a zebra", seed=bad)
    setattr(engine.model, where, picky)
    batch = Batch(engine.model, engine.processor, engine._vocabulary)
    turns = [engine.turn(number, request) for number, request in enumerate(requests)]
    batch.add(turns)
    last = {}
    while batch.turns:
        last |= {index: event for index, event in batch.step() if isinstance(event, TurnFinished)}
    assert calls[0] == 5 and batch.max_rows == 64
    assert [turn.error is not None for turn in turns] == [number == bad for number in range(5)]
    for number in set(range(5)) - {bad}:
        assert torch.equal(bits(last[number]), bits(alone[number]))


# -- what is remembered from turn to turn ------------------------------------------------------------------------------


def talk(scheduler: Scheduler, words: list[str], client: str = "") -> list[TurnFinished]:
    messages: tuple[Message, ...] = ()
    turns = []
    for text in words:
        request = ask(text, history=messages, route="image" if "draw" in text else "text")
        turns.append(finished(scheduler.submit(request, client)))
        messages = (*request.messages, turns[-1].message)
    return turns


def test_the_next_turn_reads_only_what_is_new_and_answers_alike(make: Callable[..., Scheduler]) -> None:
    engine = drawing_engine()
    read = []
    extend = engine.model.extend

    def counted(state: object, input_ids: torch.Tensor, *args: object, **fields: object) -> object:
        if input_ids.shape[1] > 1:
            read.append(input_ids.shape[1])
        return extend(state, input_ids, *args, **fields)

    engine.model.extend = counted
    words = ["draw a fox", "what is it?", "draw it again"]
    with_memory, without = (talk(make(engine, prefix_bytes=size), words) for size in (2**28, 0))
    for one, other in zip(with_memory, without, strict=True):
        assert one.message.text == other.message.text
        assert len(one.message.images) == len(other.message.images)
        for ours, theirs in zip(one.message.images, other.message.images, strict=True):
            assert torch.equal(ours.tokens.flat(), theirs.tokens.flat())
    half = len(read) // 2
    assert sum(read[:half]) < 0.7 * sum(read[half:])


def test_nothing_is_remembered_for_somebody_else(make: Callable[..., Scheduler]) -> None:
    scheduler = make(drawing_engine())
    talk(scheduler, ["draw a fox", "what is it?"], "a")
    assert scheduler.load.prefix_hits == 1
    talk(scheduler, ["draw a fox", "what is it?"], "b")
    assert scheduler.load.prefix_hits == 2, "only what b itself had said"
    history = (Message.of("user", "draw a fox"),)
    request = ask("draw a fox")
    turn = finished(scheduler.submit(request, "c"))
    before = scheduler.load.prefix_hits
    finished(scheduler.submit(ask("what is it?", history=(*history, turn.message)), "d"))
    assert scheduler.load.prefix_hits == before


def test_a_picture_that_was_changed_is_read_again(engine: ChatEngine) -> None:
    ids, store = [1, 2, 3], Prefixes()
    part = engine.reply(ask()).message.images[0]
    state = engine.model.extend(None, **engine.processor.encode([ask().messages], engine.model))
    store.put("me", ids, [part], state)
    other = type(part)(red_square(32))
    assert store.find("me", [1, 2, 3, 4], [part])[0] == 3
    assert store.find("me", [1, 2, 3, 4], [other]) is None
    assert store.find("me", [1, 2, 3], [part]) is None, "nothing would be left to read"
    assert store.find("you", [1, 2, 3, 4], [part]) is None


def test_the_oldest_is_forgotten_first(engine: ChatEngine) -> None:
    state = engine.model.extend(None, **engine.processor.encode([ask().messages], engine.model))
    store = Prefixes(max_bytes=2 * state.num_bytes)
    for number in range(3):
        store.put("me", [number], [], state)
    assert len(store) == 2 and store.num_bytes == 2 * state.num_bytes
    assert store.find("me", [0, 9], []) is None and store.find("me", [2, 9], []) is not None


def test_an_opened_picture_waits_for_others_but_not_for_ever(free: ChatEngine) -> None:
    rambling = ask("x", route="text", text_sampling=TextSampling(max_new_tokens=200))
    for patience, together in ((None, True), (3, False)):
        batch = Batch(free.model, free.processor, free._vocabulary, patience=patience)
        turns = [
            free.turn(0, rambling),
            free.turn(1, ask("y", route="image", text_sampling=TextSampling(max_new_tokens=2))),
        ]
        batch.add(turns)
        started_after_the_rambling = None
        while batch.turns:
            for _, event in batch.step():
                if isinstance(event, ImageStarted):
                    started_after_the_rambling = turns[0].is_over
        assert started_after_the_rambling is together


def test_parts_hold_as_much_as_they_may() -> None:
    assert list(in_parts([1, 2, 3, 9, 1], 4, size=lambda item: item)) == [[1, 2], [3], [9], [1]]


def test_what_was_answered_leaves_no_tensor_behind(make: Callable[..., Scheduler]) -> None:
    """A leak shows here, one tensor at a time; how much memory a server holds hides it behind what Python keeps."""
    scheduler = make(drawing_engine(), prefix_bytes=0)

    def answered(times: int) -> int:
        for number in range(times):
            for ticket in [scheduler.submit(ask("draw", seed=number), f"client {client}") for client in range(3)]:
                finished(ticket)
            ticket = scheduler.submit(ask("draw", seed=number))
            next(iter(ticket))
            ticket.cancel()
        until(lambda: scheduler.load.running == scheduler.load.waiting == 0)
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    assert answered(2) == answered(6)
