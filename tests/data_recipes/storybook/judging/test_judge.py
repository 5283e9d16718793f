from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from data_recipes.storybook.drawing.render import boxes, render
from data_recipes.storybook.judging.judge import Judge
from data_recipes.storybook.judging.reading import (
    ASPECTS,
    Expectation,
    ExpectedThing,
    Reading,
    Thing,
    aspects,
)
from data_recipes.storybook.world.random_scenes import sample_scene
from data_recipes.storybook.world.scene import Group, Scene

PAIR = Scene((Group("car", colour="green", place="left"), Group("fox", place="right")), "meadow")


def all_right(reading: Reading, scene: Scene) -> bool:
    return all(aspects(reading, scene).values())


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def empty(scene: Scene) -> np.ndarray:
    """The page of the scene's background, from a scene whose one thing stands elsewhere."""
    place = "top left" if scene.groups[0].place != "top left" else "bottom right"
    other = Scene((Group("key", size="small", place=place),), scene.background, scene.style)
    page = np.asarray(render(other)).copy()
    ((x0, y0, x1, y1),) = boxes(other)[0]
    bare = np.asarray(render(Scene((Group("key", size="small", place="bottom"),), scene.background, scene.style)))
    page[y0:y1, x0:x1] = bare[y0:y1, x0:x1]
    return page


def test_the_judge_reads_what_was_drawn(judge):
    rng = random.Random(1)
    scenes = [sample_scene(rng, style="storybook") for _ in range(25)]
    readings = judge.detect([render(scene) for scene in scenes])
    right = sum(all_right(reading, scene) for reading, scene in zip(readings, scenes, strict=True))
    assert right >= 24


@pytest.mark.parametrize("style", ["pixel art", "sepia"])
def test_the_judge_reads_through_styles(judge, style):
    rng = random.Random(2)
    scenes = [sample_scene(rng, style=style, background="beach") for _ in range(6)]
    readings = judge.detect([render(scene) for scene in scenes])
    assert sum(all_right(reading, scene) for reading, scene in zip(readings, scenes, strict=True)) >= 5


def test_the_judge_reads_soft_noisy_pictures(judge):
    rng, noise = random.Random(3), np.random.default_rng(0)
    right = 0
    for _ in range(12):
        scene = sample_scene(rng, style="storybook", background="forest")
        soft = np.asarray(render(scene).filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float32)
        soft = soft * (1 + noise.uniform(-0.05, 0.05, 3)) + noise.normal(0, 6, soft.shape)
        right += all_right(judge.detect([Image.fromarray(soft.clip(0, 255).astype(np.uint8))])[0], scene)
    assert right >= 11


def test_a_thing_a_few_pixels_off_is_still_read(judge):
    scene = Scene((Group("fox", place="left"),), "plain")
    moved = np.roll(np.asarray(render(scene)), (3, 2), axis=(0, 1))
    (thing,) = judge.detect([Image.fromarray(moved)])[0].things
    assert (thing.kind, thing.size, thing.place, thing.center) == ("fox", "medium", "left", (18.0, 35.0))


def test_an_empty_page_holds_nothing(judge):
    for name in ("plain", "city", "night"):
        reading = judge.detect([Image.fromarray(empty(Scene((Group("fox"),), name)))])[0]
        assert (reading.things, reading.background, reading.style) == ((), name, "storybook")


@pytest.mark.parametrize("kind", ["fox", "car", "castle"])
def test_half_a_thing_or_its_blob_is_not_the_thing(judge, kind):
    scene = Scene((Group(kind, size="large"),), "meadow")
    page, bare = np.asarray(render(scene)), empty(scene)
    ((x0, y0, x1, y1),) = boxes(scene)[0]
    half, blob = page.copy(), page.copy()
    half[y0:y1, (x0 + x1) // 2 : x1] = bare[y0:y1, (x0 + x1) // 2 : x1]
    blob[(page != bare).any(-1)] = page[y0:y1, x0:x1].reshape(-1, 3).mean(0).astype(np.uint8)
    for spoiled in (half, blob):
        things = judge.detect([Image.fromarray(spoiled)])[0].things
        assert kind not in [thing.kind for thing in things]


def test_noise_is_no_page(judge):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert judge.detect([Image.fromarray(noise)])[0] == Reading((), None, None)


def test_large_pages_are_read_and_other_sizes_refused():
    reading = Judge(resolution=128).detect([render(PAIR, 128)])[0]
    assert all_right(reading, PAIR)
    with pytest.raises(ValueError, match="resize first"):
        Judge(resolution=128).detect([render(PAIR)])
    with pytest.raises(ValueError, match="multiple of 64"):
        Judge(resolution=100)


def test_each_aspect_fails_for_its_own_reason():
    reading = Reading(
        (Thing("car", "green", "medium", (16.0, 32.0), 1.0), Thing("fox", None, "medium", (48.0, 32.0), 1.0)),
        "meadow",
        "storybook",
    )
    assert aspects(reading, PAIR) == dict.fromkeys(ASPECTS, True)
    expectations = {
        "kinds": Expectation((ExpectedThing("dog"),)),
        "counts": Expectation((ExpectedThing("fox", count=2),)),
        "colours": Expectation((ExpectedThing("car", colour="red"),)),
        "places": Expectation((ExpectedThing("car", place="top"),)),
        "sizes": Expectation((ExpectedThing("car", size="large"),)),
        "relations": Expectation((ExpectedThing("fox"), ExpectedThing("car")), ((0, "left of", 1),)),
        "nothing else": Expectation((ExpectedThing("car"),), nothing_else=True),
        "background": Expectation(background="sea"),
        "style": Expectation(style="sepia"),
    }
    for aspect, expected in expectations.items():
        assert not aspects(reading, expected)[aspect]
        seen = aspects(reading, expected)
        allowed = {"kinds": {"colours"}}.get(aspect, set())  # what is not there has no colour either
        assert {name for name, holds in seen.items() if not holds} <= {aspect} | allowed


def test_colours_do_not_matter_where_they_cannot_be_seen():
    reading = Reading((Thing("car", "purple", "medium", (32.0, 32.0), 1.0),), "plain", "sepia")
    assert all_right(reading, Scene((Group("car", colour="green"),), "plain", "sepia"))


def test_unknown_relations_are_refused():
    reading = Reading((Thing("fox", None, "medium", (32.0, 32.0), 1.0),), "plain", "storybook")
    with pytest.raises(ValueError, match="unknown relation"):
        aspects(reading, Expectation((ExpectedThing("fox"),), ((0, "near", 0),)))
