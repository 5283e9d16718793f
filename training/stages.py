"""Stages as data: which organs learn, from what, at which size, by which loss, and what that takes.

In: a `Stage` and a model, which may be on `meta`. Out: a model in which exactly these organs learn; and without making
a weight, how many learn, how many tokens are read, and the memory of one GPU when everything is sharded (FSDP).

The memory is an estimate. Counted are: weights (float32 masters with two moments of AdamW and gradients where they
learn, bfloat16 where they rest), evenly sharded; the layer at work and the next one, gathered in bfloat16; activations
with checkpointing: what enters every layer, and the inside of one. Not counted are buffers of the kernels and what
the allocator loses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from vargpt.config import VargptConfig
from vargpt.loading.memory_estimate import largest_layer

LEARNING_BYTES = 4 + 4 + 8  # a float32 weight, its gradient, two moments
RESTING_BYTES = 2
COMPUTE_BYTES = 2  # bfloat16, where something is computed
INSIDE_LAYER = 18  # values per token and channel alive inside one layer: attention, and an MLP four times as wide
STACKS = ("vision.blocks.", "language_model.layers.", "generator.blocks.")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a training program.

    `data` weighs data sets by the names of `data_recipes`. `size` is the height and width of drawn pictures in px;
    None where none is learnt. `batch_size` counts conversations per optimiser step over all GPUs. `text_tokens`
    is the usual length of a conversation without slots. `ours` names the fields that no paper states.
    """

    name: str
    loss: Literal["sft", "dpo", "grpo"]
    learns: tuple[str, ...]
    data: Mapping[str, float]
    size: tuple[int, int] | None
    steps: int
    batch_size: int
    learning_rate: float
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    text_tokens: int = 128
    ours: tuple[str, ...] = ()

    def tokens_per_conversation(self, config: VargptConfig) -> int:
        """Text and slots of one conversation; a preference has two pictures and its text twice."""
        slots = 0 if self.size is None else config.layout(self.size).num_tokens
        return (self.text_tokens + slots) * (2 if self.loss == "dpo" else 1)

    def tokens(self, config: VargptConfig) -> int:
        """All that the stage reads."""
        return self.steps * self.batch_size * self.tokens_per_conversation(config)


@dataclass(frozen=True)
class Plan:
    """What a dry run says of a stage: parameters by organ (learning, all), and bytes of one GPU."""

    stage: Stage
    organs: Mapping[str, tuple[int, int]]
    tokens: int
    bytes_per_gpu: int

    @property
    def learning(self) -> int:
        return sum(learning for learning, _ in self.organs.values())

    @property
    def total(self) -> int:
        return sum(total for _, total in self.organs.values())


def learn_only(model: nn.Module, organs: Iterable[str]) -> None:
    """Exactly these organs learn from now on; every other parameter rests.

    Raises:
        ValueError: the model has no such organ.
    """
    wanted, present = set(organs), {name.split(".")[0] for name, _ in model.named_parameters()}
    if wanted - present:
        raise ValueError(f"the model has no {', '.join(sorted(wanted - present))}; its organs: {sorted(present)}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in wanted)


def parameters_by_organ(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Learning and all parameters of each organ; tied ones count once."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        organ, number = name.split(".")[0], parameter.numel()
        learning, total = counts.get(organ, (0, 0))
        counts[organ] = (learning + (number if parameter.requires_grad else 0), total + number)
    return counts


def bytes_per_gpu(model: nn.Module, config: VargptConfig, stage: Stage, num_gpus: int, rows_per_gpu: int) -> int:
    """Memory of one of `num_gpus`, each with `rows_per_gpu` conversations at once; see the module for what counts."""
    learning = sum(learns for learns, _ in parameters_by_organ(model).values())
    resting = sum(total for _, total in parameters_by_organ(model).values()) - learning
    copies = 2 if stage.loss in ("dpo", "grpo") else 1  # the reference rests beside the policy
    sharded = (learning * LEARNING_BYTES + (resting + (copies - 1) * (learning + resting)) * RESTING_BYTES) / num_gpus
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    gathered = 2 * largest_layer(counts, STACKS) * COMPUTE_BYTES
    tokens = rows_per_gpu * stage.tokens_per_conversation(config)
    slots = 0 if stage.size is None else tokens - rows_per_gpu * stage.text_tokens
    text, drawing = config.text_config, config.generator_config
    entering = tokens * text.hidden_size * text.num_hidden_layers + slots * drawing.hidden_size * drawing.num_layers
    inside = INSIDE_LAYER * max(tokens * text.hidden_size, slots * drawing.hidden_size)
    logits = rows_per_gpu * stage.text_tokens * text.vocab_size * 2  # float32, counted below in bfloat16
    return round(sharded + gathered + (entering + inside + logits) * COMPUTE_BYTES)


def plan(model: nn.Module, config: VargptConfig, stage: Stage, num_gpus: int, rows_per_gpu: int = 1) -> Plan:
    """What a stage would do, from a model that may be on `meta`. Leaves the organs of the stage learning."""
    learn_only(model, stage.learns)
    needed = bytes_per_gpu(model, config, stage, num_gpus, rows_per_gpu)
    return Plan(stage, parameters_by_organ(model), stage.tokens(config), needed)


def table(plans: Sequence[Plan], num_gpus: int) -> str:
    """The plans as Markdown."""
    lines = [
        f"| stage | loss | learns | parameters | px | steps | batch | tokens | GiB on each of {num_gpus} GPUs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for planned in plans:
        stage = planned.stage
        learns = ", ".join(name for name, (learning, _) in planned.organs.items() if learning)
        size = "—" if stage.size is None else f"{stage.size[0]}x{stage.size[1]}"
        lines.append(
            f"| {stage.name} | {stage.loss} | {learns} | {planned.learning / 1e9:.2f} of {planned.total / 1e9:.2f} B "
            f"| {size} | {stage.steps:,} | {stage.batch_size} | {planned.tokens / 1e9:.1f} B "
            f"| {planned.bytes_per_gpu / 2**30:.0f} |"
        )
    return "\n".join(lines)
