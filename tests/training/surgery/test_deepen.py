"""A deeper language model says at first what the shallower one said, can learn, and is loaded like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.surgery.deepen import deepen, main, places
from vargpt.assistant.model import VARGPT
from vargpt.loading.models import save
from vargpt.published.families import load
from vargpt.testing import tiny_model, tiny_processor


def logits(model: VARGPT) -> torch.Tensor:
    ids = torch.arange(10, 50).view(2, 20)
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def test_old_layers_stand_evenly_among_the_new_and_the_last_is_last() -> None:
    assert places(4, 6) == [0, 2, 3, 5]
    assert places(2, 7) == [2, 6]
    assert places(3, 4) == [0, 1, 3]


def test_the_deeper_model_gives_the_same_logits_to_the_bit() -> None:
    model = tiny_model().eval()
    layers = model.config.text_config.num_hidden_layers
    deeper = deepen(model, layers + 3)
    text = deeper.config.text_config
    assert (text.num_hidden_layers, len(text.layer_types)) == (layers + 3, layers + 3)
    assert text.num_key_value_heads == text.num_attention_heads
    assert torch.equal(logits(deeper), logits(model))
    assert model.config.text_config.num_hidden_layers == layers
    assert not deeper.training


def test_new_layers_and_repeated_heads_learn() -> None:
    torch.manual_seed(0)
    model = tiny_model()
    deeper = deepen(model, model.config.text_config.num_hidden_layers + 1).train()
    optimizer = torch.optim.SGD(deeper.language_model.parameters(), lr=0.1)
    for _ in range(3):  # the first step moves the zero projections, only then do gradients reach what is before them
        optimizer.zero_grad()
        logits(deeper).square().mean().backward()
        optimizer.step()
    new = deeper.language_model.layers[0]
    assert new.self_attn.o_proj.weight.abs().max() > 0 and new.mlp.gate_proj.weight.grad.abs().max() > 0
    size = deeper.config.text_config.hidden_size // deeper.config.text_config.num_attention_heads
    keys = deeper.language_model.layers[-1].self_attn.k_proj.weight
    assert not torch.equal(keys[:size], keys[size : 2 * size])


def test_the_command_writes_a_model_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tiny_model(), tiny_processor(), tmp_path / "model")
    layers = tiny_model().config.text_config.num_hidden_layers
    main([str(tmp_path / "model"), "--layers", str(layers + 2), "--out", str(tmp_path / "deeper")])
    deeper, _ = load(tmp_path / "deeper", device="cpu", dtype="float32")
    before, _ = load(tmp_path / "model", device="cpu", dtype="float32")
    assert torch.equal(logits(deeper.eval()), logits(before.eval()))
    with pytest.raises(SystemExit):
        main([str(tmp_path / "model"), "--layers", str(layers), "--out", str(tmp_path / "no")])
    assert "ask for more" in capsys.readouterr().err and not (tmp_path / "no").exists()
