"""Prompts into states: the T5's own, whatever stands beside them in the batch, from a folder as published."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import BertConfig, T5Config, T5ForConditionalGeneration, T5Tokenizer

from vargpt.testing import TEXTS, tiny_t5_tokenizer, tiny_text_encoder
from vargpt.text_to_image.text_encoder import MAX_TOKENS, TextEncoder, load_text_encoder

PROMPTS = ["a fox", "a small red car on the left and a pine tree on the right"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return tiny_text_encoder()


@pytest.fixture
def whole() -> T5ForConditionalGeneration:
    """Encoder and decoder, as FLAN-T5 is published."""
    config = T5Config(
        vocab_size=len(tiny_t5_tokenizer()), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    return T5ForConditionalGeneration(config).eval()


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    whole.save_pretrained(tmp_path / "t5")
    tiny_t5_tokenizer().save_pretrained(tmp_path / "t5")
    return tmp_path / "t5"


def test_padding_stands_right_and_is_masked(encoder) -> None:
    text = encoder(PROMPTS)
    lengths = [len(encoder.tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    assert text.states.shape == (2, max(lengths), encoder.width) and text.mask.sum(1).tolist() == lengths
    assert text.mask[0].tolist() == [True] * lengths[0] + [False] * (max(lengths) - lengths[0])


def test_a_prompt_reads_the_same_alone_and_beside_a_longer_one(encoder) -> None:
    together, alone = encoder(PROMPTS), encoder(PROMPTS[:1])
    assert_close(together.states[0, : alone.states.shape[1]], alone.states[0], atol=1e-5, rtol=1e-5)


def test_a_long_prompt_is_cut_with_a_warning_and_keeps_its_end_token(encoder, caplog, monkeypatch) -> None:
    seen: list[torch.Tensor] = []
    hook = encoder.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"]), with_kwargs=True
    )
    with caplog.at_level(logging.WARNING, "vargpt"):
        text = encoder(["fox " * 700])
    hook.remove()
    assert text.states.shape[1] == MAX_TOKENS == 512
    assert "a prompt of 701 tokens is cut off after 512" in caplog.text
    assert seen[0][0, -1] == encoder.tokenizer.eos_token_id and (seen[0][0, :-1] == seen[0][0, 0]).all()


def test_the_encoder_half_of_a_published_t5_gives_its_states(whole, folder) -> None:
    encoder = load_text_encoder(folder)
    ids = encoder.tokenizer(PROMPTS[1], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = whole.encoder(input_ids=ids).last_hidden_state
    assert_close(encoder(PROMPTS[1:]).states, expected, atol=1e-6, rtol=1e-6)
    assert not encoder.model.training and not any(parameter.requires_grad for parameter in encoder.parameters())


def test_states_are_float32_whatever_the_weights_are(folder) -> None:
    states = load_text_encoder(folder, dtype=torch.bfloat16)(PROMPTS).states
    assert states.dtype == torch.float32
    assert_close(states, load_text_encoder(folder)(PROMPTS).states, atol=0.1, rtol=0.1)


def test_a_sentencepiece_file_alone_is_tokenizer_enough(folder, tmp_path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS * 10))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "texts.txt"), model_prefix=str(tmp_path / "spiece"), vocab_size=60,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "spiece.model").write_bytes((tmp_path / "spiece.model").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    tokenizer = load_text_encoder(folder).tokenizer
    assert isinstance(tokenizer, T5Tokenizer)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == [*pieces.encode(text), tokenizer.eos_token_id]


def test_what_is_no_text_encoder_says_what_to_name(folder, tmp_path) -> None:
    for name in ("someone/no-such-t5", str(tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match=r"(?s)neither a local folder .* with --text-encoder"):
            load_text_encoder(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        load_text_encoder(tmp_path / "empty")
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="is a bert, but a T5 is needed"):
        load_text_encoder(tmp_path / "bert")


def test_missing_weights_are_named(folder) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.block.1.layer.0.SelfAttention.q.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"encoder\.block\.1\.layer\.0\.SelfAttention\.q\.weight"):
        load_text_encoder(folder)


def test_no_prompt_is_refused(encoder) -> None:
    with pytest.raises(ValueError, match="there is no prompt"):
        encoder([])
