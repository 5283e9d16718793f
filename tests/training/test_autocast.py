"""Trainings compute in bfloat16 where that is quicker, in float32 elsewhere, and write down which it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from training.autocast import settled_autocast
from training.loop import LoopSettings, run
from training.preferences.feedback import StepSettings
from vargpt import cpu

CPU = torch.device("cpu")


@pytest.fixture(params=[0.02, 2.0], ids=["slow", "quick"])
def chosen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What "auto" must come to on a CPU that is slow or quick in bfloat16."""
    monkeypatch.setattr(cpu, "gain_over_float32", lambda dtype: request.param)
    return "bf16" if request.param > 1 else "none"


def test_auto_is_what_is_quicker_and_anything_else_is_obeyed(chosen: str) -> None:
    assert settled_autocast("auto", CPU) == settled_autocast("auto", CPU, nn.Linear(2, 2)) == chosen
    assert settled_autocast("bf16", CPU) == "bf16" and settled_autocast("none", CPU) == "none"


def test_weights_in_bfloat16_are_trained_in_it_however_slow_it_is(chosen: str) -> None:
    assert settled_autocast("auto", CPU, nn.Linear(2, 2).bfloat16()) == "bf16"


def test_a_loop_computes_as_chosen_and_says_so_in_the_first_line_of_each_call(chosen: str, tmp_path: Path) -> None:
    seen = set()

    def compute_loss(model: nn.Module, batch: torch.Tensor, step: int) -> tuple[torch.Tensor, dict]:
        out = model(batch)
        seen.add(out.dtype)
        return out.float().square().mean(), {}

    for steps in (2, 3):
        loop = LoopSettings(total_steps=steps, learning_rate=0.1, device="cpu")
        run(loop, nn.Linear(2, 1), compute_loss, lambda start: iter([torch.ones(4, 2)] * 3), tmp_path)
    assert seen == {torch.bfloat16 if chosen == "bf16" else torch.float32}
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("autocast") for line in lines] == [chosen, None, chosen]


def test_trl_is_told_what_was_chosen(chosen: str, tmp_path: Path) -> None:
    settings = StepSettings(total_steps=1, learning_rate=0.1, batch_size=1, device="cpu")
    assert settings.training_arguments(tmp_path)["bf16"] == (chosen == "bf16")


@pytest.mark.parametrize("make", [LoopSettings, lambda **fields: StepSettings(**fields, batch_size=1)])
def test_other_arithmetic_is_refused(make) -> None:
    with pytest.raises(ValueError, match="autocast is 'auto', 'bf16' or 'none', got 'fp8'"):
        make(total_steps=1, learning_rate=0.1, autocast="fp8")
