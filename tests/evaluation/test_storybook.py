from __future__ import annotations

import json
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from data_recipes.storybook.judging.judge import Judge
from data_recipes.storybook.judging.scoring import Storybook, meets, reading_of
from data_recipes.storybook.language.drawing_prompts import DrawingPrompt, GroupSpec
from data_recipes.storybook.world.scene import Group, Scene
from tests.chat.scripted import drawing_engine
from tests.evaluation.oracle import BLANK, NOTHING, KnownPages, Oracle, Scripted, recoloured, report_on, scores
from vargpt.commands import cli, opening
from vargpt.evaluation.base import Progress, Report
from vargpt.evaluation.picture_tasks import MAX_PSNR, psnr
from vargpt.evaluation.report import markdown
from vargpt.evaluation.sheets import Gallery
from vargpt.evaluation.storybook import evaluate, round_trip
from vargpt.types import Message

N = 6


@pytest.fixture(scope="module")
def world() -> KnownPages:
    return KnownPages()


@pytest.fixture(scope="module")
def oracle(world) -> Oracle:
    return Oracle(world, N)


@pytest.fixture(scope="module")
def report(oracle, world) -> Report:
    return report_on(oracle, world, N, batch_size=5)


def test_who_knows_everything_is_right_everywhere(report):
    shares = [row for row in report.rows if row.unit == "share"]
    assert {row.task for row in shares} == {"draw", "ask", "edit", "route", "dialogue"}
    assert [(row.name, row.score.value) for row in shares if row.score.value < 1] == []
    assert {score.value for row in shares for score in row.beside.values()} == {1.0}


def test_the_headline_is_the_mean_of_the_six_categories_of_geneval(report):
    (headline,) = [row for row in report.rows if row.name.startswith("mean of")]
    assert headline.score.n == 6 * N
    assert set(headline.beside) == {"judge", "ceiling"}


def test_a_true_edit_leaves_everything_else_as_it_was(report):
    (row,) = [row for row in report.rows if row.unit == "dB"]
    assert row.score.value == MAX_PSNR == row.beside["ceiling"].value


def test_blank_paper_is_never_right(world):
    blank = Scripted(lambda messages: Message.of("assistant", BLANK))
    found = scores(report_on(blank, world, N))
    assert {name: value for name, value in found.items() if name[0] in ("draw", "ask") and value} == {}
    assert found["edit", "all"] == 0
    assert found["dialogue", "turns"] == 0
    assert found["route", "all"] == 0.5  # who always draws is right whenever a picture is wanted


def test_a_refusal_counts_as_wrong_and_is_shown_as_such(world):
    mute = Scripted(lambda messages: Message.of("assistant", "No."))
    (row,) = report_on(mute, world, 4, categories=["counting"]).rows
    assert (row.score.value, row.beside["drawn"].value, row.beside["judge"].value) == (0, 0, 1)


def test_wrong_colours_fail_where_colours_were_said_and_only_there(world):
    oracle = Oracle(world, N, change=recoloured)
    found = scores(report_on(oracle, world, N, categories=["draw"]))
    assert found["draw", "colours"] == found["draw", "colour_attribution"] == 0
    assert found["draw", "single_object"] == found["draw", "counting"] == found["draw", "background"] == 1


def test_wrong_numbers_places_backgrounds_and_styles_fail(world):
    wish = DrawingPrompt((GroupSpec("fox", 2), GroupSpec("car", colour="red")), "meadow", "sepia", "left of")
    right = Scene(
        (Group("fox", 2, size="small", place="left"), Group("car", 1, "red", place="right")), "meadow", "sepia"
    )
    fox, car = right.groups
    assert meets(reading_of(right), wish)
    wrong = {
        "number": replace(right, groups=(replace(fox, count=3), car)),
        "place": replace(right, groups=(replace(fox, place="right"), replace(car, place="left"))),
        "kind": replace(right, groups=(replace(fox, kind="dog"), car)),
        "background": replace(right, background="sea"),
        "style": replace(right, style="storybook"),
    }
    assert {name for name, scene in wrong.items() if meets(reading_of(scene), wish)} == set()
    assert not meets(NOTHING, wish)


def test_things_nobody_asked_for_count_only_where_it_is_strict():
    scene = Scene((Group("fox", place="left"), Group("car", 1, "red", place="right")))
    assert meets(reading_of(scene), DrawingPrompt((GroupSpec("fox"),)))
    assert not meets(reading_of(scene), DrawingPrompt((GroupSpec("fox"),)), strict=True)


def test_a_colour_cannot_be_hidden_behind_a_style_nobody_asked_for():
    scene = Scene((Group("car", 1, "green"),), style="black and white")
    assert not meets(reading_of(scene), DrawingPrompt((GroupSpec("car", colour="red"),)))
    assert meets(reading_of(scene), DrawingPrompt((GroupSpec("car", colour="red"),), style="black and white"))


def test_doing_nothing_is_no_edit(world):
    copying = Scripted(lambda messages: Message.of("assistant", messages[-1].images[0].image))
    report = report_on(copying, world, 11, categories=["edit"])
    assert scores(report)["edit", "all"] <= 1 / 11  # recolouring a page without colours changes nothing to be seen
    assert scores(report)["edit", "PSNR outside, dB"] == MAX_PSNR


