"""Random scenes that can be drawn: pictures for training tokenizers and testing the judge."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from data_recipes.storybook.world.layout import is_possible
from data_recipes.storybook.world.scene import PLACES, SIZES, Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES

NUM_GROUPS_ODDS = (0.55, 0.35, 0.10)
COLOUR_RATE = 0.65  # how often a recolourable kind gets an explicit colour
PLAIN_RATE = 0.25
USUAL_STYLE_RATE = 0.6
ALONE_COUNT_ODDS = (0.55, 0.14, 0.12, 0.10, 0.09)
STACK_RATE = 0.15  # how often a group beside others has more than one thing
_STACK_PLACES = ("left", "right", "top", "bottom")
_MAX_TRIES = 10_000


def sample_scene(
    rng: random.Random,
    *,
    num_groups: int | None = None,
    kinds: Sequence[str] | None = None,
    colours: Sequence[str] | None = None,
    counts: Sequence[int] | None = None,
    background: str | None = None,
    style: str | None = None,
    allowed: Callable[[Scene], bool] | None = None,
) -> Scene:
    """A possible scene; what is not given is drawn at random.

    Args:
        rng: the only source of randomness.
        num_groups: 1 to 3.
        kinds: names to choose from, all by default.
        colours: names to choose explicit colours from, all by default.
        counts: allowed counts of a group that is alone, 1 to 5 by default; beside others a group has 1 to 3 things.
        background: a name in world.BACKGROUNDS.
        style: a name in world.STYLES.
        allowed: returns False for scenes to reject, for instance held-out combinations.

    Raises:
        ValueError: no scene was found that fits everything asked for.
    """
    for _ in range(_MAX_TRIES):
        number = num_groups or rng.choices((1, 2, 3), NUM_GROUPS_ODDS)[0]
        groups = tuple(_sample_group(rng, number, kinds, colours, counts) for _ in range(number))
        scene = Scene(groups, background or _sample_background(rng), style or _sample_style(rng))
        if is_possible(scene) and (allowed is None or allowed(scene)):
            return scene
    raise ValueError(
        f"no possible scene in {_MAX_TRIES} tries with num_groups={num_groups}, kinds={kinds}, colours={colours}, "
        f"counts={counts}, background={background}, style={style}; loosen one of them or `allowed`"
    )


def sample_colour(rng: random.Random, kind: str, colours: Sequence[str] | None = None) -> str | None:
    """An explicit colour for a recolourable kind, mostly; None otherwise."""
    if not OBJECTS[kind].recolourable or rng.random() >= COLOUR_RATE:
        return None
    return rng.choice(tuple(colours or COLOURS))


def _sample_group(
    rng: random.Random,
    number: int,
    kinds: Sequence[str] | None,
    colours: Sequence[str] | None,
    counts: Sequence[int] | None,
) -> Group:
    kind = rng.choice(kinds if kinds is not None else _ALL_KINDS)
    colour = sample_colour(rng, kind, colours)
    if number == 1:
        count = rng.choice(counts) if counts else rng.choices((1, 2, 3, 4, 5), ALONE_COUNT_ODDS)[0]
        if count > 1:
            return Group(kind, count, colour, rng.choice(SIZES[:2]), "center")
    elif rng.random() < STACK_RATE:
        return Group(kind, rng.choice((2, 3)), colour, "small", rng.choice(_STACK_PLACES))
    return Group(kind, 1, colour, rng.choice(SIZES), rng.choice(PLACES))


def _sample_background(rng: random.Random) -> str:
    return "plain" if rng.random() < PLAIN_RATE else rng.choice(tuple(BACKGROUNDS))


def _sample_style(rng: random.Random) -> str:
    return "storybook" if rng.random() < USUAL_STYLE_RATE else rng.choice(tuple(STYLES))


_ALL_KINDS = tuple(OBJECTS)
