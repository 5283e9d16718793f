"""Two processes learn what one learns: whole weights in each (DDP) or sharded ones (FSDP2), on a CPU through gloo.

All runs of two processes are made once, in one start of them; what one process does is done here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.training.joint_runs import RESULT, make_run, start
from training.checkpoints import checkpoint_of

NAMES = ("plain", "accumulated", "sharded", "sharded_muon", "sharded_bf16")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Runs of one process and of two."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    start(together, (*NAMES, "plain:2", "sharded:2"), processes=2)
    for name in ("plain", "muon", "plain_bf16"):
        make_run(alone, name)
    return alone, together


def log_of(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def assert_same_curve(run_dir: Path, expected: Path, rel: float) -> None:
    found, wanted = log_of(run_dir), log_of(expected)
    assert [line["step"] for line in found] == [line["step"] for line in wanted] == [1, 2, 3, 4]
    for line, one in zip(found, wanted, strict=True):
        assert line.keys() - {"autocast"} == one.keys() - {"autocast"}  # in the first line of every call
        for name in (name for name in one if "loss" in name or name == "grad_norm"):
            assert line[name] == pytest.approx(one[name], rel=rel), (line["step"], name)
        assert all(line[name] == one[name] for name in ("pictures", "tokens", "lr"))
    assert wanted[3]["loss"] < 0.95 * wanted[0]["loss"], "a curve that is flat proves nothing"


def assert_same_result(run_dir: Path, expected: Path, atol: float) -> None:
    found, wanted = (torch.load(folder / RESULT) for folder in (run_dir, expected))
    for kind in ("weights", "ema"):
        assert found[kind].keys() == wanted[kind].keys()
        for name, value in wanted[kind].items():
            torch.testing.assert_close(found[kind][name], value, rtol=1e-3, atol=atol, msg=f"{kind} {name}")


@pytest.mark.parametrize("name", ["plain", "accumulated", "sharded"])
def test_two_processes_have_the_loss_curve_and_the_weights_of_one(folders, name: str) -> None:
    alone, together = folders
    assert_same_curve(together / name, alone / "plain", rel=1e-4)
    assert_same_result(together / name, alone / "plain", atol=2e-5)


def test_muon_on_sharded_matrices_moves_them_as_whole_ones(folders) -> None:
    alone, together = folders
    assert_same_curve(together / "sharded_muon", alone / "muon", rel=2e-3)


def test_sharded_layers_compute_in_bfloat16_over_float32_weights(folders) -> None:
    alone, together = folders
    assert_same_curve(together / "sharded_bf16", alone / "plain_bf16", rel=5e-2)
    weights = torch.load(together / "sharded_bf16" / RESULT)["weights"]
    assert {value.dtype for value in weights.values()} == {torch.float32}
    exact, rounded = log_of(alone / "plain")[0]["loss"], log_of(together / "sharded_bf16")[0]["loss"]
    assert rounded != exact


def test_sharded_checkpoints_are_written_by_both_processes(folders) -> None:
    _, together = folders
    checkpoint = checkpoint_of(together / "sharded")
    assert checkpoint is not None
    parts = [file.stat().st_size for file in sorted(checkpoint.glob("*.distcp"))]
    assert len(parts) == 2 and min(parts) > 0.2 * max(parts)


@pytest.mark.parametrize("name", ["plain", "sharded"])
def test_what_two_processes_saved_one_goes_on_with(folders, tmp_path, name: str) -> None:
    alone, together = folders
    shutil.copytree(together / f"{name}_begun", tmp_path / name)
    assert [line["step"] for line in log_of(tmp_path / name)] == [1, 2]
    make_run(tmp_path, name)
    assert_same_curve(tmp_path / name, alone / "plain", rel=1e-4)
    assert_same_result(tmp_path / name, alone / "plain", atol=2e-5)


def test_only_the_first_process_samples_and_it_sees_the_averaged_weights(folders) -> None:
    alone, together = folders
    wanted = json.loads((alone / "plain" / "sampled.json").read_text())
    for name in ("plain", "sharded"):
        ((step, total),) = json.loads((together / name / "sampled.json").read_text())
        assert step == 4 and total == pytest.approx(wanted[0][1], rel=1e-4)
