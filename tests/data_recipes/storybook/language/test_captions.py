"""The canonical sentence determines the page, and every word of the world can be said and read."""

from __future__ import annotations

import random

import pytest

from data_recipes.storybook.language.captions import canonical, free, in_reading_order, long, parse_canonical, short
from data_recipes.storybook.language.drawing_prompts import KINDS
from data_recipes.storybook.world.random_scenes import sample_scene
from data_recipes.storybook.world.scene import PLACES, Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES

EXAMPLE = Scene((Group("car", 1, "red", "small", "left"), Group("pine tree", place="right")), "night", "pixel art")


def test_the_canonical_caption_reads_like_the_example() -> None:
    assert canonical(EXAMPLE) == (
        "A small red car on the left and a pine tree on the right, at night, in pixel art style."
    )


def test_defaults_are_not_said() -> None:
    assert canonical(Scene((Group("fox"),))) == "A fox in the center."


def test_parsing_undoes_the_canonical_caption_for_random_pages() -> None:
    rng = random.Random(0)
    scenes = [sample_scene(rng) for _ in range(1500)]
    assert [parse_canonical(canonical(scene)) for scene in scenes] == scenes
    assert len({canonical(scene) for scene in scenes}) == len(set(scenes))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_kind_and_colour_is_read_back(count: int) -> None:
    for kind in KINDS:
        colours = [None, *COLOURS] if OBJECTS[kind].recolourable else [None]
        for colour in colours:
            scene = Scene((Group(kind, count, colour),))
            assert parse_canonical(canonical(scene)) == scene


def test_every_look_and_place_is_read_back() -> None:
    for background in BACKGROUNDS:
        for style in STYLES:
            for place in PLACES:
                scene = Scene((Group("cat", place=place),), background, style)
                assert parse_canonical(canonical(scene)) == scene


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A fox.",
        "A fox in the center",
        "Two fox in the center.",
        "A wolf in the center.",
        "A fox on the left, on Mars.",
    ],
)
def test_a_sentence_that_is_not_canonical_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="caption|canonical|known|agree"):
        parse_canonical(text)


def test_the_reading_order_goes_from_top_left_to_bottom_right() -> None:
    scene = Scene((Group("fox", place="bottom"), Group("cat", place="top left")))
    assert [group.kind for group in in_reading_order(scene).groups] == ["cat", "fox"]


def test_looser_captions_name_every_thing() -> None:
    rng = random.Random(1)
    for _ in range(200):
        scene = sample_scene(rng)
        for text in (short(scene), long(scene), free(rng, scene)):
            for group in scene.groups:
                word = OBJECTS[group.kind].name if group.count == 1 else OBJECTS[group.kind].plural
                assert word in text
