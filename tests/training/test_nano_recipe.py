"""The nano recipe's stages, without their hours."""

from __future__ import annotations

import json

from training.recipes.nano import Budget, nano_language, nano_sft, steps_done
from training.recipes.nano_tokenizer import nano_tokenizer
from training.tokenizer import TokenizerNetwork
from vargpt.config import VargptImageTokenizerConfig
from vargpt.presets import nano
from vargpt.processing import SpecialTokens
from vargpt.testing import tiny_tokenizer


def test_the_recipe_trains_the_tokenizer_that_the_preset_has() -> None:
    preset: VargptImageTokenizerConfig = nano(SpecialTokens.of(tiny_tokenizer()), 2048).image_tokenizer_config
    recipe = nano_tokenizer()
    network: TokenizerNetwork = recipe.network
    for name in ("num_bits", "base_channels", "num_res_blocks", "patch_size", "linear_path", "norm_groups"):
        assert getattr(preset, name) == getattr(network, name), name
    assert tuple(preset.channel_multipliers) == network.channel_multipliers
    assert nano(SpecialTokens.of(tiny_tokenizer()), 2048).layout().scales == recipe.scales


def test_a_time_budget_is_shared_by_the_stages_and_leaves_their_schedules_alone() -> None:
    budget = Budget(30)
    for settings in (nano_sft(), nano_language()):
        loop = budget.of(settings.loop)
        assert loop.total_steps == settings.loop.total_steps
        assert 29 < loop.time_budget_minutes <= 30
    assert Budget(None).of(nano_sft().loop).time_budget_minutes is None
    assert Budget(0).of(nano_sft().loop).time_budget_minutes == 0


def test_how_far_a_run_came_is_read_from_its_log(tmp_path) -> None:
    assert steps_done(tmp_path) == 0
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)))
    assert steps_done(tmp_path) == 3
