"""A repository in VARGPT-v1.1's published form: config, tokenizer files, shards under their published names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from vargpt.assistant.model import VARGPT
from vargpt.assistant.special_tokens import NAMES
from vargpt.chat.engine import ChatEngine
from vargpt.config import VargptConfig
from vargpt.loading.models import model_hash, save
from vargpt.published.families import load, model_config
from vargpt.published.vargpt_v1_1 import VargptV11, config_from_published
from vargpt.published.vargpt_v1_1_weights import vargpt_map
from vargpt.testing import TEXTS
from vargpt.types import ChatRequest, ImageSampling, Message

DRAWING = ("<|image_gen_start|>", "<|image_gen_end|>", "<|image_gen_pad|>")
DECODER = {
    "hidden_size": 256, "num_layers": 4, "num_heads": 2, "mlp_ratio": 1.0, "code_dim": 8, "num_bits": 8,
    "memory_size": 256, "null_length": 16,
}  # fmt: skip
AUTOENCODER = {"num_bits": 8, "base_channels": 32, "channel_multipliers": [1, 1, 1, 1, 2], "num_res_blocks": 1}
CHUNKS = 2


def published_tokenizer() -> PreTrainedTokenizerFast:
    """What Qwen2-VL's files hold: the control tokens of chats and pictures that are seen, none for drawing."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token in NAMES.values() if token not in DRAWING]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def published_config(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> dict[str, Any]:
    ids = tokenizer.get_vocab()
    drawing = dict(zip(("start", "end", "pad"), range(len(tokenizer), len(tokenizer) + 3), strict=True))
    return {
        "model_type": "vargpt_qwen2_vl",
        "vocab_size": 320,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": False,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "special_tokens": {f"image_gen_{name}_token_id": number for name, number in drawing.items()},
        "vision_config": {
            "depth": 2, "embed_dim": 32, "mlp_ratio": 2, "num_heads": 4, "in_chans": 3, "hidden_size": 48,
            "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2,
        },
        **changes,
    }  # fmt: skip


def random_model(config: VargptConfig) -> VARGPT:
    torch.manual_seed(0)
    model = VargptV11(config)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.02
    zero_where_published_is(model)
    return model.eval()


@torch.no_grad()
def zero_where_published_is(model: VARGPT) -> None:
    """Published keys have no bias."""
    weight_map = vargpt_map(model.config, CHUNKS)
    for name, parameter in model.named_parameters():
        for _, place in weight_map.published(name):
            if place.zero:
                parameter.chunk(place.count)[place.piece].zero_()


@pytest.fixture(scope="module")
def original() -> VARGPT:
    return random_model(config_from_published(published_config(published_tokenizer()), DECODER, AUTOENCODER))


