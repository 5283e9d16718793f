"""The figures of a load run, from samples whose figures are known by hand."""

from __future__ import annotations

import base64
import json
import math

import pytest

from benchmarks.load_report import LoadReport, Sample, percentile, phase, report_table
from benchmarks.load_requests import KINDS, VARIANTS, Answer, answer, call, picture, png

SAMPLES = (
    Sample("draw", 0, 10.0, 11.0, pictures=1, same=True),
    Sample("draw", 1, 10.0, 12.0, pictures=1, same=False),
    Sample("chat", 0, 11.0, 12.0, tokens=6, refusals=2),
    Sample("chat", 1, 12.0, 14.0, error="500 internal_error: oh"),
)


def test_a_phase_counts_what_was_answered_and_compares_it_with_what_was_answered_alone() -> None:
    found = phase(SAMPLES)
    assert found.seconds == 4
    assert (found.requests_per_second, found.pictures_per_second, found.tokens_per_second) == (0.75, 0.5, 1.5)
    assert (found.kinds["draw"].count, found.kinds["draw"].errors, found.kinds["draw"].p50) == (2, 0, 1.0)
    assert (found.kinds["chat"].count, found.kinds["chat"].errors, found.kinds["chat"].p95) == (2, 1, 1.0)
    assert found.kinds["all"].count == 4
    assert (found.kinds["all"].compared, found.kinds["all"].changed, found.refusals) == (2, 1, 2)
    assert found.messages == {"500 internal_error: oh": 1}


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.95) == 4.0
    assert percentile([7.0], 0.5) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_a_report_tells_growth_gain_and_errors() -> None:
    alone, together = phase(SAMPLES[:1]), phase(SAMPLES)
    memory = ((0, 1_000_000), (10, 1_500_000), (20, 1_600_000), (30, 1_600_000), (40, 1_620_000))
    report = LoadReport("nano", "http://x", 4, ("draw",), alone, together, None, 900_000, memory)
    assert report.growth == 1000.0
    assert report.gain == 0.75
    assert report.errors == 1
    assert json.loads(json.dumps(report.as_json(), allow_nan=False))["together"]["kinds"]["draw"]["p95"] == 2.0
    assert report_table(report).row_count == 2 + 3
    assert any("0.75 times" in line for line in report.lines())


def test_without_known_memory_there_is_no_growth() -> None:
    nothing = phase(())
    report = LoadReport("nano", "http://x", 1, ("draw",), nothing, nothing, None, None, ((0, None),))
    assert report.growth is None
    assert json.dumps(report.as_json(), allow_nan=False)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_numbers_ask_the_same_and_others_do_not(kind: str) -> None:
    assert call(kind, 3, "nano") == call(kind, 3 + VARIANTS, "nano")
    assert len({repr(call(kind, number, "nano")) for number in range(VARIANTS)}) == VARIANTS


def test_what_is_no_answer_is_an_error() -> None:
    draw, chat = call("draw", 0, "nano"), call("chat", 0, "nano")
    for asked, body in (
        (draw, {"data": []}),
        (draw, {"data": [{"b64_json": "AAAA"}]}),
        (chat, {"choices": []}),
        (chat, {"choices": [{"message": {"content": ""}}]}),
    ):
        with pytest.raises(ValueError):
            answer(asked, body)


def test_answers_are_alike_up_to_rounding() -> None:
    page = picture(1)
    lighter = page.point(lambda value: min(255, value + 1))
    said = answer(call("draw", 0, "nano"), {"data": [{"b64_json": base64.b64encode(png(page)).decode()}]})
    assert said.is_like(Answer("", (page,))) and said.is_like(Answer("", (lighter,)))
    assert not said.is_like(Answer("", (picture(2),)))
    assert not said.is_like(Answer("", (page.resize((32, 32)),)))
    assert not said.is_like(Answer("", ())) and not said.is_like(Answer("other words", (page,)))
