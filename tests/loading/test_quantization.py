"""Smaller weights: only where they may be smaller, close to the original, and on the way in."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vargpt.loading.models import save
from vargpt.loading.quantization import check_quantization, quantize
from vargpt.published.families import load
from vargpt.sampling import seeded
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import ImageSampling, Message

WIDE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def wide_model(**changes):
    """NF4 works in blocks of 64 weights: layers need that width."""
    from vargpt.testing import tiny_config

    text = (
        tiny_config().text_config.to_dict()
        | WIDE
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
    )
    vision = tiny_config().vision_config.to_dict() | {"hidden_size": 64, "embed_dim": 64}
    return tiny_model(text_config=text, vision_config=vision, **changes)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    save(wide_model(), tiny_processor(), path)
    return path


def prompt_logits(model, processor):
    return model.extend(
        None, **processor.encode([[Message.of("user", "draw a fox next to a pine tree")]], model)
    ).logits


@pytest.mark.parametrize(("kind", "tolerance"), [("int8", 0.03), ("nf4", 0.3)])
def test_language_model_and_vit_shrink_and_answer_much_the_same(kind, tolerance, saved) -> None:
    pytest.importorskip("bitsandbytes")
    whole, processor = load(saved, device="cpu", dtype="bfloat16")
    small, _ = load(saved, device="cpu", dtype="bfloat16", quantization=kind)
    for name, layer in small.named_modules():
        if isinstance(layer, nn.Linear):
            inside = name.startswith(("language_model.layers.", "vision.blocks."))
            assert (type(layer) is not nn.Linear) == inside, name
    ours, theirs = (prompt_logits(model, processor).float() for model in (small, whole))
    assert float((ours - theirs).norm() / theirs.norm()) < tolerance
    assert not torch.equal(ours, theirs)
    layer = small.language_model.layers[0].mlp.up_proj.weight
    assert layer.numel() * layer.element_size() < 64 * 128 * 2 / (1.9 if kind == "int8" else 3.5)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown quantization 'int3'; use int8 or nf4"):
        check_quantization("int3")
    with pytest.raises(ValueError, match="choose one of quantization"):
        check_quantization("nf4", offload=True)


def test_a_missing_bitsandbytes_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match=r"pip install 'vargpt\[train\]'"):
        check_quantization("nf4")


@torch.no_grad()
def test_offloaded_layers_answer_and_draw_exactly_the_same(saved) -> None:
    whole, processor = load(saved, device="cpu")
    away, _ = load(saved, device="cpu", offload=True)
    assert all(p.is_meta for p in away.language_model.layers[0].parameters()), "kept elsewhere until they are needed"
    assert_close(prompt_logits(away, processor), prompt_logits(whole, processor), atol=0, rtol=0)
    drawn = []
    for model in (whole, away):
        state = model.extend(None, **processor.encode([[Message.of("user", "draw a fox")]], model))
        *_, last = model.draw(state, model.config.layout(), ImageSampling(temperature=0.0), seeded([0]))
        drawn.append(last.tokens.flat())
    assert torch.equal(*drawn)


def test_quantising_in_place_leaves_the_generator_alone() -> None:
    pytest.importorskip("bitsandbytes")
    model = wide_model()
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    quantize(model, "int8")
    assert all(torch.equal(value, before[name]) for name, value in model.generator.state_dict().items())
