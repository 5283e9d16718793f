"""The text tokenizer: any text comes back as it was."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vargpt.assistant.special_tokens import NAMES, SpecialTokens
from vargpt.assistant.text_tokenizer import train_text_tokenizer
from vargpt.testing import TEXTS, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SPECIAL = SpecialTokens.of(TOKENIZER)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@given(any_text)
@example("  two  spaces , and\r\n\n tabs\t ")
@example("draw a fox 🦊👩‍👩‍👧 naïve 狐狸 ﷽\u0000\u200b")
@example("".join(NAMES.values()))
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back_as_it_was(text) -> None:
    assert TOKENIZER.decode(ids_of(text)) == text


@given(st.lists(st.one_of(any_text, st.sampled_from(sorted(NAMES.values()))), max_size=5).map("".join))
@settings(max_examples=60, deadline=None)
def test_no_text_is_ever_a_control_token(text) -> None:
    assert not SPECIAL.all.intersection(ids_of(text))


def test_what_was_learnt_makes_known_texts_shorter_than_their_bytes() -> None:
    assert len(ids_of(TEXTS[0])) < 0.8 * len(TEXTS[0].encode())
    assert len(ids_of("2024")) == 4, "digits stand alone"


def test_control_tokens_are_one_id_each_and_come_first() -> None:
    vocabulary = TOKENIZER.get_vocab()
    assert sorted(vocabulary[name] for name in NAMES.values()) == list(range(len(NAMES)))
    assert len(SPECIAL.all) == len(NAMES)
    assert TOKENIZER.eos_token_id == SPECIAL.im_end and TOKENIZER.pad_token_id == SPECIAL.end_of_text
    assert SPECIAL.never_sampled == SPECIAL.all - {SPECIAL.gen_start, SPECIAL.im_end}


def test_saving_and_loading_changes_no_id(tmp_path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = type(TOKENIZER).from_pretrained(tmp_path)
    for text in (*TEXTS, "  naïve 🦊 "):
        assert loaded(text, add_special_tokens=False)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert SpecialTokens.of(loaded) == SPECIAL


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 265 .* got 264"):
        train_text_tokenizer(TEXTS, vocab_size=264)
    assert len(train_text_tokenizer(TEXTS, vocab_size=265)) == 265


def test_a_tokenizer_without_control_tokens_is_refused_by_name() -> None:
    class Bare:
        def get_vocab(self) -> dict[str, int]:
            return {name: 0 for name in NAMES.values() if name != "<|image_gen_pad|>"}

    with pytest.raises(ValueError, match=r"lacks the control tokens \['<\|image_gen_pad\|>'\]"):
        SpecialTokens.of(Bare())
