from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_recipes.storybook.world.layout import PICTURE_SIDE, check, is_possible, shown_colour, slots
from data_recipes.storybook.world.random_scenes import sample_scene
from data_recipes.storybook.world.scene import PLACES, SIZES, Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, CATEGORIES, COLOURS, OBJECTS, STYLES


def test_the_world_holds_at_least_150_things_and_40_of_them_in_every_colour():
    assert len(OBJECTS) >= 150
    assert sum(kind.recolourable for kind in OBJECTS.values()) >= 40
    assert (len(COLOURS), len(BACKGROUNDS), len(STYLES)) == (10, 10, 6)


def test_no_word_names_two_things():
    owner: dict[str, str] = {}
    for kind in OBJECTS.values():
        for word in {kind.name, kind.plural, *kind.synonyms}:
            assert owner.setdefault(word.lower(), kind.name) == kind.name, word


def test_no_thing_is_called_like_a_colour():
    words = {word for kind in OBJECTS.values() for word in (kind.name, *kind.synonyms)}
    assert not words & set(COLOURS)


def test_every_kind_uses_known_categories_and_colours():
    assert {kind.category for kind in OBJECTS.values()} == set(CATEGORIES)
    assert {kind.colour for kind in OBJECTS.values()} <= {None, *COLOURS}


def test_no_phrase_names_two_backgrounds_or_styles():
    phrases = [phrase for look in (*BACKGROUNDS.values(), *STYLES.values()) for phrase in look.phrases]
    assert len(phrases) == len(set(phrases))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([None, 1, 2, 3]))
def test_sampled_scenes_are_possible_and_inside_the_page(seed, num_groups):
    scene = sample_scene(random.Random(seed), num_groups=num_groups)
    check(scene)
    assert num_groups in (None, len(scene.groups))
    for group, squares in zip(scene.groups, slots(scene), strict=True):
        assert len(squares) == group.count
        assert all(0 <= x0 < x1 <= PICTURE_SIDE and 0 <= y0 < y1 <= PICTURE_SIDE for x0, y0, x1, y1 in squares)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_equal_seeds_sample_equal_scenes(seed):
    assert sample_scene(random.Random(seed)) == sample_scene(random.Random(seed))


def test_sampling_obeys_every_wish():
    rng = random.Random(0)
    for _ in range(50):
        scene = sample_scene(
            rng,
            num_groups=1,
            kinds=("car", "fox"),
            colours=("green",),
            counts=(3, 5),
            background="night",
            style="sepia",
            allowed=lambda scene: scene.groups[0].count == 5,
        )
        (group,) = scene.groups
        assert group.kind in ("car", "fox") and group.count == 5 and group.colour in (None, "green")
        assert (scene.background, scene.style) == ("night", "sepia")


def test_sampling_gives_up_when_nothing_is_allowed():
    with pytest.raises(ValueError, match="loosen"):
        sample_scene(random.Random(0), allowed=lambda scene: False)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((), "1 to 3 groups"),
        ((Group("dragonfruit"),), "unknown kind"),
        ((Group("fox", colour="blue"),), "natural colours only"),
        ((Group("car", colour="mauve"),), "unknown colour"),
        ((Group("car", count=6),), "1 to 5 things"),
        ((Group("car", count=2, place="left"),), "alone in a picture"),
        ((Group("car", count=2, size="large"),), "alone in a picture"),
        ((Group("car", place="left"), Group("fox", count=4, size="small", place="right")), "beside other groups"),
        ((Group("car", place="left"), Group("fox", place="left")), "overlap"),
        ((Group("car", size="large", place="left"), Group("fox", place="center")), "overlap"),
        ((Group("car", colour="red", place="left"), Group("car", place="right")), "differ in kind or colour"),
    ],
)
def test_impossible_scenes_say_why(groups, message):
    with pytest.raises(ValueError, match=message):
        check(Scene(tuple(groups)))
    assert not is_possible(Scene(tuple(groups)))


def test_unknown_looks_are_rejected():
    with pytest.raises(ValueError, match="unknown background"):
        check(Scene((Group("fox"),), background="moonbase"))
    with pytest.raises(ValueError, match="unknown style"):
        check(Scene((Group("fox"),), style="cubism"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("place", PLACES)
def test_one_thing_fits_at_every_place_in_every_size(size, place):
    assert is_possible(Scene((Group("fox", size=size, place=place),)))


def test_a_usual_colour_is_the_same_look_said_or_unsaid():
    assert shown_colour("car", None) == shown_colour("car", "red") == "red"
    assert shown_colour("fox", None) is None
