"""What DPO and GRPO on TRL share: who learns, what the reference is, and how a run begins and ends.

TRL's trainers are driven by two things only: what a forward returns, and log-probabilities. So the model's forward is
replaced by scoring while one of them is at work, and given back at the end.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.trainer_utils import get_last_checkpoint

from training.autocast import Autocast, check_autocast, settled_autocast
from training.cpu.matmul_attention import use_matmul_attention
from training.distributed import pick_device
from training.preferences.callbacks import LogSteps, StopAfter
from training.stages import learn_only
from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.loading.adapters import AdapterCard, merge_layers, save_adapter
from vargpt.loading.models import model_hash, save
from vargpt.published.families import resolve_model

logger = logging.getLogger(__name__)
DECODER = ("generator", "projector_in", "projector_out")  # what VARGPT-v1.1 trains once it has learnt to speak


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How long and how fast. `batch_size` rows pass at once, `accumulation` such batches make a step.

    `organs` are the parts of the model that learn; the image tokenizer never does.
    """

    total_steps: int
    learning_rate: float
    batch_size: int
    accumulation: int = 1
    warmup_steps: int = 10
    schedule: str = "cosine"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    organs: tuple[str, ...] = DECODER
    autocast: Autocast = "auto"
    device: str = "auto"
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_autocast(self.autocast)
        if self.total_steps < 1 or self.batch_size < 1 or self.accumulation < 1:
            raise ValueError("total_steps, batch_size and accumulation are at least 1")

    def training_arguments(self, run_dir: Path) -> dict[str, Any]:
        """These settings in the words of `transformers.TrainingArguments`."""
        device = pick_device(self.device)
        return {
            "output_dir": str(run_dir / "checkpoints"),
            "max_steps": self.total_steps,
            "learning_rate": self.learning_rate,
            "per_device_train_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.accumulation,
            "warmup_steps": self.warmup_steps,
            "lr_scheduler_type": self.schedule,
            "weight_decay": self.weight_decay,
            "adam_beta1": self.betas[0],
            "adam_beta2": self.betas[1],
            "max_grad_norm": self.clip_norm,
            "bf16": settled_autocast(self.autocast, device) == "bf16",
            "use_cpu": device.type == "cpu",  # transformers refuses bf16 without a GPU otherwise
            "seed": self.seed,
            "save_steps": self.save_every,
            "save_total_limit": 1,
            "logging_steps": 1,
            "report_to": [],
            "remove_unused_columns": False,
            "gradient_checkpointing": False,
            "dataloader_pin_memory": False,  # batches are made on the device
            "disable_dropout": True,
        }


def choose_organs(model: VARGPT, organs: Sequence[str]) -> None:
    """Lets these organs learn and no other, in place.

    Raises:
        ValueError: an organ that the model has not, or the image tokenizer, whose bits are what is learnt.
    """
    names = {name for name, _ in model.named_children()} - {"image_tokenizer"}
    if not organs or set(organs) - names:
        raise ValueError(f"organs that learn are some of {', '.join(sorted(names))}; got {', '.join(organs) or 'none'}")
    learn_only(model, organs)


def quicken(model: VARGPT, processor: VargptProcessor, device: str) -> None:
    """Swaps in the attention that a CPU is quicker with, in place, where all input pictures are of one size."""
    if processor.fixed_size is not None and pick_device(device).type == "cpu":
        use_matmul_attention(model)


def frozen_copy(model: VARGPT) -> VARGPT:
    """The model as it is now, to be compared with later."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def expect_trl(model: VARGPT) -> None:
    """Gives the model the generation config that TRL writes a padding id into; drawing does not read it."""
    if getattr(model, "generation_config", None) is None:
        model.generation_config = GenerationConfig()


class BorrowedModel:
    """A model as TRL's trainers expect it, and as it was when they are done.

    They write padding ids into its configs and processor, and put a forward on the instance.
    """

    def __init__(self, model: VARGPT, processor: VargptProcessor) -> None:
        self.model, self.processor = model, processor
        self._padding = (model.config.get_text_config().pad_token_id, processor.tokenizer.pad_token)

    def give_back(self) -> VARGPT:
        self.model.__dict__.pop("forward", None)
        self.model.__dict__.pop("_original_forward", None)
        self.model.config.get_text_config().pad_token_id, self.processor.tokenizer.pad_token = self._padding
        return self.model.eval()


def learning_by_organ(model: Any) -> dict[str, int]:
    """Numbers of parameters that learn, by organ ("adapters of" one where they sit beside it)."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            organ = name.removeprefix("base_model.model.").split(".")[0]
            organ = f"adapters of {organ}" if "lora_" in name else organ
            counts[organ] = counts.get(organ, 0) + parameter.numel()
    return counts


def leave_model(
    model: VARGPT, processor: VargptProcessor, out: Path, lora: Any = None, begun_with: str | Path | None = None
) -> Path:
    """Writes `out`/model and returns it. Adapters (`lora` is their config) also go to `out`/adapter, before they become
    part of the weights; `begun_with` is the model that they were learnt on.
    """
    if lora is not None:
        base = resolve_model(begun_with)
        card = AdapterCard(name=out.resolve().name, base=base.resolve().name, base_hash=model_hash(base))
        save_adapter(model, "default", lora, card, out / "adapter")
        merge_layers(model, ["default"])
    save(model, processor, out / "model")
    return out / "model"


def run_trainer(trainer: Any, run_dir: Path, minutes: float | None = None) -> bool:
    """Trains, from the last checkpoint in `run_dir` if there is one; whether all steps are done."""
    trainer.add_callback(LogSteps(run_dir))
    if minutes is not None:
        trainer.add_callback(StopAfter(minutes))
    checkpoints = run_dir / "checkpoints"
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if last is not None:
        logger.info("continuing from %s", last)
    learns = ", ".join(f"{count:,} in {organ}" for organ, count in learning_by_organ(trainer.model).items())
    logger.info("parameters that learn: %s; all others keep their values", learns)
    trainer.train(resume_from_checkpoint=last)
    return trainer.state.global_step >= trainer.args.max_steps
