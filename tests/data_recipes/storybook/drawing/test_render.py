from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_recipes.storybook.drawing import atlas
from data_recipes.storybook.drawing.backgrounds import background
from data_recipes.storybook.drawing.render import boxes, paint, render
from data_recipes.storybook.drawing.shapes import OUTLINES
from data_recipes.storybook.drawing.styles import apply_style
from data_recipes.storybook.world.random_scenes import sample_scene
from data_recipes.storybook.world.scene import Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES

RECOLOURABLE = [kind.name for kind in OBJECTS.values() if kind.recolourable]


def test_the_atlas_is_small_and_matches_the_vocabulary():
    assert atlas.ATLAS_PATH.stat().st_size < 1_500_000
    assert list(atlas.names()) == [kind.name for kind in OBJECTS.values() if kind.glyph]
    assert set(OUTLINES) == {kind.name for kind in OBJECTS.values() if not kind.glyph}
    for name in atlas.names():
        assert max(atlas.drawing(name).size) >= 60, name


def test_a_thing_without_a_drawing_is_refused():
    with pytest.raises(ValueError, match="build_atlas"):
        atlas.drawing("circle")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([64, 96, 128]))
def test_boxes_hold_exactly_the_painted_pixels(seed, resolution):
    scene = sample_scene(random.Random(seed))
    changed = (paint(scene, resolution) != (background(scene.background, resolution) + 0.5).astype(np.uint8)).any(-1)
    outside = changed.copy()
    for things in boxes(scene, resolution):
        for x0, y0, x1, y1 in things:
            assert 0 <= x0 < x1 <= resolution and 0 <= y0 < y1 <= resolution
            assert changed[y0:y1, x0:x1].mean() > 0.15
            outside[y0:y1, x0:x1] = False
    assert not outside.any()


@pytest.mark.parametrize(("size", "side"), [("small", 16), ("medium", 24), ("large", 32)])
def test_every_thing_fills_its_size(size, side):
    for name in OBJECTS:
        ((x0, y0, x1, y1),) = boxes(Scene((Group(name, size=size),)))[0]
        assert max(x1 - x0, y1 - y0) == side, name


def test_equal_scenes_give_equal_pixels():
    for seed in range(20):
        scene = sample_scene(random.Random(seed))
        assert render(scene).tobytes() == render(scene).tobytes()


def test_every_style_changes_the_page_and_no_two_agree():
    page = paint(Scene((Group("car", colour="green"),), "meadow"))
    pictures = {style: apply_style(style, page).astype(int) for style in STYLES}
    for style, picture in pictures.items():
        assert picture.shape == (64, 64, 3)
        for other in STYLES:
            assert style == other or np.abs(picture - pictures[other]).mean() > 4, (style, other)


def test_no_two_backgrounds_look_alike():
    pages = [background(name, 64) for name in BACKGROUNDS]
    for i, page in enumerate(pages):
        assert all(np.abs(page - other).mean() > 8 for other in pages[:i])


@pytest.mark.parametrize("kind", RECOLOURABLE)
def test_every_colour_of_a_recolourable_thing_can_be_told_from_the_others(kind):
    pages = {colour: paint(Scene((Group(kind, colour=colour, size="large"),))).astype(int) for colour in COLOURS}
    for colour, page in pages.items():
        for other in COLOURS:
            if other < colour:
                assert (np.abs(page - pages[other]).sum(-1) > 60).sum() > 30, (colour, other)


def test_the_usual_colour_is_the_natural_look():
    assert render(Scene((Group("car"),))).tobytes() == render(Scene((Group("car", colour="red"),))).tobytes()


def test_an_impossible_scene_and_an_odd_resolution_are_refused():
    with pytest.raises(ValueError, match="overlap"):
        render(Scene((Group("car", place="left"), Group("fox", place="left"))))
    with pytest.raises(ValueError, match="multiple of 32"):
        render(Scene((Group("car"),)), resolution=50)
