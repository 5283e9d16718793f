"""DPO on pictures: nothing to learn at the start, margins that grow, references that agree, one beta for all sizes."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import math
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close

from tests.loading.test_peft import TARGETS
from tests.training.preferences.made_rows import preference
from training.cpu.matmul_attention import matmul_attention
from training.preferences.dpo import DpoSettings, PairCollator, PictureDPO, train
from training.preferences.feedback import StepSettings, choose_organs, quicken
from training.recipes import nano_dpo
from vargpt.assistant.model import VARGPT
from vargpt.chat.engine import ChatEngine
from vargpt.loading.adapters import adapted_layers
from vargpt.loading.models import save
from vargpt.pictures.preference_rows import PreferenceFolder
from vargpt.published.families import load
from vargpt.testing import tiny_model, tiny_processor

PROCESSOR = tiny_processor()
STEPS = StepSettings(
    total_steps=3, learning_rate=3e-3, batch_size=2, warmup_steps=0, schedule="constant", autocast="none", device="cpu"
)
SETTINGS = DpoSettings(steps=STEPS, beta=20.0)
PLAIN = tiny_model()
ROWS = [preference(PLAIN, 0), preference(PLAIN, 1)]


def settings(**steps: object) -> DpoSettings:
    return dataclasses.replace(SETTINGS, steps=dataclasses.replace(STEPS, **steps))


def trainer_of(model, tmp_path, rows=ROWS, of=SETTINGS, **fields) -> PictureDPO:
    return PictureDPO(model, PROCESSOR, rows, of.arguments(tmp_path), of.text_weight, **fields)


def loss_of(trainer: PictureDPO) -> tuple[float, dict[str, float]]:
    batch = trainer.data_collator([{"row": row} for row in range(len(trainer.train_dataset))])
    trainer._metrics["train"].clear()
    trainer._metrics["eval"].clear()
    loss = trainer.compute_loss(trainer.model, batch)
    seen = trainer._metrics["train"] | trainer._metrics["eval"]
    return loss.item(), {name: values[-1] for name, values in seen.items()}


def drifted(seed: int = 5) -> VARGPT:
    """The tiny model, a little further on."""
    model, noise = tiny_model(), torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not name.startswith("image_tokenizer"):
            parameter.data += torch.randn(parameter.shape, generator=noise) * 0.02
    return model


@pytest.mark.parametrize("autocast", ["none", "bf16"])
def test_a_policy_that_is_its_reference_loses_ln_2_and_has_no_margin(autocast, tmp_path) -> None:
    loss, metrics = loss_of(trainer_of(tiny_model(), tmp_path, of=settings(autocast=autocast)))
    assert loss == pytest.approx(math.log(2), abs=1e-5)
    assert metrics["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert metrics["logps/chosen"] < -0.1 and metrics["entropy"] > 0.1


def test_what_trl_sees_is_the_mean_log_prob_per_bit(tmp_path) -> None:
    _, metrics = loss_of(trainer_of(drifted(), tmp_path))
    losses = drifted()(**batch_of(PLAIN)).scale_losses  # "N K", nats per bit
    bits = torch.tensor([8.0, 32.0, 128.0])
    per_bit = -(losses * bits).sum(1) / bits.sum()
    assert metrics["logps/chosen"] == pytest.approx(per_bit[:2].mean().item(), abs=1e-5)
    assert metrics["logps/rejected"] == pytest.approx(per_bit[2:].mean().item(), abs=1e-5)
    assert per_bit[:2].mean().item() != pytest.approx(per_bit[2:].mean().item(), abs=1e-4)


def test_the_margin_of_one_batch_grows_step_by_step(tmp_path) -> None:
    model = tiny_model()
    assert train(model, PROCESSOR, ROWS, settings(total_steps=6), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    margins = [line["rewards/margins"] for line in lines if "rewards/margins" in line]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert margins[0] == pytest.approx(0, abs=1e-4) and margins[-1] > 0.2
    assert margins == sorted(margins) and losses[-1] < losses[0] - 0.1
    assert not {"logits/chosen", "mean_token_accuracy"} & set(lines[0])
    scored = [one.sequence_log_probs(**batch_of(one)).image.sum(1) for one in (model, PLAIN)]
    gained = scored[0] - scored[1]
    assert (gained[:2] - gained[2:] > 1).all(), "nats that chosen pictures gained on rejected ones"


def batch_of(model: VARGPT) -> dict:
    batch = PairCollator(ROWS, model, PROCESSOR, score_text=False)([{"row": 0}, {"row": 1}])
    del batch["completion_mask"]
    return batch


def test_only_the_chosen_organs_move_and_the_model_is_given_back_as_it_was(tmp_path) -> None:
    model, before = tiny_model(), dict(copy.deepcopy(PLAIN).named_parameters())
    padding = (model.config.text_config.pad_token_id, PROCESSOR.tokenizer.pad_token)
    train(model, PROCESSOR, ROWS, settings(total_steps=1, organs=("generator", "projector_in")), tmp_path)
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"generator", "projector_in"}
    assert "forward" not in model.__dict__ and not model.training
    assert padding == (model.config.text_config.pad_token_id, PROCESSOR.tokenizer.pad_token)
    with pytest.raises(ValueError, match="organs that learn are some of"):
        choose_organs(model, ("generator", "image_tokenizer"))


def test_a_run_that_was_stopped_continues_to_the_same_weights(tmp_path) -> None:
    whole, halves = tiny_model(), tiny_model()
    assert train(whole, PROCESSOR, ROWS, settings(total_steps=3), tmp_path / "whole")
    assert not train(halves, PROCESSOR, ROWS, settings(total_steps=3), tmp_path / "halves", minutes=0)
    again = tiny_model()
    assert train(again, PROCESSOR, ROWS, settings(total_steps=3), tmp_path / "halves")
    for (name, one), (_, other) in zip(whole.named_parameters(), again.named_parameters(), strict=True):
        assert_close(one, other, atol=1e-6, rtol=1e-5, msg=name)


# -- references --------------------------------------------------------------------------------------------------------


def test_adapters_that_are_off_are_the_same_reference_as_a_frozen_copy(tmp_path) -> None:
    """The same policy twice: as weights of its own beside a copy, and as an adapter on the model."""
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, init_lora_weights=False)
    adapted = trainer_of(tiny_model(), tmp_path, peft_config=lora)
    merged = copy.deepcopy(adapted.model).merge_and_unload()
    for name in ("forward", "_original_forward"):
        merged.__dict__.pop(name, None)
    beside = trainer_of(merged, tmp_path)
    beside.ref_model.load_state_dict(PLAIN.state_dict())
    assert adapted.ref_model is None
    (loss, metrics), (expected, wanted) = loss_of(adapted), loss_of(beside)
    assert loss == pytest.approx(expected, abs=1e-4) and abs(loss - math.log(2)) > 1e-3
    assert metrics["rewards/chosen"] == pytest.approx(wanted["rewards/chosen"], abs=1e-3)


def test_an_adapter_learns_and_the_model_below_it_does_not(tmp_path) -> None:
    model = tiny_model()
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=TARGETS))
    before = {name: value.clone() for name, value in adapted.named_parameters()}
    assert train(adapted, PROCESSOR, ROWS, settings(total_steps=2), tmp_path)
    moved = {
        name for name, value in adapted.named_parameters() if name in before and not torch.equal(value, before[name])
    }
    assert moved and all("lora_" in name and ".default." in name for name in moved)


# -- one beta for all sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge", "sigmoid_norm", "apo_zero"])
def test_one_beta_means_the_same_for_pictures_of_every_size(loss, tmp_path) -> None:
    """A policy that finds every bit 1 likelier by the same factor has the same rewards at 16 and at 32 pixels."""
    policy, reference = tiny_model(), tiny_model()
    for model, lean in ((policy, 0.4), (reference, 0.0)):
        model.generator.head.weight.data.zero_()
        model.generator.head.bias.data.copy_(torch.tensor([0.0, lean]).repeat(8))
    results = []
    for size in ((16, 16), (32, 32)):
        ones, zeros = preference(policy, 1, size=size, bit=True), preference(policy, 1, size=size, bit=False)
        row = type(ones)(ones.prompt, ones.chosen, zeros.rejected)
        of = DpoSettings(steps=STEPS, beta=2.0, loss=(loss,))
        trainer = trainer_of(policy, tmp_path, [row], of)
        trainer.ref_model.load_state_dict(reference.state_dict())
        results.append(loss_of(trainer))
        policy.__dict__.pop("forward")
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6)
    margin = 2.0 * 0.4  # beta times the log-ratio of one bit: log sigmoid(0.4) - log sigmoid(-0.4) = 0.4
    for _, metrics in results:
        assert metrics["rewards/margins"] == pytest.approx(margin, abs=1e-5)


def test_words_count_where_they_differ_and_only_if_they_are_asked_for(tmp_path) -> None:
    row = ROWS[1]
    other_words = type(row)(row.prompt, row.chosen, type(row.chosen).of("assistant", "A cat.", row.chosen.images[0]))
    deaf = loss_of(trainer_of(drifted(), tmp_path, [row]))[1]
    hearing = DpoSettings(steps=STEPS, beta=20.0, text_weight=1.0)
    same_words = trainer_of(drifted(), tmp_path, [row], hearing)
    same_words.ref_model.load_state_dict(PLAIN.state_dict())
    pictures_alone = trainer_of(drifted(), tmp_path, [row])
    pictures_alone.ref_model.load_state_dict(PLAIN.state_dict())
    margins = [loss_of(one)[1]["rewards/margins"] for one in (same_words, pictures_alone)]
    assert margins[0] == pytest.approx(margins[1], abs=1e-4) and abs(margins[0]) > 1e-3
    assert deaf["logps/chosen"] != loss_of(same_words)[1]["logps/chosen"]
    differing = trainer_of(drifted(), tmp_path, [other_words], hearing)
    metrics = loss_of(differing)[1]
    assert metrics["logps/chosen"] != pytest.approx(metrics["logps/rejected"], abs=1e-4)


QUICK = "--steps.batch-size 1 --steps.autocast none --steps.device cpu"

# -- the command -------------------------------------------------------------------------------------------------------


def test_the_recipe_learns_from_a_folder_and_leaves_a_model(tmp_path, capsys) -> None:
    save(tiny_model(), PROCESSOR, tmp_path / "tiny", dtype=torch.float32)
    folder = PreferenceFolder(tmp_path / "rows")
    for number, row in enumerate(ROWS):
        folder.add(number, row)
    changes = f"--steps.total-steps 1 --steps.accumulation 2 --steps.learning-rate 1e-3 {QUICK}".split()
    arguments = ["--model", str(tmp_path / "tiny"), "--preferences", str(folder.path), "--out", str(tmp_path / "out")]
    nano_dpo.main([*arguments, *changes])
    learnt, _ = load(tmp_path / "out" / "model", device="cpu", dtype="float32")
    assert not torch.equal(learnt.generator.head.weight, PLAIN.generator.head.weight)
    with pytest.raises(SystemExit):
        nano_dpo.main([*arguments[:3], str(tmp_path / "nowhere")])
    assert "vargpt prefer" in capsys.readouterr().err


def test_the_recipe_learns_an_adapter_beside_its_organs_and_nothing_else(tmp_path, capsys, caplog) -> None:
    save(tiny_model(), PROCESSOR, tmp_path / "tiny", dtype=torch.float32)
    folder = PreferenceFolder(tmp_path / "rows")
    folder.add(0, ROWS[1])
    changes = f"--steps.total-steps 2 --steps.accumulation 1 --steps.learning-rate 1e-2 {QUICK}".split()
    arguments = ["--model", str(tmp_path / "tiny"), "--preferences", str(folder.path), "--out", str(tmp_path / "out")]
    with caplog.at_level("INFO"):
        nano_dpo.main([*arguments, "--lora", "4", *changes, "--steps.warmup-steps", "0"])
    said = next(line for line in caplog.messages if line.startswith("parameters that learn"))
    assert all(f"in adapters of {organ}" in said for organ in ("generator", "projector_in", "projector_out"))
    assert said.count(" in ") == 3 and "language_model" not in said
    adapter = ChatEngine.load(tmp_path / "tiny", "cpu", adapters=[tmp_path / "out" / "adapter"])
    organs = {name.split(".")[0] for name, _ in adapted_layers(adapter.model)}
    assert organs == {"generator", "projector_in", "projector_out"}
    learnt, before = (load(tmp_path / name, device="cpu", dtype="float32")[0] for name in ("out/model", "tiny"))
    moved = {
        name
        for (name, one), (_, other) in zip(learnt.named_parameters(), before.named_parameters(), strict=True)
        if not torch.equal(one, other.bfloat16().float())
    }
    assert moved and {name.split(".")[0] for name in moved} == organs and all(name.endswith("weight") for name in moved)
    with pytest.raises(SystemExit):
        nano_dpo.main([*arguments, "--lora", "4", "--steps.organs", "vision"])
    assert "adapters are made for language_model, generator" in capsys.readouterr().err


def test_without_a_gpu_bf16_arithmetic_is_asked_of_the_cpu(tmp_path) -> None:
    auto = settings(autocast="bf16", device="auto").arguments(tmp_path)
    assert auto.bf16 and auto.use_cpu == (not torch.cuda.is_available())


def test_quick_attention_scores_as_the_other_does() -> None:
    quick = tiny_model()
    quicken(quick, PROCESSOR, "cpu")
    batch = batch_of(PLAIN)
    with torch.no_grad():
        scores = [model.sequence_log_probs(**batch).image for model in (quick, PLAIN)]
    assert_close(scores[0], scores[1], atol=2e-4, rtol=1e-4)
    assert quick.generator.blocks[0].attention.attend is matmul_attention
    free = tiny_processor()
    free.fixed_size = None  # pictures of many sizes
    quicken(other := tiny_model(), free, "cpu")
    assert other.generator.blocks[0].attention.attend is not matmul_attention


@pytest.mark.parametrize("name", ["training.preferences.dpo", "training.preferences.grpo"])
def test_without_trl_the_error_names_the_extra(name, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=r"pip install 'vargpt\[train\]'"):
        importlib.import_module(name)
