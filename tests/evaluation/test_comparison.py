"""Two reports are compared case by case, and only if they are about the same cases."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.oracle import KnownPages, Oracle, recoloured, report_on
from vargpt.commands import cli
from vargpt.evaluation.comparison import CHANCE, compare, read_report

N = 12


@pytest.fixture(scope="module")
def reports() -> dict[str, dict]:
    """Of an engine that is always right, and of one that gets every colour wrong."""
    world = KnownPages()
    chosen = {"categories": ["draw", "route", "dialogue"], "controls": 1}
    perfect = report_on(Oracle(world, N), world, N, **chosen).as_json()
    return {"right": perfect, "wrong": report_on(Oracle(world, N, change=recoloured), world, N, **chosen).as_json()}


def changes_of(before: dict, after: dict) -> dict[tuple[str, str], object]:
    return {(change.task, change.name): change for change in compare(before, after)}


def test_a_report_against_itself_shows_no_change(reports):
    for change in compare(reports["right"], reports["right"]):
        assert (change.difference.value, change.difference.low, change.difference.high) == (0, 0, 0)
        assert change.verdict == CHANCE


def test_what_got_worse_is_called_worse_and_what_stayed_is_left_to_chance(reports):
    changes = changes_of(reports["right"], reports["wrong"])
    colours = changes["draw", "colours"]
    assert (colours.before, colours.after, colours.difference.value) == (1.0, 0.0, -1.0)
    assert colours.verdict == "worse"
    assert changes["draw", "mean of 6"].verdict == "worse"
    assert changes["route", "all"].verdict == CHANCE
    back = changes_of(reports["wrong"], reports["right"])
    assert back["draw", "colours"].verdict == "better"


def test_pairs_tell_a_small_gain_apart_that_two_intervals_do_not():
    marks = "10" * 150
    better = "1" * 12 + marks[12:]

    def report(text: str) -> dict:
        row = {"task": "draw", "name": "colours", "value": text.count("1") / 300, "marks": text, "groups": ""}
        return {"benchmark": "storybook", "n": 300, "seed": 0, "rows": [row]}

    (change,) = compare(report(marks), report(better))
    assert change.verdict == "better"
    assert change.difference.value == pytest.approx(6 / 300)
    assert change.difference.high - change.difference.low < 0.04  # unpaired intervals are 0.11 wide


def test_turns_of_one_dialogue_are_resampled_together(reports):
    row = next(row for row in reports["right"]["rows"] if row["name"] == "turns")
    assert len(row["groups"].split()) == len(row["marks"]) > N
    assert len(set(row["groups"].split())) == N


def test_reports_of_other_cases_are_refused(reports):
    with pytest.raises(ValueError, match="seed is 0 before and 1 after"):
        compare(reports["right"], reports["right"] | {"seed": 1})
    with pytest.raises(ValueError, match="no row in common"):
        compare(reports["right"], reports["right"] | {"rows": []})


def test_files_that_are_no_reports_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="--out"):
        read_report(tmp_path / "none.json")
    for content, message in (("[]", "is no report"), ("{", "is no report"), ('{"rows": []}', "no marks")):
        (tmp_path / "odd.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            read_report(tmp_path / "odd.json")


def test_the_command_prints_a_table(reports, tmp_path, capsys):
    for name, report in reports.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    with pytest.raises(SystemExit) as left:
        cli.app(["evaluate", "compare", str(tmp_path / "wrong.json"), str(tmp_path / "right.json")])
    assert left.value.code == 0
    assert "| draw | colours | 12 | 0.0 | 100.0 | +100.0 [+100.0, +100.0] | better |" in capsys.readouterr().out
