"""The benchmark of fine-tuning: both loops run, and its operations are those of the layers."""

from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks.training_throughput import PER_BATCH, Throughput, measure, pool_flops, report, settings_for
from tests.training.test_supervised import messages_of
from training.recipes.nano import mostly_drawing
from vargpt.assistant.model import VARGPT
from vargpt.assistant.special_tokens import SpecialTokens
from vargpt.loading.checkpoint_files import empty_weights
from vargpt.presets import half_billion, nano
from vargpt.published.families import load
from vargpt.testing import tiny_model, tiny_processor, tiny_tokenizer


@pytest.fixture(scope="module")
def measured() -> Throughput:
    return measure(tiny_model(), tiny_processor(), messages_of, PER_BATCH, "none", "cpu", compiled=False, workers=0)


def test_both_loops_are_measured_against_one_peak(measured) -> None:
    ours, plain = measured.paces
    assert [pace.name for pace in measured.paces] == ["ours", "plain"]
    assert ours.flops_per_conversation < plain.flops_per_conversation, "slots that stay out of the language model"
    for pace in measured.paces:
        share = pace.conversations_per_s * pace.flops_per_conversation / measured.peak_flops_per_s
        assert pace.peak_share == pytest.approx(share) and 0 < pace.peak_share < 1
    assert f"{ours.conversations_per_s / plain.conversations_per_s:.2f} times as fast" in report(measured)
    assert json.loads(json.dumps(measured.as_json()))["about"]["conversations"] == 4 * PER_BATCH


def test_a_wider_head_costs_what_its_products_take() -> None:
    """Twice the vocabulary: the rest of the work stays, the head's three products (forward, two backward) double."""
    settings = settings_for(PER_BATCH, 1, "cpu", "none", compiled=False)
    settings = dataclasses.replace(settings, batches=dataclasses.replace(settings.batches, num_workers=0))
    narrow, wide = tiny_model(), tiny_model(text_config=tiny_model().config.text_config.to_dict() | {"vocab_size": 600})
    flops = [pool_flops(model, tiny_processor(), messages_of, settings) for model in (narrow, wide)]
    per_word = 3 * 2 * 32 * 300
    words = (flops[1] - flops[0]) / per_word
    assert words == int(words) and PER_BATCH <= words < 1000


def test_too_few_conversations_are_refused() -> None:
    with pytest.raises(ValueError, match="one batch"):
        measure(tiny_model(), tiny_processor(), messages_of, PER_BATCH - 1)


def test_the_model_for_gpus_has_half_a_billion_weights_and_more() -> None:
    with empty_weights():
        model = VARGPT(half_billion(nano(SpecialTokens.of(tiny_tokenizer()), 2048)))
    assert 0.5e9 < sum(parameter.numel() for parameter in model.parameters()) < 0.8e9


@pytest.mark.gpu
def test_the_model_for_gpus_is_measured_on_one() -> None:
    _, processor = load(device="cpu")
    model = VARGPT(half_billion(nano(processor.special, len(processor.tokenizer))))
    found = measure(model, processor, mostly_drawing, PER_BATCH, "bf16", "cuda", compiled=False, workers=0)
    assert 0 < found.paces[0].peak_share < 1
