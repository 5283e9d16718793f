"""Group relative policy optimisation of pictures on TRL's `GRPOTrainer` (arXiv 2402.03300), as SimpleAR's third stage.

In: prompts and rewards. Out: the model, in place, drawing what is rewarded. Of every prompt a group of pictures is
drawn by the engine, without guidance and with nothing cut off (guidance 1, top-p 1): at one temperature, that is
exactly the distribution whose log-probabilities are then raised or lowered. A picture's advantage is its reward against
its group. One action is one image token (the sum over its bits), so that a model of next-token codes fits in as well.

Shape legend: B pictures, L image tokens of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.preferences.feedback import (
    BorrowedModel,
    StepSettings,
    choose_organs,
    expect_trl,
    frozen_copy,
    quicken,
    run_trainer,
)
from training.preferences.prefer import Wanted, replied
from training.preferences.replies import reply_batch
from training.preferences.rewards import Reward
from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.chat.engine import ChatEngine
from vargpt.chat.requests import MAX_PICTURES
from vargpt.types import ChatRequest, ImageSampling, Message

try:
    from datasets import Dataset
    from peft import PeftModel
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer.utils import use_adapter
except ImportError as error:
    raise ImportError(f"learning from rewards needs more packages ({error}): pip install 'vargpt[train]'") from error


@dataclass(frozen=True, kw_only=True)
class GrpoSettings:
    """How rewards are learnt. `group` pictures are drawn of every prompt; `steps.batch_size` counts pictures.

    `beta` weighs the divergence from the reference per image token (0: no reference); `iterations` is how often the
    same pictures are learnt from, with ratios clipped at 1 ± `epsilon` from the second time on.
    """

    steps: StepSettings
    group: int = 8
    temperature: float = 1.0
    beta: float = 0.01
    epsilon: float = 0.2
    iterations: int = 1
    loss: str = "grpo"
    scale_rewards: str = "group"

    def arguments(self, run_dir: Path, num_tokens: int) -> GRPOConfig:
        return GRPOConfig(
            **self.steps.training_arguments(run_dir),
            num_generations=self.group,
            temperature=self.temperature,
            beta=self.beta,
            epsilon=self.epsilon,
            num_iterations=self.iterations,
            loss_type=self.loss,
            scale_rewards=self.scale_rewards,
            max_completion_length=num_tokens,
        )


class PictureGRPO(GRPOTrainer):
    """TRL's trainer with pictures as completions; losses, clipping and metrics stay TRL's.

    Args:
        model: a model, or one in peft's hands. With `peft_config`, new adapters are put on it.
        processor: the model's.
        wanted: the prompts, with the columns that the rewards ask for.
        rewards: functions as in `training.preferences.rewards`; their values are added up.
        args: as `GrpoSettings.arguments` makes them.
        peft_config: of new adapters; the reference is then the model without them.
    """

    def __init__(
        self,
        model: VARGPT | PeftModel,
        processor: VargptProcessor,
        wanted: Sequence[Wanted],
        rewards: Sequence[Reward],
        args: GRPOConfig,
        peft_config: Any = None,
    ) -> None:
        self.wanted = wanted
        self.base = model.get_base_model() if isinstance(model, PeftModel) else model
        self.conversations: list[list[Message]] = []  # of the pictures that are learnt from at present
        self.rows: list[int] = []  # those of them that the forward at hand is about
        copied = args.beta != 0 and peft_config is None and not isinstance(model, PeftModel)
        reference, beta = (frozen_copy(model) if copied else None), args.beta
        args.beta = 0.0 if copied else beta  # or TRL would look for the reference on the hub
        expect_trl(self.base)
        super().__init__(
            model,
            [as_trl_calls(reward) for reward in rewards],
            args,
            train_dataset=Dataset.from_dict({"prompt": [w.prompt for w in wanted], "number": list(range(len(wanted)))}),
            processing_class=processor,
            peft_config=peft_config,
        )
        self.beta = args.beta = beta
        self.engine = ChatEngine(self.base, processor)
        self.base.forward = self.base.sequence_log_probs  # type: ignore[method-assign,assignment]
        if reference is not None:
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)
            reference.forward = reference.sequence_log_probs  # type: ignore[method-assign,assignment]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        mode = "train" if self.model.training else "eval"
        wanted = [self.wanted[one["number"]] for one in inputs]
        self.conversations = self.draw(wanted)
        advantages = self.advantages(wanted, mode)
        rows = torch.arange(len(wanted), device=self.accelerator.device)
        mask = torch.ones(len(rows), self.args.max_completion_length, dtype=torch.long, device=rows.device)
        output = {
            "rows": rows,
            "prompt_ids": mask[:, :0],  # what is scored is put together from `rows`
            "prompt_mask": mask[:, :0],
            "completion_ids": torch.full_like(mask, self.base.placeholders.slot),
            "completion_mask": mask,
            "advantages": advantages,
            "num_items_in_batch": mask.sum() * self.accelerator.num_processes,
        }
        with torch.no_grad():
            if self.args.gradient_accumulation_steps % (self.args.steps_per_generation * self.num_iterations):
                output["old_per_token_logps"] = self._in_batches(self.model, rows)
            if self.beta and self.ref_model is not None:
                output["ref_per_token_logps"] = self._in_batches(self.ref_model, rows)
            elif self.beta:
                adapted = self.accelerator.unwrap_model(self.model)
                with use_adapter(adapted, adapter_name="ref" if "ref" in adapted.peft_config else None):
                    output["ref_per_token_logps"] = self._in_batches(self.model, rows)
        return output

    def draw(self, wanted: Sequence[Wanted]) -> list[list[Message]]:
        """One conversation per prompt, ending with a picture; equal neighbours are drawn together."""
        seed = (self.args.seed * 1_000_003 + self.state.global_step) * 64 + self.accelerator.process_index
        sampling = ImageSampling(guidance_scale=1.0, temperature=self.temperature)
        groups, layout = list(runs(wanted, MAX_PICTURES)), self.base.config.layout()
        requests = [
            ChatRequest(
                messages=group[0].messages,
                image_sampling=sampling,
                route="image",
                size=(layout.height, layout.width),  # not that of a picture in the prompt: all are scored together
                n=len(group),
                seed=seed * 4096 + number * MAX_PICTURES,
            )
            for number, group in enumerate(groups)
        ]
        was_training = self.base.training
        self.base.eval()
        with self.accelerator.autocast():
            turns = self.engine.reply_batch(requests)
        self.base.train(was_training)
        return [
            [*group[0].messages, replied(turn.message, part)]
            for group, turn in zip(groups, turns, strict=True)
            for part in turn.message.images
        ]

    def advantages(self, wanted: Sequence[Wanted], mode: str) -> Tensor:
        """Of this process's pictures, "B"; groups may be spread over processes, whose rewards are gathered first."""
        images = [conversation[-1].images[0].image for conversation in self.conversations]
        columns = [{"prompt": one.prompt} | one.columns for one in wanted]
        by_reward = self._calculate_rewards(columns, [one.prompt for one in wanted], images, [[]] * len(wanted))
        rewards = (by_reward * self.reward_weights.to(by_reward)).sum(1)
        if not bool(rewards.isfinite().all()):
            raise ValueError(f"rewards are finite numbers, got {rewards.tolist()}")
        group = self.num_generations if mode == "train" else self.num_generations_eval
        metrics = self._metrics[mode]
        for name, values in zip(self.reward_func_names, by_reward.unbind(1), strict=True):
            metrics[f"rewards/{name}/mean"].append(values.mean().item())
        metrics["reward"].append(rewards.mean().item())
        metrics["reward_std"].append(rewards.view(-1, group).std(1).mean().item())
        first = self.accelerator.process_index * len(wanted)
        return group_advantages(rewards, group, self.scale_rewards)[first : first + len(wanted)]

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        self.rows = inputs["rows"].tolist()
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, None]:
        """Log-probabilities and entropies "B L" of the pictures that `rows` names."""
        batch = reply_batch([self.conversations[row] for row in self.rows], self.base, self.engine.processor)
        with self.accelerator.autocast():
            scored = model(**batch, temperature=self.temperature)
        at_slots = batch["input_ids"] == self.base.placeholders.slot
        return tuple(values[at_slots].view(len(self.rows), -1) for values in (scored.image, scored.image_entropy)) + (
            None,
        )

    def _in_batches(self, model: Any, rows: Tensor) -> Tensor:
        parts = []
        for part in rows.split(self.args.per_device_train_batch_size):
            self.rows = part.tolist()
            parts.append(self._get_per_token_logps_and_entropies(model)[0])
        return torch.cat(parts)


