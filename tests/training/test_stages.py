"""Stages as data: what learns, what is read, what one GPU needs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from data_recipes.public.catalogue import DATA_SETS
from data_recipes.storybook.samples import MAKERS
from training.recipes import full_size as recipe
from training.recipes.nano import LANGUAGE_MIXTURE, OTHER_MIXTURE, SEEING_MIXTURE
from training.stages import Stage, bytes_per_gpu, learn_only, parameters_by_organ, plan, table
from vargpt.testing import tiny_model

STAGE = Stage(
    name="drawing", loss="sft", learns=("generator", "projector_in", "projector_out"), data={"pictures": 1.0},
    size=(32, 32), steps=10, batch_size=4, learning_rate=1e-4, text_tokens=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def plans():
    return {planned.stage.name[:2].strip(): planned for planned in recipe.dry_run(8)}


def test_exactly_the_organs_of_a_stage_learn() -> None:
    model = tiny_model()
    learn_only(model, STAGE.learns)
    counts = parameters_by_organ(model)
    assert {organ for organ, (learning, _) in counts.items() if learning} == set(STAGE.learns)
    assert all(learning in (0, total) for learning, total in counts.values())
    assert sum(total for _, total in counts.values()) == sum(p.numel() for p in model.parameters())
    learn_only(model, ("vision",))
    assert {organ for organ, (learning, _) in parameters_by_organ(model).items() if learning} == {"vision"}


def test_an_organ_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="no decoder.*generator"):
        learn_only(tiny_model(), ("decoder",))


def test_tokens_are_text_and_slots_and_a_preference_reads_two_pictures() -> None:
    config = tiny_model().config
    slots = config.layout((32, 32)).num_tokens
    assert STAGE.tokens_per_conversation(config) == 20 + slots
    assert STAGE.tokens(config) == 10 * 4 * (20 + slots)
    assert dataclasses.replace(STAGE, loss="dpo").tokens_per_conversation(config) == 2 * (20 + slots)
    assert dataclasses.replace(STAGE, size=None).tokens_per_conversation(config) == 20


def test_more_gpus_need_less_each_and_a_reference_needs_more() -> None:
    model = tiny_model()
    learn_only(model, STAGE.learns)
    needs = [bytes_per_gpu(model, model.config, STAGE, gpus, 1) for gpus in (1, 2, 8)]
    assert needs == sorted(needs, reverse=True) and needs[0] > needs[2]
    assert bytes_per_gpu(model, model.config, dataclasses.replace(STAGE, loss="dpo"), 1, 1) > needs[0]
    assert bytes_per_gpu(model, model.config, STAGE, 1, 4) > needs[0]


def test_weights_that_learn_take_sixteen_bytes_and_others_two() -> None:
    model = tiny_model()
    config, text = model.config, dataclasses.replace(STAGE, size=None, text_tokens=0)
    learn_only(model, STAGE.learns)
    learning = sum(part for part, _ in parameters_by_organ(model).values())
    one, two = (bytes_per_gpu(model, config, text, gpus, 1) for gpus in (1, 2))
    resting = sum(p.numel() for p in model.parameters()) - learning
    assert 2 * (one - two) == pytest.approx(16 * learning + 2 * resting, abs=4)


def test_the_published_program_trains_what_the_paper_says(plans) -> None:
    learning = {name: {o for o, (part, _) in planned.organs.items() if part} for name, planned in plans.items()}
    assert learning["1"] == {"projector_in", "projector_out"}
    assert learning["2"] == {"vision", "language_model", "lm_head"}
    for name in ("3a", "3b", "3c", "3d"):
        assert learning[name] == {"generator", "projector_in", "projector_out", "start_state"}
    assert "image_tokenizer" not in learning["3e"] and len(learning["3e"]) == 7
    assert plans["3a"].stage.steps == 40_000 and plans["3c"].stage.steps == 30_000
    assert plans["3a"].stage.learning_rate == plans["3c"].stage.learning_rate == 5e-5
    assert 2.0e9 < plans["3a"].learning < 2.4e9
    assert plans["3e"].total == plans["1"].total > 10.6e9


def test_higher_resolution_reads_more_and_editing_needs_most_memory(plans) -> None:
    assert plans["3c"].tokens / 30_000 > 4 * plans["3a"].tokens / 40_000
    assert max(plans.values(), key=lambda planned: planned.bytes_per_gpu) is plans["3e"]
    assert plans["3a"].bytes_per_gpu < 24 * 2**30 < 80 * 2**30


def test_the_dry_run_prints_a_row_for_every_stage(capsys) -> None:
    recipe.main(["--gpus", "16", "--rows", "2"])
    printed = capsys.readouterr().out
    assert printed.count("\n|") == 1 + len(recipe.full_size()) and "16 GPUs" in printed
    with pytest.raises(SystemExit):
        recipe.main(["--gpus", "0"])


def test_fields_that_no_paper_states_are_named_and_exist() -> None:
    names = {field.name for field in dataclasses.fields(Stage)}
    for stage in recipe.full_size():
        assert set(stage.ours) <= names


def test_the_published_program_reads_data_sets_that_there_are() -> None:
    assert {name for stage in recipe.full_size() for name in stage.data} <= set(DATA_SETS)


def test_nano_learns_from_kinds_that_the_storybook_has() -> None:
    for mixture in (LANGUAGE_MIXTURE, SEEING_MIXTURE, OTHER_MIXTURE):
        assert set(mixture) <= set(MAKERS)


def test_a_plan_and_its_table_agree() -> None:
    model = tiny_model()
    planned = plan(model, model.config, STAGE, 2)
    row = table([planned], 2).splitlines()[-1]
    assert "| drawing | sft | generator, projector_in, projector_out |" in row.replace(
        "projector_in, projector_out, generator", "generator, projector_in, projector_out"
    )
    assert torch.tensor(planned.learning) > 0
