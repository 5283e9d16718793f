"""The model in the hands of transformers: its Trainer, and gradient checkpointing."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments

from tests.assistant.test_model import CONVERSATION, random_tokens, training_batch
from vargpt.assistant.picture_batch import PictureBatch
from vargpt.testing import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def batch() -> dict:
    model = tiny_model()
    rows = training_batch(model, tiny_processor(), [CONVERSATION])
    return rows | {"pictures": PictureBatch(tokens=random_tokens(model, 2))}


def test_the_trainer_of_transformers_trains_it_with_its_own_loss(batch, tmp_path) -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.named_parameters()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        max_steps=2,
        per_device_train_batch_size=1,
        learning_rate=1e-2,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=[batch, batch], data_collator=lambda rows: rows[0])
    with torch.no_grad():
        expected = float(tiny_model().train()(**batch).loss)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    assert losses[0] == pytest.approx(expected, rel=1e-3) and losses[1] < losses[0]
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {
        "vision", "vision_norm", "vision_positions", "language_model", "projector_in", "projector_out", "generator",
    }  # fmt: skip


def test_gradient_checkpointing_changes_no_gradient(batch) -> None:
    plain, frugal = tiny_model().train(), tiny_model().train()
    frugal.gradient_checkpointing_enable()
    losses = [model(**batch).loss for model in (plain, frugal)]
    assert_close(losses[1], losses[0])
    for loss in losses:
        loss.backward()
    wanted = dict(plain.named_parameters())
    for name, parameter in frugal.named_parameters():
        if wanted[name].grad is not None:
            assert_close(parameter.grad, wanted[name].grad, atol=1e-6, rtol=1e-4)
