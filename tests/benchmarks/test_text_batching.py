"""Text of many users by us and by transformers' continuous batching: on equal weights both say the same."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.text_batching import LENGTHS, TextBatching, ask_ours, causal_twin, measure, report, text_requests
from vargpt.chat.engine import ChatEngine
from vargpt.loading.packing import pack
from vargpt.testing import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def measured() -> TextBatching:
    return measure(ChatEngine(tiny_model(), tiny_processor(), "tiny"), users=(1, 3), answers=6, runs=1)


def test_every_way_gives_the_answers_that_are_given_one_by_one(measured) -> None:
    ways = ["ours", "transformers", "ours, packed"]
    assert [(rate.name, rate.users) for rate in measured.rates] == [(name, users) for name in ways for users in (1, 3)]
    assert all(rate.tokens_per_s > 0 for rate in measured.rates)
    assert {rate.same for rate in measured.rates} == {1.0}
    assert json.loads(json.dumps(measured.as_json()))["about"]["answers"] == 6
    table = report(measured)
    assert "| tokens/s | 1 at once | 3 at once | same answers |" in table
    assert table.count("| 100% |") == 3


def test_the_twin_shares_the_weights_and_reads_words_alike() -> None:
    model, processor = tiny_model().eval(), tiny_processor()
    twin = causal_twin(model)
    assert twin.lm_head.weight.data_ptr() == model.lm_head.weight.data_ptr()
    ids = torch.tensor([processor.waiting_ids(text_requests(1)[0].messages).input_ids])
    with torch.inference_mode():
        state = model.extend(None, ids, torch.ones_like(ids))
        torch.testing.assert_close(twin(ids).logits[:, -1], state.logits, rtol=1e-4, atol=1e-4)


def test_answers_keep_to_their_own_lengths() -> None:
    engine = ChatEngine(tiny_model(), tiny_processor(), "tiny")
    answers = ask_ours(engine)(text_requests(7), 2)
    for answer, request in zip(answers, text_requests(7), strict=True):
        assert len(answer) <= request.text_sampling.max_new_tokens
    assert {request.text_sampling.max_new_tokens for request in text_requests(7)} == set(LENGTHS)


def test_packed_weights_have_no_twin() -> None:
    model = tiny_model()
    pack(model)
    with pytest.raises(ValueError, match="packed"):
        causal_twin(model)


@pytest.mark.parametrize(("users", "answers"), [((), 4), ((0,), 4), ((8,), 4)])
def test_numbers_that_make_no_sense_are_refused(users: tuple[int, ...], answers: int) -> None:
    with pytest.raises(ValueError, match="at least one user"):
        measure(ChatEngine(tiny_model(), tiny_processor(), "tiny"), users, answers)
