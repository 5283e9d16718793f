"""How long a step of fine-tuning takes here, timed before it starts: what fits the time given, and is it enough?

In: a model about to learn, and its conversations. Out: seconds per step, and a sentence for people. Neither the weights
nor what is left to chance later are touched.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass

import torch

from training.autocast import settled_autocast
from training.cpu.matmul_attention import use_matmul_attention
from training.data import Conversations, MakeMessages
from training.distributed import pick_device
from training.loop import to_device
from training.supervised import SftSettings, make_losses
from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.benchmarks.speed import wait_for

TIMED_STEPS = 2  # after one to warm up
FEWEST_STEPS = 40  # in which anything shows: a lighthouse is named after 47, not yet after 19
ENOUGH_STEPS = 200  # in which nano learns a thing; a style takes 300 (docs/finetune.md)


def seconds_per_step(
    model: VARGPT, processor: VargptProcessor, make_messages: MakeMessages, settings: SftSettings
) -> float:
    """Mean of a few batches of the first pool, forward and backward; with workers, or what it takes to make one."""
    device, layout = pick_device(settings.loop.device), model.config.layout()
    if device.type == "cpu":
        use_matmul_attention(model)
    model.to(device).train().image_tokenizer.requires_grad_(False)
    batches = dataclasses.replace(settings.batches, num_workers=0)
    losses = make_losses(model, layout, settings)
    low = settled_autocast(settings.loop.autocast, device, model) == "bf16"
    started = time.perf_counter()
    made = Conversations(make_messages, processor, layout.num_tokens, batches).pool_batches(0)
    making = (time.perf_counter() - started) / len(made)
    seconds = []
    for batch in made[: 1 + TIMED_STEPS]:
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            loss, _ = losses(model, to_device(batch, device), 0)
        loss.backward()
        model.zero_grad()
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    step = sum(seconds[1:]) / len(seconds[1:]) if len(seconds) > 1 else seconds[0]
    return max(step, making) if settings.batches.num_workers else step + making


@dataclass(frozen=True)
class Forecast:
    """What a call will come to: `seconds` per step, `minutes` given, `done` of `total` steps made by earlier calls."""

    seconds: float
    minutes: float
    done: int
    total: int

    @property
    def fitting(self) -> int:
        """Steps that this call has time for, one at least."""
        return max(1, min(self.total - self.done, int(60 * self.minutes / self.seconds)))

    @property
    def is_enough(self) -> bool:
        """Whether nano has learnt something after it."""
        return self.done + self.fitting >= ENOUGH_STEPS

    def __str__(self) -> str:
        left = self.total - self.done
        return (
            f"a step takes about {self.seconds:.2g} s here: about {self.fitting} of {left} fit {self.minutes:g} minutes"
        )

    @property
    def advice(self) -> str:
        """What to say where it is not enough."""
        needed = math.ceil((ENOUGH_STEPS - self.done) * self.seconds / 60)
        return f"{few_steps(self.done + self.fitting)}; give it --minutes {needed} or more"


def few_steps(steps: int) -> str:
    """What is known of so few."""
    taught = "next to nothing" if steps < FEWEST_STEPS else "a part of it"
    return f"{steps} steps teach {taught}: a thing takes about {ENOUGH_STEPS}, a style about 300"
