"""How fast fine-tuning is on this machine: our step beside a plain PyTorch loop over the same conversations.

    python -m benchmarks.training_throughput [--model DIR] [--conversations 64] [--dtype auto] [--out throughput.json]

In: a model and storybook conversations. Out: conversations per second, and floating-point operations per second as a
share of what this machine reaches in a large matrix product of the same dtype. Both loops train a copy of the model on
the same conversations in the same batches:

- *ours* is `training.supervised.train` with nano's recipe: attention as matrix products on a CPU, compiled layers, and
  in most pools one slot per drawn picture in the language model (`all_slots_every`);
- *plain* is forward, backward and AdamW, with PyTorch's attention, nothing compiled, and all slots.

Operations are those of matrix products, convolutions and attention (`torch.utils.flop_counter`) in forward and backward
of each loop's own batches, the optimiser left out. So ours may finish more conversations with a smaller share: work
that is left out counts for nobody. On a CUDA GPU the default is `half_billion`, a model of 0.6 B random weights,
because nano is too small to keep a GPU at work; there the share is what is called model FLOPs utilisation, against the
measured peak.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training.autocast import Autocast, settled_autocast, words_for
from training.cpu.matmul_attention import use_matmul_attention
from training.data import Batch, BatchSettings, Conversations, MakeMessages, loader
from training.distributed import pick_device
from training.loop import to_device
from training.recipes.nano import mostly_drawing, nano_sft
from training.supervised import SftSettings, make_losses, train
from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.benchmarks.machine_limit import measure_machine
from vargpt.benchmarks.speed import wait_for
from vargpt.commands.measure import write_json
from vargpt.evaluation.base import hardware
from vargpt.presets import half_billion
from vargpt.presets import nano as nano_config
from vargpt.published.families import load

PER_BATCH = 16  # conversations
DTYPES: dict[str, Autocast] = {"auto": "auto", "bf16": "bf16", "fp32": "none"}


@dataclass(frozen=True, kw_only=True)
class Pace:
    """One loop: conversations per second, operations of one conversation, and the share of the machine's peak (0-1)."""

    name: str
    conversations_per_s: float
    flops_per_conversation: float
    peak_share: float


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What was measured. `peak_flops_per_s` is that of matrix products in the dtype of the loops."""

    paces: tuple[Pace, ...]
    peak_flops_per_s: float
    about: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For `json.dump`."""
        return asdict(self)