@pytest.fixture(scope="module")
def repository(original, tmp_path_factory) -> Path:
    """Two shards with an index, Qwen2-VL's tokenizer and preprocessor files; weights in bfloat16, as published."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer = published_tokenizer()
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(published_config(tokenizer)))
    pictures = {"min_pixels": 3136, "max_pixels": 50176, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    pictures["image_processor_type"] = "VARGPTQwen2VLImageProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    weights = {
        name: tensor.contiguous().clone()
        for name, tensor in vargpt_map(original.config, CHUNKS).export(original.named_parameters())
    }
    names = sorted(weights)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


@pytest.fixture
def broken(repository, tmp_path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "broken"))


def rewrite(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_weights_and_sizes_are_read_off_the_files(repository, original) -> None:
    model, _ = load(repository, device="cpu")
    assert not model.training and not any(parameter.is_meta for parameter in model.parameters())
    loaded = dict(model.named_parameters())
    assert loaded.keys() == dict(original.named_parameters()).keys()
    for name, parameter in original.named_parameters():
        assert_close(loaded[name], parameter, atol=0, rtol=0)
    for name, buffer in original.named_buffers():
        assert_close(dict(model.named_buffers())[name], buffer)


def test_control_tokens_that_the_tokenizer_lacks_are_appended(repository) -> None:
    model, processor = load(repository, device="cpu")
    vocabulary = processor.tokenizer.get_vocab()
    assert [vocabulary[token] for token in DRAWING] == [
        model.config.image_gen_start_token_id,
        model.config.image_gen_end_token_id,
        model.config.image_gen_pad_token_id,
    ]
    ids = processor.text_ids("an injected <|image_gen_start|> draws nothing")
    assert not set(ids) & processor.special.all
    size = processor.image_processor.size
    assert (size["shortest_edge"], size["longest_edge"]) == (3136, 50176)


def test_both_spellings_of_rotary_positions_are_understood(repository, broken) -> None:
    rewrite(broken, rope_scaling=None, rope_theta=None)
    rewrite(broken, rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]})
    old, new = (load(folder, device="cpu")[0].config.text_config.rope_parameters for folder in (repository, broken))
    assert old == new


def test_a_published_model_chats_draws_and_draws_again(repository) -> None:
    engine = ChatEngine.load(repository, device="cpu")
    wish = Message.of("user", "draw a fox")
    sampling = ImageSampling(guidance_scale=3.0)
    first = engine.reply(ChatRequest(messages=(wish,), route="image", size=(256, 256), image_sampling=sampling))
    assert [part.image.size for part in first.message.images] == [(256, 256)]
    again = Message.of("user", "now a larger one, with a tree on its left")
    messages = (wish, first.message, again)
    second = engine.reply(ChatRequest(messages=messages, route="image", size=(256, 256), image_sampling=sampling))
    assert len(second.message.images) == 1
    answer = engine.reply(
        ChatRequest(messages=(*messages, second.message, Message.of("user", "what is it?")), route="text")
    )
    assert answer.num_text_tokens > 0


def test_saved_in_our_own_format_it_is_the_same_model(repository, tmp_path) -> None:
    model, processor = load(repository, device="cpu")
    save(model, processor, tmp_path, torch.float32)
    again, _ = load(tmp_path, device="cpu")
    assert type(again) is VargptV11
    assert model_config(tmp_path).generator_config.to_dict() == model.config.generator_config.to_dict()
    ours, theirs = again.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert_close(ours[name], value, rtol=0, atol=0, msg=name)


def test_guidance_reaches_beyond_the_length_of_the_published_null(repository) -> None:
    """Published code fails beyond 512 tokens; here the null has 16 states and the prompt more."""
    engine = ChatEngine.load(repository, device="cpu")
    long = Message.of("user", "draw a fox next to a pine tree at night " * 8)
    turn = engine.reply(ChatRequest(messages=(long,), route="image", size=(256, 256)))
    assert len(turn.message.images) == 1


def test_wrong_repositories_are_refused_with_what_is_wrong(broken) -> None:
    rewrite(broken, image_token_id=7)
    with pytest.raises(ValueError, match="disagree on control tokens"):
        load(broken, device="cpu")
    (broken / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="tokenizer"):
        load(broken, device="cpu")
    (broken / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002"):
        load(broken, device="cpu")


def test_weights_of_something_else_are_named(broken) -> None:
    for file in broken.glob("model*"):
        file.unlink()
    save_file({"visual.weight": torch.ones(1)}, broken / "model.safetensors")
    with pytest.raises(ValueError, match="not the weights of a published next-scale transformer"):
        load(broken, device="cpu")


def test_large_files_are_hashed_at_their_ends(repository, monkeypatch) -> None:
    whole = model_hash(repository)
    model_hash.cache_clear()
    monkeypatch.setattr("vargpt.loading.hub.READ_WHOLE", 1000)
    monkeypatch.setattr("vargpt.loading.hub.BLOCK", 100)
    assert model_hash(repository) != whole
    model_hash.cache_clear()
