"""How fast a model is on this machine: to the first preview, to the picture, words per second, who takes the time.

In: an engine. Out: plain numbers. Medians over some runs after a warm-up; a machine that does other things is slower.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import median
from types import GeneratorType
from typing import Any

import torch
from torch import nn

from vargpt.chat.engine import ChatEngine
from vargpt.evaluation.base import hardware
from vargpt.types import ChatRequest, ImageFinished, ImagePreview, Message, TextDelta, TurnFinished

DRAW = "Draw a red car on the left and a fox on the right, at night."
TELL = "What can you do? Tell me all of it."
REST = "all else"
# Methods of the organs, by organ; time spent in one organ on behalf of another counts for the inner one.
ORGANS: dict[str, tuple[tuple[str, str], ...]] = {
    "language model": (("language_model", "forward"), ("lm_head", "forward")),
    "ViT": (("vision", "forward"),),
    "generator": (("generator", "generate"),),
    "image tokenizer": tuple(("image_tokenizer", name) for name in ("encode", "decode", "latents", "next_input")),
}


@dataclass(frozen=True)
class Speed:
    """What was measured, in seconds, per second, MiB and shares of a picture turn (0-1)."""

    first_preview_s: float
    picture_s: float  # from the request to the finished picture, the announcement included
    text_tokens_per_s: float
    batch_size: int
    batch_pictures_per_s: float
    peak_memory_mib: float | None  # of the whole process so far; None where the system does not tell
    peak_gpu_memory_mib: float | None
    shares: dict[str, float]
    about: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_speed(engine: ChatEngine, runs: int = 5, batch_size: int = 8) -> Speed:
    """Medians over `runs` turns after one to warm up. Pictures are forced, so that any model can be measured.

    Raises:
        ValueError: fewer than one run or one picture.
    """
    if runs < 1 or batch_size < 1:
        raise ValueError(f"at least one run and one picture are needed, got {runs} and {batch_size}")
    drawing = ChatRequest(messages=(Message.of("user", DRAW),), route="image")
    _picture_times(engine, drawing)
    times = [_picture_times(engine, replace(drawing, seed=seed)) for seed in range(runs)]
    telling = ChatRequest(messages=(Message.of("user", TELL),), route="text")
    rates = [_text_rate(engine, telling) for _ in range(runs)]
    batch = [replace(drawing, seed=seed) for seed in range(batch_size)]
    seconds = [_seconds(engine, lambda: engine.reply_batch(batch)) for _ in range(runs)]
    return Speed(
        first_preview_s=median(first for first, _ in times),
        picture_s=median(finished for _, finished in times),
        text_tokens_per_s=median(rates),
        batch_size=batch_size,
        batch_pictures_per_s=batch_size / median(seconds),
        peak_memory_mib=peak_memory(),
        peak_gpu_memory_mib=_peak_gpu_memory(engine),
        shares=_shares(engine, drawing, runs),
        about={
            "model": engine.model_name,
            "model_hash": engine.model_hash,
            "runs": runs,
            "hardware": hardware(engine.device),
            "dtype": str(engine.model.dtype).removeprefix("torch."),
        },
    )


def peak_memory() -> float | None:
    """The most memory that this process has held, in MiB; None on systems that do not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # macOS counts bytes, Linux KiB


def organ_seconds(engine: ChatEngine, work: Callable[[], Any]) -> dict[str, float]:
    """Seconds that each organ takes while `work` runs, without what other organs do for it, and REST."""
    clock = Clock(engine.device)
    with ExitStack() as stack:
        for organ, methods in ORGANS.items():
            for module, method in methods:
                stack.enter_context(timed(getattr(engine.model, module), method, clock, organ))
        with clock.inside(REST):
            work()
    return {organ: clock.seconds[organ] for organ in (*ORGANS, REST)}


class Clock:
    """Exclusive times: entering an organ stops the clock of the one that called it."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def inside(self, organ: str) -> Iterator[None]:
        self._turn()
        self._open.append(organ)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        """Book the time since the last turn on the organ at work."""
        wait_for(self._device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@contextmanager
def timed(module: nn.Module, name: str, clock: Clock, organ: str) -> Iterator[None]:
    """Books the calls of a method on an organ; of a generator, the time until each value."""
    method = getattr(module, name)

    def clocked(*args: Any, **kwargs: Any) -> Any:
        with clock.inside(organ):
            result = method(*args, **kwargs)
        return _steps(result, clock, organ) if isinstance(result, GeneratorType) else result

    setattr(module, name, clocked)
    try:
        yield
    finally:
        delattr(module, name)


def _steps(values: Iterator[Any], clock: Clock, organ: str) -> Iterator[Any]:
    while True:
        with clock.inside(organ):
            value = next(values, None)
        if value is None:
            return
        yield value


def _shares(engine: ChatEngine, request: ChatRequest, runs: int) -> dict[str, float]:
    """Of a turn without previews."""
    totals: dict[str, float] = defaultdict(float)
    for seed in range(runs):
        turn = partial(engine.reply, replace(request, seed=seed))
        for organ, seconds in organ_seconds(engine, turn).items():
            totals[organ] += seconds
    return {organ: seconds / sum(totals.values()) for organ, seconds in totals.items()}


def _picture_times(engine: ChatEngine, request: ChatRequest) -> tuple[float, float]:
    """Seconds to the first preview and to the finished picture."""
    first = finished = None
    started = time.perf_counter()
    for event in engine.stream(request):
        if isinstance(event, ImagePreview | ImageFinished) and first is None:
            first = time.perf_counter() - started
        if isinstance(event, ImageFinished) and finished is None:
            finished = time.perf_counter() - started
    assert first is not None and finished is not None, "a forced picture is always drawn"
    return first, finished


def _text_rate(engine: ChatEngine, request: ChatRequest) -> float:
    """Tokens per second from the first one on; of a reply that shows no text before its end, of the whole turn."""
    started, first, tokens = time.perf_counter(), None, 0
    for event in engine.stream(request):
        if isinstance(event, TextDelta) and first is None:
            first = time.perf_counter()
        if isinstance(event, TurnFinished):
            tokens = event.num_text_tokens
    ended = time.perf_counter()
    if first is None or tokens < 2:
        return tokens / (ended - started)
    return (tokens - 1) / (ended - first)


def _seconds(engine: ChatEngine, work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    wait_for(engine.device)
    return time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    """Accelerators work behind our back; wait until they have done what they were told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _peak_gpu_memory(engine: ChatEngine) -> float | None:
    return torch.cuda.max_memory_allocated(engine.device) / 2**20 if engine.device.type == "cuda" else None


def speed_lines(speed: Speed) -> list[tuple[str, str]]:
    """Name and value of every measured speed, as people read them."""
    lines = [
        ("first preview after", f"{speed.first_preview_s:.2f} s"),
        ("finished picture after", f"{speed.picture_s:.2f} s"),
        ("text", f"{speed.text_tokens_per_s:.0f} tokens/s"),
        (f"pictures, {speed.batch_size} together", f"{speed.batch_pictures_per_s:.2f} per second"),
    ]
    for name, memory in (("memory", speed.peak_memory_mib), ("GPU memory", speed.peak_gpu_memory_mib)):
        lines += [] if memory is None else [(f"peak {name}", f"{memory:.0f} MiB")]
    lines += [(f"{organ}, share of a picture", f"{share:.0%}") for organ, share in speed.shares.items()]
    return lines + [(name, str(value)) for name, value in speed.about.items()]