def settings_for(conversations: int, every: int, device: str, dtype: Autocast, compiled: bool) -> SftSettings:
    """Nano's recipe for one pool after another of so many conversations; `every` as `all_slots_every`."""
    recipe = nano_sft()
    loop = dataclasses.replace(recipe.loop, device=device, autocast=dtype, save_every_minutes=1e9)
    num_batches = max(1, conversations // PER_BATCH)
    batches = dataclasses.replace(
        recipe.batches, pool_size=conversations, batches_per_pool=num_batches, texts_per_pool=0, all_slots_every=every
    )
    return dataclasses.replace(recipe, loop=loop, batches=batches, compiled=compiled)


def our_seconds(
    model: VARGPT, processor: VargptProcessor, messages: MakeMessages, settings: SftSettings, pools: int
) -> float:
    """Seconds for `pools` pools after as many to warm up, waiting for data included."""
    steps = pools * settings.batches.batches_per_pool
    loop = dataclasses.replace(settings.loop, total_steps=2 * steps, sample_every=steps)
    entered: list[float] = []

    def on_sample(trained: nn.Module, step: int) -> None:
        wait_for(next(trained.parameters()).device)
        entered.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        train(model, processor, messages, dataclasses.replace(settings, loop=loop), Path(folder), on_sample)
    return entered[1] - entered[0]


def conversations_of(
    model: VARGPT, processor: VargptProcessor, messages: MakeMessages, settings: BatchSettings
) -> Iterator[Batch]:
    return iter(loader(Conversations(messages, processor, model.config.layout().num_tokens, settings)))


def plain_seconds(
    model: VARGPT, processor: VargptProcessor, messages: MakeMessages, settings: SftSettings, pools: int
) -> float:
    """The same for the loop that anybody would write first."""
    device, steps = pick_device(settings.loop.device), pools * settings.batches.batches_per_pool
    model.to(device).train().image_tokenizer.requires_grad_(False)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, settings.loop.learning_rate)
    losses = make_losses(model, model.config.layout(), settings)
    batches = conversations_of(model, processor, messages, settings.batches)
    started = 0.0
    for step, batch in enumerate(islice(batches, 2 * steps)):
        if step == steps:
            wait_for(device)
            started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.loop.autocast == "bf16"):
            loss, _ = losses(model, to_device(batch, device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, settings.loop.clip_norm)
        optimizer.step()
    wait_for(device)
    return time.perf_counter() - started


def pool_flops(model: VARGPT, processor: VargptProcessor, messages: MakeMessages, settings: SftSettings) -> float:
    """Operations of forward and backward over one pool. Attention as matrix products is counted on every machine."""
    device = pick_device(settings.loop.device)
    counted = use_matmul_attention(copy.deepcopy(model).to(device).train())
    counted.image_tokenizer.requires_grad_(False)
    losses = make_losses(counted, counted.config.layout(), settings)
    batches = conversations_of(counted, processor, messages, settings.batches)
    with FlopCounterMode(display=False) as counter:
        for batch in islice(batches, settings.batches.batches_per_pool):
            loss, _ = losses(counted, to_device(batch, device))
            loss.backward()
            counted.zero_grad()
    return float(counter.get_total_flops())


def measure(
    model: VARGPT,
    processor: VargptProcessor,
    messages: MakeMessages,
    conversations: int = 64,
    dtype: Autocast = "auto",
    device: str = "auto",
    compiled: bool = True,
    workers: int = 1,
) -> Throughput:
    """Both loops, one after the other, each on a copy of the model; a machine that does other things is slower.

    Args:
        model: stays as it is.
        processor: the model's.
        messages: conversations by number.
        conversations: in one pool; as many pools as `all_slots_every` are measured, after as many to warm up.
        dtype: "bf16" (autocast), "none" (float32) or "auto" (the quicker one), of both loops.
        device: where.
        compiled: whether ours compiles its layers.
        workers: processes that make batches.

    Raises:
        ValueError: fewer conversations than fill a batch.
    """
    if conversations < PER_BATCH:
        raise ValueError(f"at least {PER_BATCH} conversations (one batch) are needed, got {conversations}")
    every, where = nano_sft().batches.all_slots_every, pick_device(device)
    dtype = settled_autocast(dtype, where, model)
    ours, plain = (settings_for(conversations, each, device, dtype, compiled) for each in (every, 1))
    ours, plain = (with_workers(settings, workers) for settings in (ours, plain))
    first_alone = with_workers(settings_for(conversations, 10**9, device, dtype, compiled), workers)
    machine = measure_machine(torch.bfloat16 if dtype == "bf16" else torch.float32, where)
    all_slots, one_slot = (pool_flops(model, processor, messages, one) for one in (plain, first_alone))
    paces = []
    for name, settings, seconds, flops in (
        ("ours", ours, our_seconds, (all_slots + (every - 1) * one_slot) / every),
        ("plain", plain, plain_seconds, all_slots),
    ):
        taken = seconds(copy.deepcopy(model), processor, messages, settings, every)
        paces.append(
            Pace(
                name=name,
                conversations_per_s=every * conversations / taken,
                flops_per_conversation=flops / conversations,
                peak_share=every * flops / taken / machine.matmul_flops_per_s,
            )
        )
    about = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "arithmetic": words_for(dtype),
        "conversations": every * conversations,
        "compiled": compiled,
        "hardware": hardware(where),
        "software": f"torch {torch.__version__}",
    }
    return Throughput(paces=tuple(paces), peak_flops_per_s=machine.matmul_flops_per_s, about=about)


def with_workers(settings: SftSettings, workers: int) -> SftSettings:
    return dataclasses.replace(settings, batches=dataclasses.replace(settings.batches, num_workers=workers))


def report(measured: Throughput) -> str:
    """The numbers as people read them, as Markdown."""
    lines = ["| loop | conversations/s | GFLOPs per conversation | share of the peak |", "|---|---|---|---|"]
    lines += [
        f"| {pace.name} | {pace.conversations_per_s:.1f} | {pace.flops_per_conversation / 1e9:.1f} "
        f"| {pace.peak_share:.1%} |"
        for pace in measured.paces
    ]
    ours, plain = measured.paces
    gain = ours.conversations_per_s / plain.conversations_per_s
    about = "; ".join(f"{name}: {value}" for name, value in measured.about.items())
    peak = f"peak: {measured.peak_flops_per_s / 1e9:.0f} GFLOP/s in a matrix product of that dtype"
    return "\n".join([*lines, "", f"Ours is {gain:.2f} times as fast. {peak}; {about}.", ""])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_throughput", description="How fast fine-tuning is."
    )
    parser.add_argument("--model", type=Path, help="model folder (default: the shipped nano; on a GPU, random weights)")
    parser.add_argument("--conversations", type=int, default=64, help=f"in one pool, at least {PER_BATCH}")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="auto", help="arithmetic of both loops")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--eager", action="store_true", help="ours without torch.compile")
    parser.add_argument("--out", type=Path, help="also write the numbers here, as JSON")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    try:
        model, processor = load(chosen.model, device="cpu", dtype="float32")
        if chosen.model is None and pick_device(chosen.device).type == "cuda":
            config = half_billion(nano_config(processor.special, len(processor.tokenizer)))
            model = VARGPT(config)
        measured = measure(
            model,
            processor,
            mostly_drawing,
            chosen.conversations,
            DTYPES[chosen.dtype],
            chosen.device,
            not chosen.eager,
        )
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    write_json(chosen.out, measured.as_json())
    sys.stdout.write(report(measured))


if __name__ == "__main__":
    main()
