"""The nano recipe's stages, without their hours."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from training.recipes import nano as recipe
from training.recipes.nano import Budget, nano_language, nano_sft, nano_sight, nano_understanding, steps_done
from training.recipes.nano_tokenizer import nano_tokenizer
from training.supervised import export
from training.tokenizer.trainer import TokenizerNetwork
from vargpt.assistant.special_tokens import SpecialTokens
from vargpt.assistant.vision import FeatureNorm, PagePositions
from vargpt.config import BsqTokenizerConfig
from vargpt.presets import nano
from vargpt.published.families import load
from vargpt.testing import tiny_tokenizer


def test_the_recipe_trains_the_tokenizer_that_the_preset_has() -> None:
    preset: BsqTokenizerConfig = nano(SpecialTokens.of(tiny_tokenizer()), 2048).image_tokenizer_config
    recipe = nano_tokenizer()
    network: TokenizerNetwork = recipe.network
    for name in ("num_bits", "base_channels", "num_res_blocks", "patch_size"):
        assert getattr(preset, name) == getattr(network, name), name
    assert tuple(preset.channel_multipliers) == network.channel_multipliers
    assert nano(SpecialTokens.of(tiny_tokenizer()), 2048).layout().scales == recipe.scales


def test_a_time_budget_is_shared_by_the_stages_and_leaves_their_schedules_alone() -> None:
    budget = Budget(30)
    for settings in (nano_sft(), nano_language(), nano_sight(), nano_understanding()):
        loop = budget.of(settings.loop)
        assert loop.total_steps == settings.loop.total_steps
        assert 29 < loop.time_budget_minutes <= 30
    assert Budget(None).of(nano_sft().loop).time_budget_minutes is None
    assert Budget(0).of(nano_sft().loop).time_budget_minutes == 0


def test_how_far_a_run_came_is_read_from_its_log(tmp_path) -> None:
    assert steps_done(tmp_path) == 0
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)))
    assert steps_done(tmp_path) == 3


def shortened(settings, **batches):
    """The same settings for two steps, with small pools."""
    loop = dataclasses.replace(settings.loop, total_steps=2, warmup_steps=1, sample_every=0, device="cpu")
    if batches:
        settings = dataclasses.replace(settings, batches=dataclasses.replace(settings.batches, **batches))
    return dataclasses.replace(settings, loop=loop)


@pytest.mark.slow
def test_all_stages_run_from_nothing_and_what_they_leave_can_be_loaded(tmp_path, monkeypatch) -> None:
    small = {"pool_size": 8, "batches_per_pool": 2, "num_workers": 0}
    language, seeing = shortened(nano_language(), **small), shortened(nano_understanding(), texts_per_pool=2, **small)
    tokenizer = dataclasses.replace(shortened(nano_tokenizer()), batch_size=4)
    eyes = dataclasses.replace(shortened(nano_sight()), batch_size=4, num_workers=0)
    monkeypatch.setattr(recipe, "NUM_TEXTS", 3000)
    monkeypatch.setattr(recipe, "nano_language", lambda: language)
    monkeypatch.setattr(recipe, "nano_understanding", lambda: seeing)
    monkeypatch.setattr(recipe, "nano_sight", lambda: eyes)
    monkeypatch.setattr(recipe, "nano_tokenizer", lambda: tokenizer)
    settings = dataclasses.replace(shortened(nano_sft(), texts_per_pool=2, **small), compiled=False)
    ended = recipe.run_nano(tmp_path, settings)
    assert ended is not None
    model, processor, finished = ended
    assert finished.done
    for stage in ("image_tokenizer", "language", "sight", "understanding", "."):
        assert steps_done(tmp_path / stage) == 2, stage
    export(model, processor, finished.ema, tmp_path / "model")
    loaded, _ = load(tmp_path / "model", device="cpu")
    assert isinstance(loaded.vision_norm, FeatureNorm) and isinstance(loaded.vision_positions, PagePositions)
    assert all(torch.isfinite(parameter).all() for parameter in loaded.parameters())
    assert recipe.run_nano(tmp_path, settings)[2].step == 2, "a finished run is only read"
