"""Rewards before and after: equal prompts and seeds, compared prompt by prompt, and gone on with after a stop."""

from __future__ import annotations

import pytest
import torch

from data_recipes.storybook.judging.cases import DRAW_PROMPTS
from training.preferences import win_rate
from training.preferences.prefer import Wanted
from training.preferences.win_rate import RewardFile, by_kind, compared, held_out_prompts, main, markdown, rewards
from vargpt.chat.engine import ChatEngine
from vargpt.loading.models import save
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import ImageSampling, Message


def brightness(prompts, images, **columns) -> list[float]:
    """Different for nearly every picture."""
    return [sum(image.convert("L").tobytes()) / 1e6 for image in images]


def test_differences_are_taken_prompt_by_prompt() -> None:
    row = compared("all", [0.0, 0.5, 1.0, 0.2], [0.5, 0.5, 0.9, 0.4])
    assert (row.before, row.after) == pytest.approx((0.425, 0.575))
    assert row.difference.value == pytest.approx(0.15) and row.difference.n == 4
    assert (row.better, row.worse) == (2, 1)
    assert row.wins is not None and row.wins.value == pytest.approx(2 / 3) and row.wins.n == 3


def test_models_that_draw_alike_have_no_win_rate() -> None:
    row = compared("all", [0.5, 0.5], [0.5, 0.5])
    assert row.wins is None and (row.difference.low, row.difference.high) == (0, 0)
    assert "| — |" in markdown("x", [row])


def test_held_out_prompts_take_the_categories_in_turn_and_a_longer_list_begins_alike() -> None:
    few, many = held_out_prompts(11), held_out_prompts(40)
    assert [one.prompt for one in few] == [one.prompt for one in many[:11]]
    assert [one.columns["case"].category for one in many[:8]] == list(DRAW_PROMPTS)
    assert len({one.prompt for one in many}) > 30
    with pytest.raises(ValueError, match="at least 1"):
        held_out_prompts(0)


def test_rows_are_of_all_prompts_and_of_each_category() -> None:
    wanted = held_out_prompts(16)
    rows = by_kind(wanted, [0.0] * 16, [float(number % 8 == 2) for number in range(16)])
    assert [row.kind for row in rows] == ["all", *DRAW_PROMPTS]
    assert {row.kind for row in rows if row.after > 0} == {"all", "counting"}
    plain = [Wanted((Message.of("user", "a cat"),))]
    assert [row.kind for row in by_kind(plain, [0.0], [1.0])] == ["all"]


def test_a_comparison_that_was_killed_goes_on_with_the_same_pictures(tmp_path) -> None:
    engine = ChatEngine(tiny_model(), tiny_processor())
    wanted, drawn = held_out_prompts(5), ImageSampling(temperature=1.0, guidance_scale=1.0)
    whole = list(rewards(engine, wanted, brightness, 2, 7, drawn))
    assert len(set(whole)) == 5, "a reward of random pictures tells them apart"
    about = {"reward": "brightness"}
    file = RewardFile(tmp_path / "deep" / "x.txt", about)
    for value in rewards(engine, wanted[:2], brightness, 2, 7, drawn):
        file.add(value)
    with file.path.open("a", encoding="utf-8") as half:
        half.write("0.1234")
    again = RewardFile(file.path, about)
    assert again.values == whole[:2]
    for value in rewards(engine, wanted[2:], brightness, 2, 7 + 2 * 2, drawn):
        again.add(value)
    assert RewardFile(file.path, about).values == pytest.approx(whole)
    with pytest.raises(ValueError, match="another --out"):
        RewardFile(file.path, {"reward": "darkness"})


def test_the_command_compares_model_folders_and_keeps_what_it_drew(tmp_path, monkeypatch, capsys) -> None:
    for number in (0, 1):
        torch.manual_seed(number)
        save(tiny_model(), tiny_processor(), tmp_path / f"model_{number}")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\n")
    monkeypatch.setattr(win_rate, "reward_named", lambda name: brightness)
    order = [str(tmp_path / "model_0"), str(tmp_path / "model_1"), "--prompts", str(prompts), "--reward", "clip:x"]
    main([*order, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "model_1 | prompts |" in printed and "| all | 2 |" in printed
    monkeypatch.setattr(win_rate, "rewards", None)  # nothing is drawn again
    main([*order, "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (["x", "--storybook", "3"], "two models"),
        (["x", "y", "--storybook", "3"], "config.json and model.safetensors"),
        (["x", "y", "--storybook", "0"], "at least 1"),
        (["x", "y"], "one of --storybook and --prompts"),
        (["x", "y", "--storybook", "2", "--prompts", "no.txt"], "one of --storybook and --prompts"),
        (["x", "y", "--prompts", "no.txt", "--reward", "clip:x"], "no.txt"),
        (["x", "y", "--prompts", "no.txt"], "only the requests"),
        (["x", "y", "--prompts", "no.txt", "--reward", "storybook"], "only the requests"),
    ],
)
def test_what_does_not_fit_is_said_at_once(order, said, capsys) -> None:
    with pytest.raises(SystemExit):
        main(order)
    assert said in capsys.readouterr().err