def test_nothing_changes_outside_the_edited_region(world):
    for case in world.edit_cases(22, 1):
        region = world.edited_region(case)
        changed = (np.asarray(world.picture(case.before)) != np.asarray(world.picture(case.after))).any(-1)
        assert (region is None) == (case.kind in ("background", "style"))
        assert region is None or not (changed & ~region).any()


def test_psnr_is_measured_in_decibels_at_the_chosen_pixels():
    black, grey = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), (16, 16, 16))
    where = np.ones((4, 4), dtype=bool)
    assert psnr(black, grey, where) == pytest.approx(20 * np.log10(255 / 16))
    grey.putpixel((0, 0), (0, 0, 0))
    assert psnr(black, grey, ~where | (np.arange(16).reshape(4, 4) == 0)) == MAX_PSNR
    with pytest.raises(ValueError, match="compared"):
        psnr(black, grey, ~where)


def test_a_dialogue_goes_on_from_the_replies_of_the_model(world):
    engine = Scripted(lambda messages: Message.of("assistant", f"reply {len(messages)}"))
    report_on(engine, world, 3, categories=["dialogue"])
    later = [request.messages for request in engine.requests if len(request.messages) == 5]
    assert later
    assert all([m.text for m in messages[1::2]] == ["reply 1", "reply 3"] for messages in later)


def test_equal_seeds_ask_for_equal_pictures_and_every_case_has_its_own(world):
    seeds = []
    for batch_size in (2, 4):
        engine = Scripted(lambda messages: Message.of("assistant", "No."))
        report_on(engine, world, 4, categories=["style"], batch_size=batch_size)
        seeds.append([request.seed for request in engine.requests])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 4


def test_progress_ends_with_all_cases_done(oracle, world):
    steps = [s for s in evaluate(oracle, world, list, N, ["colours", "route"], 5) if isinstance(s, Progress)]
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == steps[-1].total == 2 * N


def test_what_cannot_be_measured_is_refused_at_once(oracle, world):
    with pytest.raises(ValueError, match=r"unknown categories \['paint'\]; known are draw, single_object"):
        evaluate(oracle, world, list, categories=["paint"])
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        evaluate(oracle, world, list, batch_size=0)


def test_the_report_is_json_and_a_table_that_say_the_same(report):
    written = json.loads(json.dumps(report.as_json()))
    assert (written["model"], written["n"], written["seed"], len(written["rows"])) == (
        "scripted",
        N,
        0,
        len(report.rows),
    )
    lines = [line for line in markdown(report).splitlines() if line.startswith("|")]
    assert len(lines) == len(report.rows) + 2
    assert len({line.count("|") for line in lines}) == 1
    assert "| draw | colours | 100.0 [100.0, 100.0] | 6 |" in markdown(report)


def test_sheets_show_pictures_and_refusals(tmp_path):
    gallery = Gallery(tmp_path / "sheets")
    for number in range(30):
        gallery.add("edit", [BLANK, None if number % 2 else BLANK], "make the car red", right=number % 2 == 0)
    (path,) = gallery.save()
    assert path.name == "edit.png"
    with Image.open(path) as sheet:
        assert sheet.height == 6 * (sheet.height // 6) > 0  # 24 of the 30 in six rows
        colours = {colour for _, colour in sheet.getcolors(1 << 20)}
    assert {(20, 130, 60), (190, 30, 40)} <= colours


def test_the_judge_of_the_storybook_tells_right_colours_from_wrong_ones():
    world = Storybook(Judge())
    cases = [case for case in world.draw_cases("colours", 2, 0)]
    scenes = [case.scene for case in cases]
    right = world.read([world.picture(scene) for scene in scenes])
    wrong = world.read([world.picture(recoloured(scene)) for scene in scenes])
    assert [world.draw_is_right(*pair) for pair in zip(cases, right, strict=True)] == [True] * 2
    assert [world.draw_is_right(*pair) for pair in zip(cases, wrong, strict=True)] == [False] * 2


def test_a_round_trip_through_the_tokenizer_keeps_the_size_of_the_model():
    (rebuilt,) = round_trip(drawing_engine())([BLANK])
    assert rebuilt.size == (32, 32)


def test_the_command_writes_report_table_and_sheets(home, monkeypatch, world, capsys):
    judge = Mock(return_value=world)
    judge.of_side.return_value = world
    monkeypatch.setattr("data_recipes.storybook.judging.judge.Judge", judge)
    monkeypatch.setattr(opening, "open_engine", lambda model, device: drawing_engine())
    arguments = ["--n", "2", "--categories", "single_object,edit", "--out", "a/report.json", "--markdown", "a/table.md"]
    with pytest.raises(SystemExit) as left:
        cli.app(["evaluate", "storybook", *arguments, "--pictures", "sheets"])
    assert left.value.code == 0
    written = json.loads((home / "a/report.json").read_text())
    assert written["model_hash"] == "0123abcd"
    row = written["rows"][0]
    assert (row["name"], row["value"], row["beside"]["drawn"]["value"]) == ("single_object", 0.0, 1.0)
    assert (home / "a/table.md").read_text().startswith("| task |")
    assert sorted(path.name for path in (home / "sheets").iterdir()) == ["edit.png", "single_object.png"]
    assert "single_object" in capsys.readouterr().out
