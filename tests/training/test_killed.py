"""A run that is killed again and again, at any moment, ends with the weights of one that was left alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.training.joint_runs import RESULT, ROOT, make_run
from training.checkpoints import checkpoint_of, step_of


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(tmp_path: Path) -> None:
    make_run(tmp_path / "alone", "long")
    run_dir, rng, kills = tmp_path / "killed" / "long", random.Random(0), 0
    while not (run_dir / RESULT).exists():
        before = checkpoint_of(run_dir)
        reached = 0 if before is None else step_of(before)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.training.joint_runs", str(tmp_path / "killed"), "long"],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
        )
        if kills < 3:
            while process.poll() is None and is_at_most(run_dir, reached + 1):  # it learns, and saves after every step
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.5))
            process.kill()
            kills += 1
        process.wait()
    assert kills == 3
    one, other = (torch.load(folder / "long" / RESULT) for folder in (tmp_path / "alone", tmp_path / "killed"))
    for kind in ("weights", "ema"):
        for name, value in one[kind].items():
            assert torch.equal(value, other[kind][name]), f"{kind} {name}"


def is_at_most(run_dir: Path, step: int) -> bool:
    last = checkpoint_of(run_dir)
    return last is None or step_of(last) <= step
