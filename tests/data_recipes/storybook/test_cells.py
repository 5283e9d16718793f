"""What stands in each cell of a page."""

from __future__ import annotations

import random

import numpy as np
import pytest

from data_recipes.storybook.cells import CLASSES, WORDS, cell_labels
from data_recipes.storybook.language.drawing_prompts import sample_upload
from data_recipes.storybook.world.scene import Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES


def test_cells_say_what_is_painted_there_and_nothing_elsewhere() -> None:
    scene = Scene(
        (Group("car", 1, "blue", "large", "bottom right"), Group("fox", 1, None, "small", "top left")), "night"
    )
    labels = cell_labels(scene)
    kinds = {0: "nothing"} | {number: name for number, name in enumerate(OBJECTS, start=1)}
    seen = np.vectorize(kinds.get)(labels["kind"])
    assert set(seen[4:, 4:].flat) >= {"car"}
    assert set(seen[:4, :4].flat) == {"fox", "nothing"}
    assert set(seen[:4, 4:].flat) == set(seen[4:, :4].flat) == {"nothing"}
    car = seen == "car"
    assert set(labels["colour"][car]) == {1 + list(COLOURS).index("blue")}
    assert set(labels["size"][car]) == {3}
    assert set(labels["count"][car]) == {1}
    assert set(labels["colour"][seen != "car"]) == {0}
    assert set(labels["background"].flat) == {list(BACKGROUNDS).index("night")}
    assert set(labels["style"].flat) == {list(STYLES).index("storybook")}


def test_the_count_of_a_group_stands_in_the_cells_of_each_of_its_things() -> None:
    labels = cell_labels(Scene((Group("star", 4, "yellow", "medium"),)))
    assert set(labels["count"][labels["kind"] > 0]) == {4}
    assert (labels["kind"][:4, :4] > 0).any() and (labels["kind"][4:, 4:] > 0).any()


def test_no_class_is_beyond_those_announced() -> None:
    for seed in range(50):
        labels = cell_labels(sample_upload(random.Random(seed)))
        assert set(labels) == set(CLASSES)
        for name, numbers in labels.items():
            assert 0 <= numbers.min() and numbers.max() < CLASSES[name]
        assert (labels["kind"] > 0).any()


def test_cells_must_fill_the_page() -> None:
    with pytest.raises(ValueError, match="7 x 7"):
        cell_labels(Scene((Group("fox"),)), cells=7)


def test_every_class_has_its_word_or_none() -> None:
    assert {name: len(words) for name, words in WORDS.items()} == CLASSES
    scene = Scene((Group("fox", count=3, size="small"),), background="night", style="sepia")
    cell = {name: max(numbers.flat) for name, numbers in cell_labels(scene).items()}
    assert [WORDS[name][cell[name]] for name in WORDS] == ["fox", None, "small", "three", "night", "in sepia"]
