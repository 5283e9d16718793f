"""The training loop and the tokenizer's training: exact resume, learning, losses, settings."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from PIL import Image, ImageDraw
from torch import Tensor, nn

from training.checkpoints import TENSORS, checkpoint_of, stored_tensors
from training.loop import LoopSettings, make_optimizer, run
from training.recipes import nano_tokenizer
from training.tokenizer.bsq_losses import BsqWeights
from training.tokenizer.reconstruction import ReconstructionLoss, ReconstructionWeights, detail_weights, edge_loss, psnr
from training.tokenizer.trainer import (
    TokenizerNetwork,
    TokenizerSettings,
    TokenizerTrainer,
    load_tokenizer,
    to_pixel_values,
    train,
)


def page(sample_id: str, height: int, width: int) -> Image.Image:
    """A square whose place and colours follow from the number of the sample."""
    index = int(sample_id.rpartition("/")[2]) % 4
    image = Image.new("RGB", (width, height), (40 + 50 * index, 200, 120))
    ImageDraw.Draw(image).rectangle((index, index, index + 7, index + 7), fill=(230, 30 + 60 * index, 20))
    return image


def tiny_settings(**loop: object) -> TokenizerSettings:
    return TokenizerSettings(
        height=16,
        width=16,
        scales=((1, 1), (2, 2), (4, 4)),
        network=TokenizerNetwork(num_bits=8, base_channels=8, channel_multipliers=(1, 2, 2)),
        weights=ReconstructionWeights(),
        batch_size=4,
        num_workers=0,
        loop=LoopSettings(**{"total_steps": 6, "learning_rate": 5e-3, "warmup_steps": 2, "device": "cpu"} | loop),
    )


def weights_in(run_dir: Path) -> dict[str, Tensor]:
    checkpoint = checkpoint_of(run_dir)
    assert checkpoint is not None
    stored = {name: torch.empty(about.size) for name, about in stored_tensors(checkpoint).items()}
    dcp.load({TENSORS: stored}, checkpoint_id=checkpoint, no_dist=True)
    return stored


def test_a_run_in_two_pieces_ends_with_the_weights_of_a_run_in_one(tmp_path: Path) -> None:
    settings = tiny_settings()
    assert train(settings, tmp_path / "whole", page).done

    out_of_time = dataclasses.replace(settings.loop, time_budget_minutes=0.0)
    first = train(dataclasses.replace(settings, loop=out_of_time), tmp_path / "pieces", page)
    assert first.step == 0 and not first.done
    half = run_first_steps(settings, tmp_path / "pieces", 3)
    assert half == 3
    assert train(settings, tmp_path / "pieces", page).done
    whole, pieces = weights_in(tmp_path / "whole"), weights_in(tmp_path / "pieces")
    assert whole.keys() == pieces.keys()
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, atol=0, rtol=0, msg=name)
    steps = [json.loads(line)["step"] for line in (tmp_path / "pieces" / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5, 6]


def run_first_steps(settings: TokenizerSettings, run_dir: Path, steps: int) -> int:
    """Runs until the signal that arrives while page number `steps` of the last batch is drawn."""

    def page_then_signal(sample_id: str, height: int, width: int) -> Image.Image:
        if sample_id == f"train/0/{steps * settings.batch_size - 1}":
            os.kill(os.getpid(), signal.SIGTERM)
        return page(sample_id, height, width)

    return train(settings, run_dir, page_then_signal).step


def test_the_tokenizer_overfits_four_pictures(tmp_path: Path) -> None:
    settings = tiny_settings(total_steps=150, warmup_steps=10, ema_decay=0.9)
    train(dataclasses.replace(settings, prefix_rate=0.0), tmp_path, page)
    last = json.loads((tmp_path / "evaluation.jsonl").read_text().splitlines()[-1])
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert last["psnr"] > first["psnr"] + 8 and last["psnr"] > 18
    assert list((tmp_path / "samples").glob("*.png"))


def test_an_exported_tokenizer_loads_with_its_configuration_and_the_averaged_weights(tmp_path: Path) -> None:
    finished = train(tiny_settings(), tmp_path, page)
    tokenizer = load_tokenizer(tmp_path / "tokenizer.safetensors")
    assert tokenizer.code_dim == 8 and tokenizer.downsample_factor == 4 and not tokenizer.training
    for name, value in finished.ema.values.items():
        torch.testing.assert_close(tokenizer.state_dict()[name.removeprefix("tokenizer.")], value, atol=0, rtol=0)


def test_a_loss_that_is_not_finite_is_skipped_and_too_many_end_the_run(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()

    def batches(start: int) -> Iterator[Tensor]:
        return iter([torch.ones(1, 2)] * 50)

    def not_finite(model: nn.Module, batch: Tensor, step: int) -> tuple[Tensor, dict]:
        return model(batch).sum() * float("nan"), {}

    settings = LoopSettings(total_steps=3, learning_rate=0.1, autocast="none", device="cpu", max_bad_steps=5)
    run(settings, model, not_finite, batches, tmp_path / "skipped")
    assert torch.equal(model.weight, before)
    with pytest.raises(FloatingPointError, match="in a row"):
        run(dataclasses.replace(settings, total_steps=20), model, not_finite, batches, tmp_path / "ended")


def test_norms_biases_and_embeddings_are_not_decayed() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(4, 3), "linear": nn.Linear(3, 2), "norm": nn.LayerNorm(3)})
    decayed, plain = make_optimizer(model, LoopSettings(total_steps=1, learning_rate=0.1)).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 3)] and decayed["weight_decay"] > 0
    assert plain["weight_decay"] == 0 and len(plain["params"]) == 4


def test_the_rate_warms_up_and_ends_at_its_final_share() -> None:
    loop = LoopSettings(total_steps=100, learning_rate=1.0, warmup_steps=10, final_lr_ratio=0.1)
    assert loop.learning_rate_at(0) == pytest.approx(0.1) and loop.learning_rate_at(10) == pytest.approx(1.0)
    assert loop.learning_rate_at(100) == pytest.approx(0.1)
    rates = [loop.learning_rate_at(step) for step in range(10, 100)]
    assert rates == sorted(rates, reverse=True)


def test_every_measure_is_zero_for_equal_pictures_and_grows_with_the_error() -> None:
    picture = torch.rand(2, 3, 16, 16) * 2 - 1
    loss = ReconstructionLoss(ReconstructionWeights(perceptual=1.0))
    assert loss(picture, picture, 0)[0] == 0
    small, large = (loss(picture + size * torch.randn_like(picture), picture, 0)[0] for size in (0.05, 0.5))
    assert 0 < small < large
    assert edge_loss(picture + 0.3, picture) < 1e-6  # a shift of brightness moves no edge
    torch.testing.assert_close(psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2)), torch.tensor([20.0]))


def test_busy_places_count_more_and_the_mean_weight_stays_one() -> None:
    picture = torch.zeros(1, 3, 16, 16)
    picture[..., 4:6, 4:6] = 1
    weights = detail_weights(picture, 3.0)
    assert weights[..., 4, 4] > weights[..., 12, 12]
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))


def test_the_adversary_trains_beside_the_tokenizer_without_pushing_its_own_weights_the_other_way() -> None:
    loss = ReconstructionLoss(ReconstructionWeights(adversarial=0.5, adversarial_start=2))
    output = (torch.rand(2, 3, 16, 16) * 2 - 1).requires_grad_()
    target = torch.rand(2, 3, 16, 16) * 2 - 1
    assert "fooling" not in loss(output, target, 1)[1]
    fooling, _, balance = loss.adversarial(output, target, output.sub(target).abs().mean())
    (balance * fooling).backward()
    assert output.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loss.discriminator.parameters())
    total, parts = loss(output, target, 2)
    total.backward()
    assert "judging" in parts and all(p.grad is not None for p in loss.discriminator.parameters())


def test_previews_are_trained_at_the_rate_that_was_asked_for() -> None:
    trainer = TokenizerTrainer(dataclasses.replace(tiny_settings(), prefix_rate=0.25))
    stops = torch.cat([trainer.draw_stops(200, step) for step in range(20)])
    assert set(stops.tolist()) == {1, 2, 3}
    assert abs((stops < 3).float().mean() - 0.25) < 0.03
    assert torch.equal(trainer.draw_stops(8, 5), trainer.draw_stops(8, 5))


def test_settings_change_by_name_and_an_unknown_name_is_answered_with_a_near_one(monkeypatch, tmp_path, capsys) -> None:
    ran: list[TokenizerSettings] = []
    monkeypatch.setattr(nano_tokenizer, "train", lambda settings, run_dir: ran.append(settings))
    changes = "--loop.learning-rate 1 --weights.edge 0.25 --scales 2 2 4 4 --minutes 3".split()
    nano_tokenizer.main(["--run-dir", str(tmp_path), *changes])
    (changed,) = ran
    assert changed.loop.learning_rate == 1.0 and changed.weights.edge == 0.25 and changed.scales == ((2, 2), (4, 4))
    assert changed.loop.time_budget_minutes == 3 and changed.batch_size == nano_tokenizer.nano_tokenizer().batch_size
    for wrong, said in (("--loop.learning-rat", "--loop.learning-rate"), ("--bach-size", "--batch-size")):
        with pytest.raises(SystemExit):
            nano_tokenizer.main(["--run-dir", str(tmp_path), wrong, "3"])
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        nano_tokenizer.main(["--run-dir", str(tmp_path), "--batch-size", "many"])
    assert "many" in capsys.readouterr().err and len(ran) == 1


def test_bytes_become_pixel_values_between_minus_one_and_one() -> None:
    torch.testing.assert_close(to_pixel_values(torch.tensor([0, 255], dtype=torch.uint8)), torch.tensor([-1.0, 1.0]))


def test_a_batch_in_parts_teaches_a_tokenizer_what_the_whole_one_does(tmp_path: Path) -> None:
    """But for what looks at all pictures that pass together: the entropy of the bits used, and weights of detail."""
    settings = tiny_settings(ema_decay=0.0, autocast="none")
    settings = dataclasses.replace(settings, bits=BsqWeights(entropy=0.0), weights=ReconstructionWeights(detail=0.0))
    parts = dataclasses.replace(settings, loop=dataclasses.replace(settings.loop, accumulation=4))
    train(settings, tmp_path / "whole", page)
    train(parts, tmp_path / "parts", page)
    lines = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("whole", "parts")]
    for one, other in zip(*lines, strict=True):
        for name in ("loss", "psnr", "grad_norm", "commitment"):
            assert other[name] == pytest.approx(one[name], rel=1e-3), (one["step"], name)
    assert lines[0][-1]["loss"] < 0.95 * lines[0][0]["loss"], "a curve that is flat proves nothing"
