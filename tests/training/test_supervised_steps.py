"""A step of fine-tuning is one batch: however it is divided, wherever a run begins, whatever else is switched on."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.training.joint_runs import SETTINGS, messages_of
from training.checkpoints import UNFINISHED, checkpoint_of, step_of
from training.data import Batch, Conversations, Share, micro_batches
from training.supervised import PictureInputs, SftSettings, make_losses, train
from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import IGNORE_INDEX
from vargpt.testing import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def with_loop(settings: SftSettings = SETTINGS, **loop) -> SftSettings:
    return dataclasses.replace(settings, loop=dataclasses.replace(settings.loop, **loop))


def stream(processor, share: Share | None = None) -> Conversations:
    return Conversations(messages_of, processor, 21, SETTINGS.batches, share=share or Share())


def read_log(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def assert_same_weights(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for (name, value), (_, expected) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert_close(value, expected, msg=name, **tolerance or {"rtol": 0, "atol": 0})


# -- dividing a batch --------------------------------------------------------------------------------------------------


def gradients(parts: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    model = tiny_model().train()
    model.image_tokenizer.requires_grad_(False)
    losses = make_losses(model, model.config.layout(), SETTINGS)
    total = 0.0
    for part in parts:
        loss, _ = losses(model, part)
        loss.backward()
        total += float(loss.detach())
    return total, {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 8), (2, 1), (2, 3)])
def test_a_batch_in_parts_has_the_gradients_of_the_whole(processor, world_size: int, accumulation: int) -> None:
    rows = stream(processor).pool_rows(0)[1]
    (whole,) = stream(processor).parts(rows)
    shares = [Share(rank, world_size, accumulation) for rank in range(world_size)]
    parts = [part for share in shares for part in stream(processor, share).parts(rows)]
    assert len(parts) == world_size * accumulation
    tokens = [int((part["labels"][:, 1:] != IGNORE_INDEX).sum()) for part in parts]
    assert sum(tokens) == int(whole["num_text_tokens"]) and len(set(tokens)) > 1, "a mean of means would be wrong"
    loss, wanted = gradients([whole])
    divided, found = gradients(parts)
    assert divided == pytest.approx(loss, rel=1e-5)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 3), (3, 2), (4, 8)])
def test_every_row_is_learnt_once_and_all_processes_need_the_same_organs(processor, world_size, accumulation) -> None:
    rows = stream(processor).pool_rows(0)[0]
    by_rank = [micro_batches(rows, Share(rank, world_size, accumulation)) for rank in range(world_size)]
    learnt = [row.sample_id for parts in by_rank for part in parts for row in part if not row.spare]
    assert sorted(learnt) == sorted(row.sample_id for row in rows)
    for together in zip(*by_rank, strict=True):
        kinds = [{kind for row in part for kind in row.kinds} for part in together]
        assert all(kind == kinds[0] for kind in kinds) and all(together)
    spares = [row for parts in by_rank for part in parts for row in part if row.spare]
    assert all(set(row.labels) == {IGNORE_INDEX} and row.num_learnt == 0 for row in spares)
    assert spares or world_size == 1


def test_a_share_of_nothing_is_refused() -> None:
    for wrong in ({"rank": 2, "world_size": 2}, {"accumulation": 0}):
        with pytest.raises(ValueError, match="accumulation is at least 1 and rank below world_size"):
            Share(**wrong)
    with pytest.raises(ValueError, match="accumulation is the number of micro-batches"):
        with_loop(accumulation=0)


def test_what_is_left_to_chance_stays_with_its_picture(processor) -> None:
    model = tiny_model()
    settings = dataclasses.replace(SETTINGS, null_rate=0.5, flip_strength=0.5)
    inputs = PictureInputs(model, model.config.layout(), settings)
    rows = [row for group in stream(processor).pool_rows(0) for row in group if row.encoded.drawn]
    whole = inputs(stream(processor).parts(rows)[0])["pictures"]
    assert len(set(whole.conditions.tolist())) > 1
    assert (whole.tokens.flat() != whole.targets.flat()).any()
    first = 0
    for row in rows:
        alone = inputs(stream(processor).parts([row])[0])["pictures"]
        here = slice(first, first + len(row.encoded.drawn))
        assert torch.equal(whole.conditions[here], alone.conditions)
        assert whole.tokens.select(here) == alone.tokens and whole.targets.select(here) == alone.targets
        first = here.stop


def test_a_run_with_micro_batches_ends_with_the_same_weights(processor, tmp_path) -> None:
    models = [tiny_model(), tiny_model()]
    for model, accumulation in zip(models, (1, 3), strict=True):
        settings = with_loop(accumulation=accumulation)
        train(model, processor, messages_of, settings, tmp_path / str(accumulation))
    assert_same_weights(*models, rtol=1e-4, atol=2e-5)
    for one, other in zip(read_log(tmp_path / "1"), read_log(tmp_path / "3"), strict=True):
        assert one.keys() == other.keys()
        for name in (name for name in one if "loss" in name or name == "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-4), name
        assert all(one[name] == other[name] for name in ("pictures", "tokens", "lr"))


# -- stopping and going on ---------------------------------------------------------------------------------------------


def test_a_signal_stops_after_a_step_and_the_run_goes_on_as_if_nothing_had_been(processor, tmp_path) -> None:
    whole, halves = tiny_model(), tiny_model()
    settings = with_loop(total_steps=5, save_every_minutes=60.0, schedule="cosine", optimizer="muon")
    train(whole, processor, messages_of, settings, tmp_path / "whole")

    def interrupted(sample_id: int):
        if sample_id == 12:  # the second pool, so the fourth step
            signal.raise_signal(signal.SIGTERM)
        return messages_of(sample_id)

    stopped = train(halves, processor, interrupted, settings, tmp_path / "halves")
    assert (stopped.step, stopped.done) == (4, False)
    checkpoint = checkpoint_of(tmp_path / "halves")
    assert checkpoint is not None and step_of(checkpoint) == 4
    finished = train(tiny_model(seed=5), processor, messages_of, settings, tmp_path / "halves")
    assert finished.done
    again = tiny_model(seed=6)  # a finished run is only read
    assert train(again, processor, messages_of, settings, tmp_path / "halves").step == 5
    assert_same_weights(again, whole)
    one, other = read_log(tmp_path / "whole"), read_log(tmp_path / "halves")
    assert [line["step"] for line in other] == [1, 2, 3, 4, 5]
    for line, expected in zip(other, one, strict=True):
        assert line["loss"] == expected["loss"] and line["grad_norm"] == expected["grad_norm"]
        assert line["lr"] == pytest.approx(settings.loop.learning_rate_at(line["step"] - 1), rel=1e-5)


def test_without_any_time_nothing_is_done_and_with_little_one_step_is(processor, tmp_path) -> None:
    model, before = tiny_model(), tiny_model()
    assert train(model, processor, messages_of, with_loop(time_budget_minutes=0.0), tmp_path).step == 0
    assert_same_weights(model, before)
    assert train(model, processor, messages_of, with_loop(time_budget_minutes=1e-9), tmp_path).step == 1


def test_what_a_kill_leaves_behind_is_passed_over(processor, tmp_path) -> None:
    whole, killed = tiny_model(), tiny_model()
    train(whole, processor, messages_of, SETTINGS, tmp_path / "whole")
    train(killed, processor, messages_of, with_loop(time_budget_minutes=1e-9), tmp_path / "killed")
    folder = tmp_path / "killed" / "checkpoints"
    half = folder / f"step_0000002{UNFINISHED}"  # killed while writing the next checkpoint ...
    half.mkdir()
    (half / "__0_0.distcp").write_bytes(b"half a file")
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 2, "loss": 1.0}\n{"step": 3, "lo')  # ... and a line of the log
    finished = train(killed, processor, messages_of, SETTINGS, tmp_path / "killed")
    assert finished.done
    assert_same_weights(killed, whole)
    assert [line["step"] for line in read_log(tmp_path / "killed")] == [1, 2, 3, 4]
    assert [path.name for path in folder.iterdir()] == ["step_0000004"]


def test_a_checkpoint_of_another_run_is_refused(processor, tmp_path) -> None:
    train(tiny_model(), processor, messages_of, with_loop(time_budget_minutes=1e-9), tmp_path)
    with pytest.raises(ValueError, match="another optimiser .AdamW.; set the same"):
        train(tiny_model(), processor, messages_of, with_loop(optimizer="muon"), tmp_path)
    partly = with_loop(save_frozen=False, time_budget_minutes=1e-9)
    model = tiny_model()
    model.generator.requires_grad_(False)
    train(model, processor, messages_of, partly, tmp_path / "partly")
    with pytest.raises(ValueError, match="other parameters learnt; begin in another folder"):
        train(tiny_model(), processor, messages_of, partly, tmp_path / "partly")


# -- what a run may switch on ------------------------------------------------------------------------------------------


def count_calls(model: VARGPT) -> dict[str, int]:
    """How often the insides of one layer of every stack are computed from now on."""
    calls = {}
    insides = {
        "language_model": model.language_model.layers[0].mlp,
        "vision": model.vision.blocks[0].mlp,
        "generator": model.generator.blocks[0].mlp,
    }
    for name, module in insides.items():
        calls[name] = 0
        module.register_forward_pre_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
    return calls


def test_activation_checkpointing_reaches_every_stack_and_changes_no_weight(processor, tmp_path) -> None:
    plain, frugal = tiny_model(), tiny_model()
    plain_calls, frugal_calls = count_calls(plain), count_calls(frugal)
    settings = with_loop(total_steps=2)
    train(plain, processor, messages_of, settings, tmp_path / "plain")
    train(
        frugal, processor, messages_of, dataclasses.replace(settings, gradient_checkpointing=True), tmp_path / "frugal"
    )
    assert all(count > 0 for count in plain_calls.values())
    assert frugal_calls == {name: 2 * count for name, count in plain_calls.items()}
    assert_same_weights(frugal, plain, rtol=1e-5, atol=1e-6)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in frugal.modules())


def test_a_run_leaves_nothing_of_the_trainer_in_the_model(processor, tmp_path) -> None:
    model = tiny_model()
    before = model.config.to_dict()
    train(model, processor, messages_of, with_loop(time_budget_minutes=1e-9), tmp_path)
    assert model.config.to_dict() == before | {"image_loss_weight": 2.0, "text_loss_weight": 1.0}


def test_losses_that_are_not_finite_are_skipped_and_then_given_up_on(processor, tmp_path) -> None:
    model, before = tiny_model(), tiny_model()
    with torch.no_grad():
        model.generator.head.bias.fill_(float("nan"))
    settings = with_loop(total_steps=10, max_bad_steps=3)
    with pytest.raises(FloatingPointError, match="4 losses in a row"):
        train(model, processor, messages_of, settings, tmp_path)
    assert_same_weights(model.language_model, before.language_model)
    assert len(read_log(tmp_path)) == 3


def test_tensorboard_gets_the_same_numbers_when_asked(processor, tmp_path) -> None:
    settings = with_loop(total_steps=1, tensorboard=True)
    train(tiny_model(), processor, messages_of, settings, tmp_path)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/text_loss" in events.read_bytes() and b"train/bit_loss_2" in events.read_bytes()


def test_samples_are_drawn_from_the_averaged_weights_on_the_way_and_at_the_end(processor, tmp_path) -> None:
    seen = {}

    def on_sample(trained: nn.Module, step: int) -> None:
        assert not trained.training
        seen[step] = trained.lm_head.weight.detach().clone()

    model = tiny_model()
    finished = train(model, processor, messages_of, with_loop(sample_every=2), tmp_path, on_sample)
    assert list(seen) == [2, 4]
    assert finished.ema is not None
    (name,) = {name for name, value in model.named_parameters() if value is model.lm_head.weight}
    assert torch.equal(seen[4], finished.ema.values[name])
    assert not torch.equal(seen[4], model.lm_head.weight) and not torch.equal(seen[4], seen[2])


def test_a_gpu_that_is_not_there_is_refused_with_what_to_use(processor, tmp_path) -> None:
    settings = with_loop(device="cuda:7")
    with pytest.raises(ValueError, match="not available here; use --device auto or cpu"):
        train(tiny_model(), processor, messages_of, settings, tmp_path)
