"""How fast a published architecture draws on this machine: beside the plain flow, and beside what the machine can do.

In: the name of an architecture. Out: seconds per organ and scale for each `Variant`, all taken in one run on equal
weights, with the share of bits that come out as in the plain flow in float32 when the scales before are the same.
"""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch

from vargpt.benchmarks.architectures import PROMPT_LENGTH, Subject, named, num_parameters
from vargpt.benchmarks.machine_limit import (
    NO_WORK,
    Machine,
    decoder_work,
    generator_work,
    language_work,
    measure_machine,
)
from vargpt.benchmarks.plain_flow import PlainScale, plain_decode, plain_decoder, plain_draw
from vargpt.benchmarks.speed import Clock, peak_memory, timed, wait_for
from vargpt.config import VargptConfig
from vargpt.cpu import warn_if_slow
from vargpt.evaluation.base import hardware
from vargpt.loading import packing
from vargpt.types import ImageLayout, ImageTokens

LANGUAGE, GENERATOR, DECODER = "language model", "generator", "decoder"
ORGANS = (LANGUAGE, GENERATOR, DECODER)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TIE = 1e-3  # of the spread of a scale's logit differences: below, rounding decides a bit
Limits = tuple[dict[str, list[float]], dict[str, list[float]]]  # with the fastest kernel, with torch.matmul
PLAIN, OURS = "plain fp32", "vargpt fp32"


@dataclass(frozen=True)
class Equality:
    """Bits against the plain flow's in float32, given its earlier scales. Margins are in spreads of a logit difference.

    `widest_margin` is how clearly the plain flow had decided the clearest of the bits that differ (0 if none does).
    """

    share: float
    different: int
    widest_margin: float


@dataclass(frozen=True)
class VariantSpeed:
    """Medians in seconds; `limits` are what the machine could do at best in this dtype.

    `matmul_limits` are those of a machine that multiplies no faster than torch.matmul.
    """

    name: str
    scale_seconds: dict[str, list[float]]  # organ -> one per scale; of the decoder, one
    scale_limits: dict[str, list[float]]
    matmul_limits: dict[str, list[float]]
    equality: Equality
    peak_memory_mib: float | None

    def seconds(self, organ: str) -> float:
        return sum(self.scale_seconds.get(organ, ()))

    def limit(self, organ: str) -> float:
        return sum(self.scale_limits.get(organ, ()))

    @property
    def transformers_limit(self) -> float:
        return self.limit(LANGUAGE) + self.limit(GENERATOR)

    @property
    def transformers_matmul_limit(self) -> float:
        return sum(self.matmul_limits[LANGUAGE]) + sum(self.matmul_limits[GENERATOR])

    @property
    def transformers_s(self) -> float:
        """Language model and generator."""
        return self.seconds(LANGUAGE) + self.seconds(GENERATOR)

    @property
    def picture_s(self) -> float:
        return self.transformers_s + self.seconds(DECODER)


@dataclass(frozen=True)
class ArchitectureSpeed:
    """All variants of one run; the first one is the plain flow."""

    architecture: str
    variants: tuple[VariantSpeed, ...]
    machines: dict[str, Machine]
    about: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_architecture(
    name: str,
    size: tuple[int, int] = (256, 256),
    dtype: str = "fp32",
    runs: int = 3,
    device: str = "cpu",
    compiled: bool = False,
) -> ArchitectureSpeed:
    """Builds the architecture on random weights and times every variant, after one run of each to warm up.

    Args:
        name: one of `architectures.ARCHITECTURES`.
        size: (height, width) in pixels.
        dtype: "fp32", or "bf16" for bfloat16 beside float32.
        runs: drawings of which the median is taken.
        device: where to draw, as torch names it.
        compiled: also measure with the blocks through torch.compile (in float32; it does not take packed weights).

    Raises:
        ValueError: unknown architecture, size or dtype, no runs, or not enough memory for the weights.
    """
    if dtype not in DTYPES:
        raise ValueError(f"--dtype is one of {', '.join(DTYPES)}, got {dtype!r}")
    if runs < 1:
        raise ValueError(f"at least one run is needed, got {runs}")
    config, talks = named(name)
    layout = config.layout(size)
    check_memory(config, talks, device)
    warn_if_slow(DTYPES[dtype], torch.device(device))
    speed = measure_config(config, talks, layout, dtype, runs, device, compiled)
    return ArchitectureSpeed(name, speed.variants, speed.machines, {"architecture": name, **speed.about})


def measure_config(
    config: VargptConfig,
    talks: bool,
    layout: ImageLayout,
    dtype: str = "fp32",
    runs: int = 3,
    device: str = "cpu",
    compiled: bool = False,
) -> ArchitectureSpeed:
    """The same for any config whose generator is conditioned as published ones are."""

    def subject() -> Subject:
        gc.collect()
        return Subject.of(config, talks, layout, 0, device)

    machines = {name: measure_machine(DTYPES[name], device) for name in dict.fromkeys(("fp32", dtype))}
    limits = {
        name: (
            scale_limits(config, talks, layout, machine),
            scale_limits(config, talks, layout, machine.with_matmul()),
        )
        for name, machine in machines.items()
    }
    plain, reference = time_plain(subject(), runs, limits["fp32"])
    variants = [plain]
    ours = time_ours(OURS, subject(), runs, limits["fp32"], reference)
    check_equality(ours.equality)
    variants.append(ours)
    if compiled:
        variants.append(time_ours(f"{OURS}, compiled", compile_blocks(subject()), runs, limits["fp32"], reference))
    for name in limits:
        packed = subject()
        packed.pack(DTYPES[name])
        variants.append(time_ours(f"vargpt {name}, packed", packed, runs, limits[name], reference))
        del packed
    about = {
        "size": f"{layout.width}x{layout.height}",
        "tokens": layout.num_tokens,
        "runs": runs,
        "hardware": hardware(device),
        "torch": torch.__version__,
    }
    return ArchitectureSpeed("", tuple(variants), machines, about)


