"""Text deltas concatenate to the decoded whole and never hold half a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vargpt.chat.streaming import MessageBuilder, TextStream, byte_alphabet, vocabulary_bytes
from vargpt.types import ImageFinished, ImagePart, Message, TextDelta

SINGLE_BYTES = [bytes([byte]) for byte in range(256)]


def byte_tokenizer(**extra: int) -> PreTrainedTokenizerFast:
    """One token per byte, id = byte, and the merged tokens of `extra`."""
    vocabulary = {character: byte for character, byte in byte_alphabet().items()} | extra
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=["<|im_end|>"])


TOKENIZER = byte_tokenizer()
TABLE = vocabulary_bytes(TOKENIZER)


@given(st.text(max_size=30).map(str.encode) | st.binary(max_size=30))
def test_deltas_concatenate_to_the_decoded_whole(data: bytes) -> None:
    stream = TextStream(SINGLE_BYTES)
    assert "".join(stream.feed(byte) for byte in data) + stream.flush() == data.decode(errors="replace")


@given(st.text(max_size=20))
def test_no_delta_holds_half_a_character(text: str) -> None:
    stream = TextStream(SINGLE_BYTES)
    deltas = [stream.feed(byte) for byte in text.encode()]
    assert [delta for delta in deltas if delta] == list(text)
    assert stream.flush() == ""


@given(st.text(max_size=20).map(str.encode) | st.binary(max_size=20))
def test_a_stream_agrees_with_the_tokenizer_itself(data: bytes) -> None:
    stream = TextStream(TABLE)
    streamed = "".join(stream.feed(token_id) for token_id in data) + stream.flush()
    assert streamed == TOKENIZER.decode(list(data), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_special_tokens_and_ids_beyond_the_vocabulary_are_silent() -> None:
    stream = TextStream(TABLE)
    assert stream.feed(TOKENIZER.convert_tokens_to_ids("<|im_end|>")) == ""
    assert stream.feed(len(TABLE) + 5) == ""


def test_a_stream_can_be_used_again_after_it_was_flushed() -> None:
    stream = TextStream(SINGLE_BYTES)
    assert stream.feed(0xE2) == ""
    assert stream.flush() == "\ufffd"
    assert stream.feed(ord("a")) == "a"


def test_a_vocabulary_that_is_not_byte_level_is_refused() -> None:
    with pytest.raises(ValueError, match="byte-level"):
        vocabulary_bytes(byte_tokenizer(**{"▁word": 256}))


def test_events_fold_into_the_message_in_their_order() -> None:
    picture = ImagePart(Image.new("RGB", (4, 4)))
    builder = MessageBuilder()
    for event in (TextDelta("a"), TextDelta(""), TextDelta("b"), ImageFinished(0, picture), TextDelta("c")):
        builder.add(event)
    assert builder.message() == Message.of("assistant", "ab", picture, "c")
    assert builder.images == [picture]
