"""The chain of all stages at the size of a test: it goes through, goes on where it was stopped, and tells the truth."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from training.recipes import nano_chain as recipe
from training.recipes.nano_chain import (
    FIRST,
    START,
    Chain,
    dpo_settings,
    folder_of,
    nano_chain,
    run_chain,
    sft_settings,
    short_chain,
)
from training.recipes.nano_dpo import nano_dpo
from training.stage_report import Row, StageLog, changed, storybook_scores, table
from vargpt.chat.engine import ChatEngine
from vargpt.evaluation.intervals import Score, mean_score
from vargpt.loading.models import save
from vargpt.published.families import load
from vargpt.testing import tiny_model, tiny_processor

QUICK = {"compiled": False, "num_workers": 0, "device": "cpu", "prompts": 2, "pictures": 2, "validation": 2}


def redness(prompts, images, **_) -> list[float]:
    """Tells any two pictures apart, which the judge does not with those of an untrained model."""
    pixels = [image.resize((1, 1)).getpixel((0, 0)) for image in images]
    return [red - (green + blue) / 2 for red, green, blue in pixels]


def tiny_chain() -> Chain:
    """From 32 to 64 px: two steps a stage, and more where every organ shall meet what it learns from."""
    chain = dataclasses.replace(nano_chain(), **QUICK)
    stages = {}
    for name in ("sft_64", "dpo_64", "sft_128", "dpo_128", "edit"):
        stage = getattr(chain, name)
        side = stage.size[0] // 2
        steps = 2 if name.startswith("dpo") else 6
        stages[name] = dataclasses.replace(stage, steps=steps, batch_size=2, size=(side, side), learning_rate=1e-3)
    return dataclasses.replace(chain, **stages)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    save(tiny_model(), tiny_processor(), folder / "tiny", dtype=torch.float32)
    options = {"start_from": folder / "tiny", "n": 0, "reward": redness}
    assert not run_chain(tiny_chain(), folder / "run", 0, **options), "without time nothing is trained"
    assert [row.name for row in StageLog(folder / "run").rows] == [START]
    assert run_chain(tiny_chain(), folder / "run", **options)
    return folder, options


def weights(folder, stage) -> dict[str, torch.Tensor]:
    return load(folder_of(folder / "run", stage.name) / "model", device="cpu", dtype="float32")[0].state_dict()


def test_every_stage_leaves_a_model_and_a_row(finished) -> None:
    folder, _ = finished
    chain, rows = tiny_chain(), StageLog(folder / "run").rows
    assert [row.name for row in rows] == [START, *(stage.name for stage in chain.stages[1:])]
    assert [row.size for row in rows] == [(32, 32), (32, 32), (64, 64), (64, 64), (64, 64)]
    assert all(0 < row.losses["text_loss"] < 20 and 0 < row.losses["image_loss"] < 5 for row in rows)
    assert "2 pairs from 2 prompts" in rows[1].note
    text = (folder / "run" / "stages.md").read_text()
    assert all(f"| {row.name} |" in text for row in rows) and "not comparable" in text
    model, processor = load(rows[-1].model, device="cpu")
    assert model.config.layout().num_tokens == 1 + 4 + 16 + 36 + 64 and processor.fixed_size == 64


def test_each_stage_moves_its_own_organs(finished) -> None:
    folder, _ = finished
    chain, start = tiny_chain(), tiny_model().state_dict()
    preferred, larger, edited = (weights(folder, stage) for stage in (chain.dpo_64, chain.sft_128, chain.edit))
    moved = {name.split(".")[0] for name in start if not torch.equal(start[name].bfloat16().float(), preferred[name])}
    assert moved == {"generator", "projector_in", "projector_out"}
    for one, other in ((preferred, larger), (larger, edited)):
        same = [
            name for name in one if one[name].shape == other[name].shape and not torch.equal(one[name], other[name])
        ]
        assert {"vision", "language_model", "generator", "projector_in"} <= {name.split(".")[0] for name in same}
        assert not any(name.startswith("image_tokenizer") for name in same)


def test_finished_stages_are_only_read(finished) -> None:
    folder, options = finished
    files = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*") if path.is_file()}
    assert run_chain(tiny_chain(), folder / "run", **options)
    assert files == {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*") if path.is_file()}


def test_a_run_is_not_gone_on_with_from_elsewhere(finished, capsys) -> None:
    folder, _ = finished
    with pytest.raises(ValueError, match="was begun from"):
        run_chain(tiny_chain(), folder / "run")
    for arguments, reason in (
        (["--run-dir", str(folder / "new"), "--start-from", str(folder / "nowhere")], "nowhere"),
        (["--run-dir", str(folder / "run")], "was begun from"),
        (["--run-dir", str(folder / "new"), "--sft-128.step", "3"], "--sft-128.steps"),
        (["--run-dir", str(folder / "new"), "--n", "-1"], "at least 0"),
    ):
        with pytest.raises(SystemExit):
            recipe.main(arguments)
        assert reason in capsys.readouterr().err


def test_stages_that_do_not_fit_say_why() -> None:
    chain, opened = tiny_chain(), (tiny_model(), tiny_processor())
    with pytest.raises(ValueError, match="same size or half of it"):
        recipe.fitted(opened, dataclasses.replace(chain.edit, size=(128, 128)))
    with pytest.raises(ValueError, match="has no generater"):
        recipe.learning_organs(opened[0], dataclasses.replace(chain.edit, learns=("generater",)))


def test_the_stages_are_those_of_the_recipes() -> None:
    chain = nano_chain()
    assert dpo_settings(chain.dpo_64, chain) == nano_dpo()
    settings = recipe.sft_settings(chain.sft_64, chain)
    ours, nanos = dataclasses.asdict(settings), dataclasses.asdict(recipe.nano_sft())
    changed_fields = {name for name in ours["batches"] if ours["batches"][name] != nanos["batches"][name]}
    assert ours["loop"] == nanos["loop"] and changed_fields <= {"pool_size", "texts_per_pool"}
    assert settings.batches.pool_size == pytest.approx(nanos["batches"]["pool_size"], abs=5)
    assert max(chain.edit.data, key=chain.edit.data.get) == "edit"
    assert recipe.Stream(chain.sft_128, 5)(3)[-1].images[0].image.size == (128, 128)


# -- the table ---------------------------------------------------------------------------------------------------------


def row(name: str, draw: Score, image_loss: float, size: int = 64) -> Row:
    losses = {"text_loss": 0.2, "image_loss": image_loss}
    return Row(name=name, steps=3, size=(size, size), model="m", model_hash=None, losses=losses, scores={"draw": draw})


def test_a_change_counts_only_outside_both_intervals() -> None:
    low, high = Score(0.2, 0.1, 0.3, 48), Score(0.6, 0.5, 0.7, 48)
    near = Score(0.25, 0.15, 0.35, 48)
    assert changed(row("a", low, 0.3), row("b", high, 0.2)).startswith("better: draw +40.0")
    assert changed(row("a", high, 0.3), row("b", low, 0.2)).startswith("worse: draw -40.0")
    assert changed(row("a", low, 0.3), row("b", near, 0.2)).startswith("not to be told from chance: draw +5.0")
    assert "-0.1000" in changed(row("a", low, 0.3), row("b", near, 0.2))
    assert "another size, and not comparable" in changed(row("a", low, 0.3), row("b", near, 0.2, 128))
    fewer = dataclasses.replace(row("b", near, 0.2), validation=4)
    assert "other conversations" in changed(row("a", low, 0.3), fewer) and "-0.1" not in changed(
        row("a", low, 0.3), fewer
    )


def test_rows_survive_a_file(tmp_path) -> None:
    log = StageLog(tmp_path)
    rows = [row("a", mean_score([0.0, 1.0]), 0.3), row("b", mean_score([1.0, 1.0]), 0.25, 128)]
    for one in rows:
        log.add(one)
    assert StageLog(tmp_path).rows == rows and StageLog(tmp_path).row("c") is None
    assert (tmp_path / "stages.md").read_text() == table(rows)
    assert "| b | 128x128 | 3 | 0.2000 | 0.2500 | 100.0 [100.0, 100.0] | — | — | — |" in table(rows)


# -- from nothing ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_shipped_model_gets_scores_with_intervals() -> None:
    scores = storybook_scores(ChatEngine.load(None, "cpu"), 1)
    assert set(scores) == {"draw", "ask", "edit", "route"} and scores["draw"].n == 6
    assert all(0 <= score.low <= score.value <= score.high <= 1 for score in scores.values())


@pytest.mark.slow
def test_the_chain_goes_from_nothing_to_an_editor_of_128_px(tmp_path) -> None:
    changes = ["--no-compiled"] + [f"--{name.replace('_', '-')}={QUICK[name]}" for name in QUICK if name != "compiled"]
    begin = "--beginnings"
    changes += [f"{begin}.num-texts=2000", f"{begin}.tokenizer.batch-size=2", f"{begin}.sight.batch-size=2"]
    changes += [f"{begin}.sight.num-workers=0", f"{begin}.tokenizer.num-workers=0"]
    for name in ("tokenizer", "language", "sight", "understanding"):
        changes.append(f"{begin}.{name}.loop.total-steps=2")
    for name in ("language", "understanding"):
        for change in ("pool-size=4", "batches-per-pool=2", "num-workers=0", "texts-per-pool=0"):
            changes.append(f"{begin}.{name}.batches.{change}")
    for name in ("sft-64", "dpo-64", "sft-128", "dpo-128", "edit"):
        changes += [f"--{name}.steps=2", f"--{name}.batch-size=2"]
    recipe.main(["--run-dir", str(tmp_path), "--n", "0", *changes])  # a model that has learnt nothing talks for minutes
    rows = [json.loads(line) for line in (tmp_path / "stages.jsonl").read_text().splitlines()]
    assert [one["name"] for one in rows] == [FIRST, *(stage.name for stage in nano_chain().stages)]
    assert rows[-1]["size"] == [128, 128]
    model, _ = load(rows[-1]["model"], device="cpu")
    assert model.config.default_size == "128x128" and model.config.layout().num_tokens == 530


def test_short_is_where_the_other_options_begin(monkeypatch, tmp_path) -> None:
    ran = []
    monkeypatch.setattr(recipe, "run_chain", lambda chain, *_: ran.append(chain) or False)
    recipe.main(["--run-dir", str(tmp_path), "--short", "--prompts", "3"])
    assert ran == [dataclasses.replace(short_chain(), prompts=3)]


def test_the_short_chain_has_the_same_stages_with_fewer_steps() -> None:
    long, short = nano_chain(), short_chain()
    for one, other in zip(long.stages, short.stages, strict=True):
        assert other.steps < one.steps
        assert dataclasses.replace(one, steps=0, warmup_ratio=0) == dataclasses.replace(other, steps=0, warmup_ratio=0)
    for name in ("tokenizer", "language", "sight", "understanding"):
        loops = [getattr(chain.beginnings, name).loop for chain in (long, short)]
        assert loops[0].warmup_steps < loops[1].total_steps < loops[0].total_steps
    assert sft_settings(short.sft_64, short).loop.warmup_steps == 35