def check_memory(config: VargptConfig, talks: bool, device: str) -> None:
    """Raises ValueError where the float32 weights would not fit into this machine's memory."""
    import os

    if torch.device(device).type != "cpu" or not hasattr(os, "sysconf"):
        return
    needed, there = num_parameters(config, talks) * 4, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.8 * there:
        raise ValueError(
            f"its weights in float32 take {needed / 2**30:.0f} GiB, and this machine has {there / 2**30:.0f} GiB; "
            "choose a smaller architecture"
        )


def scale_limits(config: VargptConfig, talks: bool, layout: ImageLayout, machine: Machine) -> dict[str, list[float]]:
    """Seconds at best, per organ and scale."""
    scales = range(layout.num_scales)
    drawing = [generator_work(config.generator_config, layout, k, PROMPT_LENGTH, projected=not talks) for k in scales]
    talking = [language_work(config, layout, k, PROMPT_LENGTH + 1) if talks else NO_WORK for k in scales]
    pixels = [decoder_work(config.image_tokenizer_config, layout)]
    return {
        organ: [machine.seconds(work) for work in parts]
        for organ, parts in zip(ORGANS, (talking, drawing, pixels), strict=True)
    }


def compile_blocks(subject: Subject) -> Subject:
    """The same subject, its generator compiled in place."""
    packing.compile_blocks(subject.generator)
    return subject


# -- timing ------------------------------------------------------------------------------------------------------------


def time_plain(subject: Subject, runs: int, limits: Limits) -> tuple[VariantSpeed, tuple[PlainScale, ...]]:
    """The plain flow, and what it drew: the reference for every other variant."""
    reference = tuple(plain_draw(subject))
    decoder = plain_decoder(subject.image_tokenizer.decoder)
    latents = subject.image_tokenizer.latents(reference[-1].tokens)
    seconds = median_seconds(
        subject, runs, lambda: plain_draw(subject), lambda tokens: plain_decode(decoder, latents), reference[-1].tokens
    )
    return VariantSpeed(PLAIN, seconds, *limits, Equality(1.0, 0, 0.0), peak_memory()), reference


def time_ours(
    name: str, subject: Subject, runs: int, limits: Limits, reference: tuple[PlainScale, ...]
) -> VariantSpeed:
    """A subject as it is, through the library's own code."""
    equality = compare(subject, reference)
    seconds = median_seconds(subject, runs, subject.draw, subject.image_tokenizer.decode, reference[-1].tokens)
    return VariantSpeed(name, seconds, *limits, equality, peak_memory())


@torch.no_grad()
def median_seconds(
    subject: Subject,
    runs: int,
    draw: Callable[[], Iterator[Any]],
    decode: Callable[[ImageTokens], torch.Tensor],
    tokens: ImageTokens,
) -> dict[str, list[float]]:
    """Seconds of language model and generator per scale, and of the decoder."""
    measured: list[dict[str, list[float]]] = []
    for _ in range(runs + 1):
        seconds = drawing_seconds(subject, draw)
        wait_for(subject.memory.device)
        started = time.perf_counter()
        decode(tokens)
        wait_for(subject.memory.device)
        measured.append(seconds | {DECODER: [time.perf_counter() - started]})
    kept = measured[1:]  # the first one warms up
    return {
        organ: [median(values) for values in zip(*(one[organ] for one in kept), strict=True)] for organ in measured[0]
    }


def drawing_seconds(subject: Subject, draw: Callable[[], Iterator[Any]]) -> dict[str, list[float]]:
    """One drawing: exclusive seconds of both transformers after each scale. Projectors count for the generator."""
    clock = Clock(subject.memory.device)
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0])
    with ExitStack() as stack:
        if subject.language_model is not None:
            stack.enter_context(timed(subject.language_model, "forward", clock, LANGUAGE))
        steps = draw()
        while True:
            with clock.inside(GENERATOR):
                step = next(steps, None)
            if step is None:
                break
            for organ in (LANGUAGE, GENERATOR):
                totals[organ].append(clock.seconds[organ])
    return {
        organ: [after - before for before, after in zip(values[:-1], values[1:], strict=True)]
        for organ, values in totals.items()
    }


# -- bits --------------------------------------------------------------------------------------------------------------


def compare(subject: Subject, reference: tuple[PlainScale, ...]) -> Equality:
    """Greedy bits of every scale, drawn after the reference's earlier scales, against the reference's."""
    different, total, widest = 0, 0, 0.0
    for k, expected in enumerate(reference):
        given = None if k == 0 else expected.tokens.prefix(k)
        steps = subject.draw(given)
        for step in steps:
            if step.step == k + 1:
                wrong = step.tokens.grids[k] != expected.tokens.grids[k]
                break
        steps.close()  # type: ignore[attr-defined]
        margins = (expected.logits[..., 1] - expected.logits[..., 0]).abs()
        if bool(wrong.any()):
            spread = margins.square().mean().sqrt()
            widest = max(widest, float((margins.flatten()[wrong.flatten()] / spread).max()))
        different, total = different + int(wrong.sum()), total + wrong.numel()
    return Equality(1 - different / total, different, widest)


def check_equality(equality: Equality) -> None:
    """Raises RuntimeError where more than rounding separates two flows that compute the same in float32."""
    if equality.widest_margin > TIE:
        raise RuntimeError(
            f"{equality.different} bits differ from the plain flow's, by up to {equality.widest_margin:.2g} spreads of "
            f"a logit difference; rounding explains {TIE}"
        )
