"""Muon inside the layers, AdamW around them, one state."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from training.loop import LoopSettings, make_optimizer, run
from training.optimizers import inner_matrices
from vargpt.testing import tiny_model

LOOP = LoopSettings(total_steps=8, learning_rate=1e-2, warmup_steps=1, autocast="none", device="cpu", optimizer="muon")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 16)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = x + layer(x).relu()
        return self.head(x)


def batches(start_step: int):
    step = start_step
    while True:
        yield torch.randn(32, 4, generator=torch.Generator().manual_seed(step))
        step += 1


def compute_loss(model, batch, step):
    return (model(batch) - batch.prod(1, keepdim=True)).square().mean(), {}


def loss_of(model: Net) -> float:
    with torch.no_grad():
        return float(compute_loss(model, next(batches(999)), 0)[0])


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def test_muon_takes_the_matrices_inside_the_layers_and_nothing_else() -> None:
    model = tiny_model()
    inner = inner_matrices(model)
    names = {name for name, parameter in model.named_parameters() if id(parameter) in inner}
    assert "language_model.layers.0.mlp.gate_proj.weight" in names
    assert "generator.blocks.1.attention.qkv.weight" in names
    assert "vision.blocks.0.attn.qkv.weight" in names
    assert not {name for name in names if "embed" in name or "head" in name or "modulation" in name or "bias" in name}


def test_every_parameter_is_in_one_group_exactly() -> None:
    model = net()
    optimizer = make_optimizer(model, LOOP)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_both_learn(tmp_path, name) -> None:
    model = net()
    settings = dataclasses.replace(LOOP, optimizer=name, total_steps=150)
    first = loss_of(model)
    run(settings, model, compute_loss, batches, tmp_path)
    assert loss_of(model) < 0.7 * first


def test_a_stopped_run_goes_on_exactly(tmp_path) -> None:
    settings = dataclasses.replace(LOOP, schedule="constant")
    whole, halves = net(), net()
    run(settings, whole, compute_loss, batches, tmp_path / "whole")
    run(dataclasses.replace(settings, total_steps=3), halves, compute_loss, batches, tmp_path / "halves")
    run(settings, halves, compute_loss, batches, tmp_path / "halves")
    for one, other in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("before", "now"), [("adamw", "muon"), ("muon", "adamw")])
def test_a_state_of_the_other_optimiser_is_refused(tmp_path, before, now) -> None:
    run(dataclasses.replace(LOOP, optimizer=before, total_steps=2), net(), compute_loss, batches, tmp_path)
    with pytest.raises(ValueError, match="same `optimizer`"):
        run(dataclasses.replace(LOOP, optimizer=now), net(), compute_loss, batches, tmp_path)


def test_an_unknown_optimiser_is_refused() -> None:
    with pytest.raises(ValueError, match="adamw"):
        dataclasses.replace(LOOP, optimizer="sgd")
