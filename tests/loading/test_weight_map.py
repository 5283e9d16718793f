"""Streaming: strict, shard by shard, from every published file format, and full-size names key for key on `meta`."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from vargpt.config import InfinityConfig
from vargpt.generators.infinity import InfinityGenerator
from vargpt.loading.checkpoint_files import (
    empty_weights,
    load_weights,
    read_shapes,
    read_tensors,
    unnested,
    weight_files,
)
from vargpt.published.infinity_weights import transformer_map

TINY = InfinityConfig(
    hidden_size=64, num_layers=4, num_heads=4, code_dim=8, num_bits=8, memory_size=256,
    null_length=8,
)  # fmt: skip
MAP = transformer_map(blocks_per_chunk=2)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    weights = dict(MAP.export(InfinityGenerator(TINY).state_dict().items()))
    return {
        name: torch.zeros_like(value) if "zero_k_bias" in name else torch.randn_like(value)
        for name, value in weights.items()
    }


def empty_model() -> torch.nn.Module:
    with empty_weights():
        return InfinityGenerator(TINY)


def write(folder, weights, form: str) -> None:
    weights = {name: value.contiguous() for name, value in weights.items()}
    if form == "safetensors":
        save_file(weights, folder / "model.safetensors")
    elif form == "shards":
        names = sorted(weights)
        index = {}
        for number, part in enumerate((names[::2], names[1::2])):
            file = f"model-{number}.safetensors"
            save_file({name: weights[name] for name in part}, folder / file)
            index |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    elif form == "bin":
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        torch.save({"trainer": {"gpt_fsdp": weights}, "iter": 3}, folder / "model.pth")


@pytest.mark.parametrize("form", ["safetensors", "shards", "bin", "pth"])
def test_every_file_format_gives_the_same_model(form, published, tmp_path) -> None:
    write(tmp_path, published, form)
    model = empty_model()
    assert all(parameter.is_meta for parameter in model.parameters())
    load_weights(model, MAP, read_tensors(weight_files(tmp_path)), torch.float32)
    again = dict(MAP.export(model.state_dict().items()))
    assert again.keys() == published.keys()
    assert all(torch.equal(again[name], published[name]) for name in published)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("form", ["safetensors", "shards", "bin", "pth"])
def test_names_may_all_be_wrapped_as_training_code_wraps_models(form, wrapper, published, tmp_path) -> None:
    write(tmp_path, {wrapper + name: value for name, value in published.items()}, form)
    files = weight_files(tmp_path)
    assert read_shapes(files) == {name: tuple(value.shape) for name, value in published.items()}
    load_weights(model := empty_model(), MAP, read_tensors(files), torch.float32)
    again = dict(MAP.export(model.state_dict().items()))
    assert all(torch.equal(again[name], published[name]) for name in published)


def test_a_wrapper_around_some_names_only_is_no_wrapper(published, tmp_path) -> None:
    write(tmp_path, {"module.head.bias" if name == "head.bias" else name: v for name, v in published.items()}, "bin")
    with pytest.raises(ValueError, match=r"missing, such as head\.bias; 1 unknown, such as module\.head\.bias"):
        load_weights(empty_model(), MAP, read_tensors(weight_files(tmp_path)), torch.float32)


@pytest.mark.parametrize("nest", [("state_dict",), ("trainer", "gpt_fsdp"), ("model", "module"), ("vae",), ()])
def test_weights_are_found_where_training_code_puts_them(nest, published, tmp_path) -> None:
    content: dict = dict(published)
    for name in reversed(nest):
        content = {name: content, "epoch": 3, "optimizer": {"state": {}}}
    assert unnested(content, tmp_path).keys() == published.keys()


def test_published_weights_may_be_half_precise(published, tmp_path) -> None:
    write(tmp_path, {name: value.bfloat16() for name, value in published.items()}, "shards")
    load_weights(model := empty_model(), MAP, read_tensors(weight_files(tmp_path)), torch.float32)
    again = dict(MAP.export(model.state_dict().items()))
    assert all(torch.equal(again[name], published[name].bfloat16().float()) for name in published)


def test_what_is_missing_or_unknown_is_named(published) -> None:
    cut = {name: value for name, value in published.items() if name != "head.bias"} | {"extra": torch.ones(1)}
    with pytest.raises(ValueError, match=r"1 missing, such as head\.bias; 1 unknown, such as extra"):
        load_weights(empty_model(), MAP, cut.items(), torch.float32)


def test_another_size_is_refused(published) -> None:
    wrong = published | {"head.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match="is the config that of this checkpoint"):
        load_weights(empty_model(), MAP, wrong.items(), torch.float32)


def test_a_missing_shard_is_named(published, tmp_path) -> None:
    write(tmp_path, published, "shards")
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-1"):
        weight_files(tmp_path)


def test_a_truncated_file_is_an_error_that_says_what_to_do(published, tmp_path) -> None:
    write(tmp_path, published, "safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="download it again"):
        list(read_tensors(weight_files(tmp_path)))


def test_a_file_without_weights_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="holds no weights"):
        unnested({"iter": 3}, tmp_path)
