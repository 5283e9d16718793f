from __future__ import annotations

import json
import sys

import pytest

from tests.chat.scripted import ask, drawing_engine
from vargpt.benchmarks.speed import ORGANS, REST, measure_speed, organ_seconds, peak_memory, speed_lines
from vargpt.commands import cli, opening


@pytest.fixture(scope="module")
def engine():
    return drawing_engine()


def test_all_speeds_are_measured_and_the_shares_make_a_whole(engine):
    speed = measure_speed(engine, runs=1, batch_size=2)
    assert 0 < speed.first_preview_s <= speed.picture_s
    assert min(speed.text_tokens_per_s, speed.batch_pictures_per_s, speed.peak_memory_mib) > 0
    assert set(speed.shares) == {*ORGANS, REST}
    assert sum(speed.shares.values()) == pytest.approx(1)
    assert speed.peak_gpu_memory_mib is None or engine.device.type == "cuda"
    assert "finished picture after" in dict(speed_lines(speed))
    json.dumps(speed.as_json())


def test_every_organ_works_during_a_picture_and_is_left_as_it_was(engine):
    reply = engine.reply(ask(seed=3))
    seconds = organ_seconds(engine, lambda: engine.reply(ask(seed=3)))
    assert all(seconds[organ] > 0 for organ in ORGANS)
    for methods in ORGANS.values():
        assert [name for module, name in methods if name in vars(getattr(engine.model, module))] == []
    assert engine.reply(ask(seed=3)).message.images[0].image.tobytes() == reply.message.images[0].image.tobytes()


def test_the_time_of_an_inner_organ_is_not_counted_for_the_outer_one(engine, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("vargpt.benchmarks.speed.time.perf_counter", lambda: float(next(clock)))
    ticks = organ_seconds(engine, lambda: engine.model.lm_head(engine.model.lm_head.weight[:1]))
    assert ticks == dict.fromkeys(ORGANS, 0.0) | {"language model": 1.0, REST: 2.0}


def test_a_system_that_does_not_tell_its_memory_is_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory() is None


def test_at_least_one_run_is_needed(engine):
    with pytest.raises(ValueError, match="got 0 and 8"):
        measure_speed(engine, runs=0)


def test_the_command_prints_a_table_and_writes_numbers(home, monkeypatch, capsys, engine):
    monkeypatch.setattr(opening, "open_engine", lambda model, device: engine)
    with pytest.raises(SystemExit) as left:
        cli.app(["bench", "--runs", "1", "--batch-size", "1", "--out", "speed.json"])
    assert left.value.code == 0
    assert "generator, share of a picture" in capsys.readouterr().out
    assert json.loads((home / "speed.json").read_text())["batch_size"] == 1
