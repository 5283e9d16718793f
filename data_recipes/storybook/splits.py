"""The train and held-out splits: which pairs, colours, backgrounds and wordings training never sees.

Every decision is a hash of names, so that it is the same on every machine and does not move when the vocabulary grows.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations
from typing import Literal

from data_recipes.storybook.world.scene import Scene
from data_recipes.storybook.world.vocabulary import OBJECTS

Split = Literal["train", "heldout"]
PAIR_SHARE, COLOUR_SHARE, BACKGROUND_SHARE, WORD_SHARE = 0.03, 0.04, 0.02, 0.12
PHRASE_PERIOD = 8  # one template in eight is held out: about 12 %


@cache
def hash_share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return (zlib.crc32(text.encode()) * 2654435761 % 2**32) / 2**32


@cache
def pair_is_held_out(kind: str, other: str) -> bool:
    """True for 3 % of the unordered pairs of different kinds."""
    first, second = sorted((kind, other))
    return first != second and hash_share(f"pair|{first}|{second}") < PAIR_SHARE


@cache
def colour_is_held_out(colour: str | None, kind: str) -> bool:
    """True for 4 % of (colour, kind); never for a kind's usual colour, which an unsaid colour stands for."""
    if colour is None or colour == OBJECTS[kind].colour:
        return False
    return hash_share(f"colour|{colour}|{kind}") < COLOUR_SHARE


@cache
def background_is_held_out(background: str, kind: str) -> bool:
    """True for 2 % of (background, kind); never for the plain picture."""
    return background != "plain" and hash_share(f"background|{background}|{kind}") < BACKGROUND_SHARE


def word_is_held_out(family: str, word: str) -> bool:
    """True for 12 % of the words of a list, such as the things that cannot be drawn."""
    return hash_share(f"word|{family}|{word}") < WORD_SHARE


def held_out_parts(scene: Scene) -> tuple[str, ...]:
    """Which of "pair", "colour" and "background" this scene holds that training never sees."""
    groups = scene.groups
    parts = []
    if any(pair_is_held_out(a.kind, b.kind) for a, b in combinations(groups, 2)):
        parts.append("pair")
    if any(colour_is_held_out(group.colour, group.kind) for group in groups):
        parts.append("colour")
    if any(background_is_held_out(scene.background, group.kind) for group in groups):
        parts.append("background")
    return tuple(parts)


def is_held_out(scene: Scene) -> bool:
    """True if training must not show this scene."""
    return bool(held_out_parts(scene))


def may_show(scene: Scene, split: Split) -> bool:
    """Held-out evaluation may show everything, training all but the held-out combinations."""
    return split == "heldout" or not is_held_out(scene)


@dataclass(frozen=True)
class Phrases:
    """A family of templates, commonest first; every eighth one (at least one in four) is never used in training."""

    family: str
    templates: Sequence[str]

    @cached_property
    def held_out(self) -> tuple[str, ...]:
        if len(self.templates) < 4:
            return ()
        if len(self.templates) < 6:
            return (self.templates[-1],)
        return tuple(t for i, t in enumerate(self.templates) if i % PHRASE_PERIOD == 5)

    @cached_property
    def training(self) -> tuple[str, ...]:
        held_out = set(self.held_out)
        return tuple(t for t in self.templates if t not in held_out)

    def choose(self, rng: random.Random, split: Split = "train") -> str:
        """A training template; in the held-out split, half of the time one that training never used."""
        pool = self.training
        if split == "heldout" and self.held_out and rng.random() < 0.5:
            pool = self.held_out
        return pool[int(rng.random() * len(pool))]
