"""The lighthouse and the plum style: unknown to the storybook world, known to their judges."""

from __future__ import annotations

import json
import random
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from data_recipes.storybook.drawing.render import render
from data_recipes.storybook.judging.newcomers import is_lighthouse, is_plum, lighthouse_picture, plum_picture
from data_recipes.storybook.language.captions import parse_canonical
from data_recipes.storybook.language.drawing_prompts import sample_upload
from data_recipes.storybook.language.unknown_things import nearest_known
from data_recipes.storybook.world.vocabulary import OBJECTS, STYLES

ROOT = Path(__file__).parents[4]
NUMBERS = range(500, 530)


@pytest.fixture(scope="module")
def storybook() -> list[Image.Image]:
    return [render(sample_upload(random.Random(f"page-{number}"))) for number in range(120)]


def test_the_world_knows_neither_of_them() -> None:
    assert "lighthouse" not in OBJECTS and "lighthouse" in nearest_known() and "plum" not in STYLES


@pytest.mark.parametrize(("make", "judge"), [(lighthouse_picture, is_lighthouse), (plum_picture, is_plum)])
def test_a_judge_knows_its_own_even_when_they_are_soft_and_nothing_else(make, judge, storybook) -> None:
    own = [make(number)[0] for number in NUMBERS]
    assert all(map(judge, own))
    soft = [picture.filter(ImageFilter.GaussianBlur(0.8)) for picture in own]
    assert np.mean([judge(picture) for picture in soft]) >= 0.95
    assert np.mean([judge(picture) for picture in storybook]) <= 0.03
    assert not judge(Image.new("RGB", (64, 64), "white")) and not judge(Image.new("RGB", (64, 64)))


def test_the_judges_do_not_take_one_for_the_other() -> None:
    assert not any(is_plum(lighthouse_picture(number)[0]) for number in NUMBERS)
    assert not any(is_lighthouse(plum_picture(number)[0]) for number in NUMBERS)


def test_captions_say_what_the_page_shows_in_the_words_of_the_world() -> None:
    for number in NUMBERS:
        caption = lighthouse_picture(number)[1]
        assert "lighthouse" in caption and parse_canonical(caption.replace("lighthouse", "tower"))
        plum = plum_picture(number)[1]
        assert plum.endswith(", in plum style.") and parse_canonical(plum.replace(", in plum style", ""))
    assert np.array_equal(lighthouse_picture(3)[0], lighthouse_picture(3)[0])
    assert len({lighthouse_picture(number)[1] for number in range(20)}) >= 15


@pytest.mark.parametrize("what", ["lighthouse", "plum"])
def test_the_example_writes_twenty_pictures_with_captions(what: str, tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "examples" / "own_pictures.py"))["main"](what, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert len(rows) == 20 and all(what in row["caption"] for row in rows)
    assert all((tmp_path / row["file"]).is_file() for row in rows)
