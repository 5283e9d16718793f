"""Built folders of public data sets are learnt from by one command, which goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.data_recipes.public.miniatures import built
from training.recipes.sft import main
from vargpt.loading.models import save
from vargpt.published.families import load
from vargpt.testing import tiny_model, tiny_processor

STEPS = 4
QUICK = [
    "--loop.total-steps", str(STEPS), "--loop.warmup-steps", "1", "--loop.learning-rate", "1e-3",
    "--loop.device", "cpu", "--loop.ema-decay", "0.5", "--batches.pool-size", "6", "--batches.batches-per-pool", "2",
    "--batches.num-workers", "0", "--batches.all-slots-every", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> list[str]:
    """Understanding, drawing and editing in miniature, and a model."""
    folder = tmp_path_factory.mktemp("public")
    save(tiny_model(), tiny_processor(), folder / "tiny", dtype=torch.float32)
    data = [str(built(name, folder / name).folder) for name in ("llava_instruct", "cc3m_cc12m", "stylebooth")]
    return ["--data", *data, "--model", str(folder / "tiny"), *QUICK]


def lines(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_on_built_folders_that_is_stopped_ends_as_one_that_is_not(options, tmp_path) -> None:
    main([*options, "--run-dir", str(tmp_path / "whole")])
    stopped = [*options, "--run-dir", str(tmp_path / "stopped")]
    main([*stopped, "--minutes", "1e-9"])
    assert [line["step"] for line in lines(tmp_path / "stopped")] == [1]
    main(stopped)
    whole, again = lines(tmp_path / "whole"), lines(tmp_path / "stopped")
    assert [line["loss"] for line in whole] == [line["loss"] for line in again] and len(whole) == STEPS
    one, other = (load(tmp_path / name / "model", device="cpu")[0].state_dict() for name in ("whole", "stopped"))
    before = load(options[options.index("--model") + 1], device="cpu")[0].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    moved = {name.split(".")[0] for name in one if not torch.equal(one[name], before[name].bfloat16().float())}
    assert {"vision", "language_model", "generator"} <= moved and "image_tokenizer" not in moved
    assert any("image_loss" in line for line in whole) and all(line["text_loss"] > 0 for line in whole)


def test_only_the_modules_that_are_named_learn(options, tmp_path) -> None:
    main([*options, "--run-dir", str(tmp_path), "--learns", "generator", "--loop.total-steps", "1"])
    after = load(tmp_path / "model", device="cpu")[0].state_dict()
    before = load(options[options.index("--model") + 1], device="cpu")[0].state_dict()
    assert {name.split(".")[0] for name in after if not torch.equal(after[name], before[name].bfloat16().float())} == {
        "generator"
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--data", "nowhere"], "nowhere has no manifest.json"),
        (["--learns", "generater"], "the model has no generater"),
        (["--loop.total-stps", "3"], "--loop.total-steps"),
        (["--loop.optimizer", "sgd"], "'muon'"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(options, changed, said, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main([*options, "--run-dir", str(tmp_path / "no"), *changed])
    assert said in capsys.readouterr().err and not (tmp_path / "no").exists()
