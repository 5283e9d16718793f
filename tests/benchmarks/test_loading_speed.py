"""Random checkpoints in published form: every name once, in shards, and the loader takes them."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.published.test_infinity import AUTOENCODER, CHUNKS, DECODER, published_config, published_tokenizer
from vargpt.benchmarks import loading_speed
from vargpt.benchmarks.loading_speed import LoadingSpeed, measure_loading, write_random_checkpoint
from vargpt.published.vargpt_v1_1 import config_from_published, read_published_model, vargpt_map


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_speed, "PUBLISHED", published_config(published_tokenizer()))
    monkeypatch.setattr(loading_speed, "DECODER", DECODER)
    monkeypatch.setattr(
        loading_speed, "config_from_published", lambda published, d: config_from_published(published, d, AUTOENCODER)
    )
    monkeypatch.setattr(loading_speed, "CHUNKS", CHUNKS)


@pytest.mark.usefixtures("tiny")
def test_a_random_checkpoint_is_sharded_complete_and_loads(tmp_path) -> None:
    config = write_random_checkpoint(tmp_path, size=10_000_000, shard_bytes=2_000_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 3 and sum(file.stat().st_size for file in files) > 10_000_000
    stored = {name: value for file in files for name, value in load_file(file).items()}
    floats = {name: value for name, value in stored.items() if value.is_floating_point() and "ln_q" not in name}
    assert {value.dtype for value in floats.values()} == {torch.bfloat16}
    model = read_published_model(tmp_path, torch.bfloat16, torch.device("cpu"))
    assert model.config.text_config.num_hidden_layers == config.text_config.num_hidden_layers > 1
    again = dict(vargpt_map(config, CHUNKS).export(model.named_parameters()))
    assert all(torch.equal(again[name], stored[name]) for name in again if "ln_q" not in name and "mask" not in name)


@pytest.mark.usefixtures("tiny")
@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is not told there")
def test_a_load_is_measured_in_a_process_of_its_own(tmp_path) -> None:
    write_random_checkpoint(tmp_path, size=1_000_000)
    speed = measure_loading(tmp_path)
    assert speed.seconds > 0 and speed.weight_bytes > 1_000_000
    assert LoadingSpeed(1.0, weight_bytes=100, peak_bytes=120).peak_share == pytest.approx(1.2)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RuntimeError, match="could not be loaded"):
        measure_loading(tmp_path)
