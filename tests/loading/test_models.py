"""Model directories: saved in half the bytes, loaded strictly, and every mistake is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from vargpt.assistant.model import VARGPT
from vargpt.loading.devices import resolve_device, resolve_dtype
from vargpt.loading.models import model_hash, save
from vargpt.published.families import load, resolve_model
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import Message


@pytest.fixture(scope="module")
def model() -> VARGPT:
    return tiny_model()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save(model, tiny_processor(), path)
    return path


@pytest.fixture
def broken(saved, tmp_path) -> Path:
    """A copy to be tampered with."""
    return Path(shutil.copytree(saved, tmp_path / "broken"))


def test_weights_are_saved_in_bfloat16_and_loaded_as_float32_on_a_cpu(model, saved) -> None:
    stored = load_file(saved / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in stored, "tied to the embeddings"
    loaded, processor = load(saved, device="cpu")
    assert not loaded.training and {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert loaded.lm_head.weight is loaded.language_model.embed_tokens.weight
    original = dict(model.named_parameters())
    for name, value in loaded.named_parameters():
        assert_close(value, original[name].bfloat16().float(), atol=0, rtol=0)
    prompt = processor.encode([[Message.of("user", "draw a fox")]], loaded)
    rounded = model.extend(None, **prompt).logits
    assert_close(loaded.extend(None, **prompt).logits, rounded, atol=0.05, rtol=0.05)


def test_what_is_loaded_and_saved_again_has_the_same_bytes(saved, tmp_path) -> None:
    save(*load(saved, device="cpu"), tmp_path / "again")
    assert model_hash(saved) == model_hash(tmp_path / "again")
    assert len(model_hash(saved)) == 16


def test_a_model_may_be_loaded_in_bfloat16_and_saved_in_float32(saved, model, tmp_path) -> None:
    assert load(saved, device="cpu", dtype="bfloat16")[0].dtype == torch.bfloat16
    save(model, tiny_processor(), tmp_path / "exact", dtype=torch.float32)
    loaded, _ = load(tmp_path / "exact", device="cpu")
    for name, value in model.named_parameters():
        assert torch.equal(value, loaded.get_parameter(name)), name


def test_missing_unexpected_and_misshapen_weights_are_named(broken) -> None:
    weights = load_file(broken / "model.safetensors")
    weights["generator.surprise"] = weights.pop("generator.head.weight")
    weights["projector_in.0.bias"] = torch.zeros(5)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not those of this model") as error:
        load(broken, device="cpu")
    for name in ("generator.surprise", "generator.head.weight", "projector_in.0.bias"):
        assert name in str(error.value)


def test_a_directory_without_weights_or_with_half_a_file_is_refused(broken) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read"):
        load(broken, device="cpu")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="no weights"):
        load(broken, device="cpu")


def test_a_tokenizer_of_another_model_is_refused(broken) -> None:
    config = json.loads((broken / "config.json").read_text())
    config["image_gen_start_token_id"], config["image_gen_end_token_id"] = (
        config["image_gen_end_token_id"],
        config["image_gen_start_token_id"],
    )
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="disagree on control tokens"):
        load(broken, device="cpu")


def test_directories_that_are_no_models_are_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        resolve_model(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        resolve_model(tmp_path / "file")


@pytest.mark.parametrize("name", ["someone/no-such-model", "no such place", "./missing/folder"])
def test_a_name_that_is_neither_here_nor_on_the_hub_says_what_to_give(name) -> None:
    with pytest.raises(FileNotFoundError, match="neither a local model directory nor a model that the hub gives"):
        resolve_model(name)


def test_devices_that_are_unknown_or_absent_are_refused() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match="unknown device 'abacus'"):
        resolve_device("abacus")
    with pytest.raises(ValueError, match="'meta' is not available"):
        resolve_device("meta")


def test_decisions_stay_exact_on_a_cpu_unless_asked() -> None:
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert resolve_dtype("float16", torch.device("cpu")) == torch.float16
    with pytest.raises(ValueError, match="unknown dtype 'int8'; use auto, float32, bfloat16, float16"):
        resolve_dtype("int8", torch.device("cpu"))
