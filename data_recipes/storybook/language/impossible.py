"""Edits that cannot be made: the thing is absent, cannot be recoloured, or has its largest or smallest size already."""

from __future__ import annotations

import random

from data_recipes.storybook.language.drawing_prompts import COLOUR_NAMES, KINDS
from data_recipes.storybook.language.edits import FAMILIES, TO_PLACE
from data_recipes.storybook.language.questions import all_groups_of, kinds_of
from data_recipes.storybook.language.wording import (
    USER_PLACES,
    article,
    be,
    capitalised,
    definite,
    noun,
    pronoun,
    rough,
)
from data_recipes.storybook.splits import Split
from data_recipes.storybook.world.scene import PLACES, Scene
from data_recipes.storybook.world.vocabulary import OBJECTS


def impossible_edit(rng: random.Random, scene: Scene, split: Split = "train") -> tuple[str, str]:
    """An instruction that this picture cannot follow, and the honest reply."""
    makers = (_wrong_colour, _at_the_limit, _absent)
    first = rng.randrange(3)
    for maker in (*makers[first:], _absent):
        made = maker(rng, scene, split)
        if made is not None:
            return rough(rng, made[0]), made[1]
    raise AssertionError("there is always something that is not in the picture")


def _absent(rng: random.Random, scene: Scene, split: Split) -> tuple[str, str] | None:
    """Half of the time a near thing, of the category of one that is there."""
    category = OBJECTS[rng.choice(scene.groups).kind].category
    kinds = kinds_of(category) if rng.random() < 0.5 else KINDS
    kind = rng.choice([kind for kind in kinds if not all_groups_of(scene, kind)] or ["unicorn"])
    place = rng.choice(PLACES)
    family = rng.choice(("remove", "recolour", "bigger", "smaller", "move"))
    slots = {
        "colour": rng.choice(COLOUR_NAMES),
        "to": rng.choice(TO_PLACE[place]),
        "where": rng.choice(USER_PLACES[place]),
    }
    text = FAMILIES[family].choose(rng, split).format(the=f"the {kind}", bare=kind, **slots)
    return text, f"There is no {kind} in the picture."


def _wrong_colour(rng: random.Random, scene: Scene, split: Split) -> tuple[str, str] | None:
    fixed = [group for group in scene.groups if not OBJECTS[group.kind].recolourable]
    if not fixed:
        return None
    group = rng.choice(fixed)
    colour = rng.choice([colour for colour in COLOUR_NAMES if colour != OBJECTS[group.kind].colour])
    if OBJECTS[group.kind].colour is None:
        colour = "purple"  # surely not the natural look of a thing of many colours
    words = f"{article(colour)} {colour} {group.kind}" if group.count == 1 else f"{colour} {noun(group.kind, 2)}"
    text = FAMILIES["recolour"].choose(rng, split).format(the=definite(scene, group), colour=colour)
    return text, f"I can't draw {words}."


def _at_the_limit(rng: random.Random, scene: Scene, split: Split) -> tuple[str, str] | None:
    extreme = [group for group in scene.groups if group.count == 1 and group.size != "medium"]
    if not extreme:
        return None
    group = rng.choice(extreme)
    family, word = ("bigger", "big") if group.size == "large" else ("smaller", "small")
    the = definite(scene, group)
    pointed = pronoun(group) if len(scene.groups) == 1 and rng.random() < 0.4 else the
    text = FAMILIES[family].choose(rng, split).format(the=pointed)
    return text, f"{capitalised(the)} {be(1)} as {word} as it can be."