def group_advantages(rewards: Tensor, group: int, scale: str = "group") -> Tensor:
    """Rewards "B" against the mean of their group (neighbours), in standard deviations of the group or of all.

    Raises:
        ValueError: an unknown scale.
    """
    if scale not in ("group", "batch", "none"):
        raise ValueError(f"rewards are scaled by 'group', 'batch' or 'none', got {scale!r}")
    grouped = rewards.view(-1, group)
    advantages = grouped - grouped.mean(1, keepdim=True)
    if scale == "group":
        advantages = advantages / (grouped.std(1, keepdim=True) + 1e-4)
    elif scale == "batch":
        advantages = advantages / (rewards.std() + 1e-4)
    return advantages.flatten()


def runs(wanted: Sequence[Wanted], longest: int) -> Iterator[list[Wanted]]:
    """Neighbours that are the same prompt, at most `longest` of them together."""
    for _, equal in groupby(wanted, key=id):
        same = list(equal)
        yield from (same[start : start + longest] for start in range(0, len(same), longest))


def as_trl_calls(reward: Reward) -> Reward:
    """The same reward under TRL's names of its arguments."""

    @wraps(reward)
    def called(prompts: list[str], completions: list[Any], **columns: Any) -> list[float]:
        return reward(prompts, completions, **columns)

    return called


def train(
    model: VARGPT | PeftModel,
    processor: VargptProcessor,
    wanted: Sequence[Wanted],
    rewards: Sequence[Reward],
    settings: GrpoSettings,
    run_dir: Path,
    minutes: float | None = None,
    peft_config: Any = None,
) -> bool:
    """Learns from rewards, in place, going on from the last checkpoint in `run_dir`; whether all steps are done.

    On a CPU, a model that sees pictures of one size keeps the quick attention that it learns with.

    Raises:
        ValueError: there are no prompts or rewards, numbers that do not fit, or an organ that there is not.
    """
    if not wanted or not rewards:
        raise ValueError("learning from rewards needs prompts and at least one reward")
    pictures = settings.steps.batch_size * settings.steps.accumulation
    if settings.group < 2 or pictures % settings.group:
        raise ValueError(
            f"a step draws {pictures} pictures (batch_size x accumulation), which are no whole groups of "
            f"{settings.group}; groups are of two or more"
        )
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if base is model and peft_config is None:
        choose_organs(base, settings.steps.organs)
    quicken(base, processor, settings.steps.device)
    borrowed = BorrowedModel(base, processor)
    try:
        arguments = settings.arguments(run_dir, base.config.layout().num_tokens)
        return run_trainer(PictureGRPO(model, processor, wanted, rewards, arguments, peft_config), run_dir, minutes)
    finally:
        borrowed.give_back()
