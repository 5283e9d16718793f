"""Direct preference optimisation of pictures on TRL's `DPOTrainer` (arXiv 2305.18290).

In: preferences. Out: the model, in place, finding chosen pictures likelier and rejected ones less likely than its
reference does: itself before training (a frozen copy, or itself with its adapters off). VARGPT-v1.1 (arXiv 2504.02949,
section 3) does the same on image tokens.

To TRL a whole reply is one token. Its log-probability is the sum over the bits of its pictures *divided by their
number*, in nats per bit. A picture of 512 pixels has twenty times the bits of one of nano's 64; divided, both have
log-ratios of one size, and one `beta` fits all layouts (Diffusion-DPO, arXiv 2311.12908, divides likewise and takes a
beta in the thousands). A beta of 400 at nano's 4,160 bits is what is usually written as 0.1. Losses that divide by
length themselves (`ipo`, `sigmoid_norm`) divide by one here.

Shape legend: B rows (chosen, then rejected), T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
from training.preferences.replies import reply_batch
from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.pictures.preference_rows import Preference, PreferenceFolder

try:
    from datasets import Dataset
    from peft import PeftModel
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.utils import FusedCausalLMOutput
except ImportError as error:
    raise ImportError(
        f"learning from preferences needs more packages ({error}): pip install 'vargpt[train]'"
    ) from error

MEANINGLESS = ("logits/chosen", "logits/rejected", "mean_token_accuracy")  # of words; TRL logs them regardless


@dataclass(frozen=True, kw_only=True)
class DpoSettings:
    """How preferences are learnt. `beta` is per nat per bit (see the module); `loss` are names of TRL's losses.

    `text_weight` is how much the words of the replies count, in the same unit: 1 is the likelihood of the whole reply,
    0 (pictures alone) costs nothing where both replies say the same.
    """

    steps: StepSettings
    beta: float = 400.0
    loss: tuple[str, ...] = ("sigmoid",)
    label_smoothing: float = 0.0
    text_weight: float = 0.0

    def arguments(self, run_dir: Path) -> DPOConfig:
        return DPOConfig(
            **self.steps.training_arguments(run_dir),
            beta=self.beta,
            loss_type=list(self.loss),
            label_smoothing=self.label_smoothing,
            max_length=None,
        )


class PairCollator:
    """Numbers of preferences to one batch: the chosen conversations, then the rejected ones."""

    def __init__(
        self, rows: Sequence[Preference] | PreferenceFolder, model: VARGPT, processor: VargptProcessor, score_text: bool
    ) -> None:
        self.rows, self.model, self.processor, self.score_text = rows, model, processor, score_text

    def __call__(self, examples: Sequence[dict[str, int]]) -> dict[str, Any]:
        rows = [self.rows[example["row"]] for example in examples]
        conversations = [[*row.prompt, row.chosen] for row in rows] + [[*row.prompt, row.rejected] for row in rows]
        batch = reply_batch(conversations, self.model, self.processor, self.score_text)
        if self.score_text:
            batch["word_labels"] = batch.pop("labels")  # TRL has labels of its own
        batch["completion_mask"] = torch.zeros_like(batch["input_ids"])
        batch["completion_mask"][:, 1] = 1  # the one token that a reply is to TRL
        return batch


class PictureDPO(DPOTrainer):
    """TRL's trainer with pictures as what is chosen and rejected; losses, metrics and references stay TRL's.

    Args:
        model: a model, or one in peft's hands. With `peft_config`, new adapters are put on it.
        processor: the model's.
        rows: preferences by number.
        args: as `DpoSettings.arguments` makes them.
        text_weight: see `DpoSettings`.
        peft_config: of new adapters; the reference is then the model without them.
    """

    def __init__(
        self,
        model: VARGPT | PeftModel,
        processor: VargptProcessor,
        rows: Sequence[Preference] | PreferenceFolder,
        args: DPOConfig,
        text_weight: float = 0.0,
        peft_config: Any = None,
    ) -> None:
        if args.use_weighting:
            raise ValueError("use_weighting asks for the probabilities of all other tokens, which pictures have not")
        if args.precompute_ref_log_probs:
            raise ValueError("precompute_ref_log_probs would keep them under a name that all preference folders share")
        self.text_weight = text_weight
        adapted = peft_config is not None or isinstance(model, PeftModel)
        base = base_of(model)
        expect_trl(base)
        super().__init__(
            model,
            None if adapted else frozen_copy(model),
            args,
            data_collator=PairCollator(rows, base, processor, score_text=text_weight != 0),
            train_dataset=Dataset.from_dict({"row": list(range(len(rows)))}),
            processing_class=processor,
            peft_config=peft_config,
        )
        for scoring in (base, *(() if self.ref_model is None else (self.ref_model,))):
            scoring.forward = partial(self.score, scoring)

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset  # the collator does it

    def score(
        self,
        model: VARGPT,
        labels: Tensor | None = None,
        word_labels: Tensor | None = None,
        use_cache: bool = False,
        fused_lm_head: bool = False,
        **inputs: Any,
    ) -> FusedCausalLMOutput:
        """What TRL takes for a forward: one log-probability per reply, at its first place, in nats per bit."""
        with self.accelerator.autocast():  # the reference is not wrapped in it as the policy is
            scored = model.sequence_log_probs(**inputs, labels=word_labels)
        assert scored.image is not None and scored.image_entropy is not None, "every reply ends with a picture"
        num_bits = model.image_tokenizer.code_dim * (inputs["input_ids"] == model.placeholders.slot).sum(1)
        total = scored.image.sum(1)
        if scored.text is not None:
            total = total + self.text_weight * scored.text.sum(1)
        return FusedCausalLMOutput(
            log_probs=first_of(total / num_bits, inputs["input_ids"]),
            entropy=first_of(scored.image_entropy.sum(1) / num_bits, inputs["input_ids"]),
            mean_logits=first_of(torch.zeros_like(total), inputs["input_ids"]),
            is_top1=first_of(torch.zeros_like(total), inputs["input_ids"]).bool(),
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        for metrics in self._metrics.values():
            for name in MEANINGLESS:
                metrics.pop(name, None)
        super().log(logs, start_time)


def first_of(values_B: Tensor, input_ids: Tensor) -> Tensor:
    """Values "B" at the first predicted place of "B T-1"; zero elsewhere."""
    rest = values_B.new_zeros(len(values_B), input_ids.shape[1] - 2)
    return torch.cat((values_B[:, None], rest), dim=1)


def base_of(model: VARGPT | PeftModel) -> VARGPT:
    """The model below its adapters."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def train(
    model: VARGPT | PeftModel,
    processor: VargptProcessor,
    rows: Sequence[Preference] | PreferenceFolder,
    settings: DpoSettings,
    run_dir: Path,
    minutes: float | None = None,
    peft_config: Any = None,
) -> bool:
    """Learns preferences, in place, going on from the last checkpoint in `run_dir`; whether all steps are done.

    With `peft_config` the model carries the adapters afterwards; they are saved in `run_dir/checkpoints`.
    On a CPU, a model that sees pictures of one size keeps the quick attention that it learns with.

    Raises:
        ValueError: there is nothing to learn from, or an organ that there is not.
    """
    if not len(rows):
        raise ValueError("there are no preferences to learn from")
    base = base_of(model)
    if base is model and peft_config is None:
        choose_organs(base, settings.steps.organs)
    quicken(base, processor, settings.steps.device)
    borrowed = BorrowedModel(base, processor)
    try:
        trainer = PictureDPO(model, processor, rows, settings.arguments(run_dir), settings.text_weight, peft_config)
        return run_trainer(trainer, run_dir, minutes)
    finally:
        borrowed.give_back()
