"""Estimates: exact where they can be, in the right order where they cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.loading.test_quantization import wide_model
from vargpt.commands.doctor import model_findings
from vargpt.config import VargptConfig
from vargpt.loading.memory_estimate import (
    CARDS,
    MODES,
    RESERVED,
    best_mode,
    needed_bytes,
    parameter_counts,
    weight_bytes,
    working_bytes,
)
from vargpt.loading.quantization import quantize
from vargpt.published.vargpt_v1_1 import config_from_published
from vargpt.testing import tiny_config, tiny_model

MODE = {mode.name: mode for mode in MODES}
GIB = 2**30
# of VARGPT-v1.1's config.json, what sizes follow from
PUBLISHED = {
    "model_type": "vargpt_qwen2_vl", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "tie_word_embeddings": False,
    "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "hidden_size": 3584,
                      "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def full() -> tuple[VargptConfig, dict[str, int]]:
    config = config_from_published(PUBLISHED)
    return config, parameter_counts(config)


def held(model: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def test_weights_are_counted_exactly() -> None:
    model = tiny_model()
    counts = parameter_counts(tiny_config())
    assert counts == {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert weight_bytes(counts, MODE["float32"]) == held(model)
    assert weight_bytes(counts, MODE["bfloat16"]) == held(model.bfloat16())


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantised_weights_take_what_was_foretold(kind) -> None:
    pytest.importorskip("bitsandbytes")
    model = wide_model().bfloat16()
    foretold = weight_bytes({name: p.numel() for name, p in model.named_parameters()}, MODE[kind])
    before = held(model)
    real = held(quantize(model, kind))
    # norms and biases inside the layers keep their precision, scales of NF4 lie outside of the parameters
    assert foretold < before and abs(foretold - real) < 0.1 * before


def test_the_published_model_has_ten_billion_parameters(full) -> None:
    config, counts = full
    assert sum(counts.values()) == 10_637_923_555, "all but the table of starts, of which one row is kept"
    sizes = [weight_bytes(counts, mode) for mode in MODES]
    assert sizes == sorted(sizes, reverse=True), "each mode is smaller than the one before"
    assert 39.5 < sizes[0] / GIB < 39.8


def test_every_card_gets_the_best_mode_that_fits(full) -> None:
    config, counts = full
    modes = [best_mode(config, counts, card * GIB - RESERVED, 1024) for card in CARDS]
    assert [mode and mode.name for mode in modes] == ["offload", "nf4", "bfloat16", "bfloat16", "float32"]
    for card, mode in zip(CARDS, modes, strict=True):
        assert mode is not None and needed_bytes(config, counts, mode, 1024) <= card * GIB
    assert best_mode(config, counts, GIB, 1024) is None


def test_longer_conversations_need_more(full) -> None:
    config, _ = full
    assert working_bytes(config, 2, 8192) > working_bytes(config, 2, 4096) > 0


def test_the_doctor_advises_from_a_config_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    index = {"metadata": {"total_size": 21_900_000_000}, "weight_map": {"lm_head.weight": "model-1-of-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    findings = {finding.name: finding for finding in model_findings(tmp_path)}
    assert "10,637.9 M" in findings["model"].value and findings["model"].ok
    assert "--quantize" in findings["graphics card, 16 GB"].value
