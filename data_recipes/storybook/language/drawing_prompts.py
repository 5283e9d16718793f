"""What a user asks for, as a partly specified scene, and the scenes that meet it.

A `DrawingPrompt` holds the details that were said; `complete` fills in the rest with the usual defaults: one thing
stands in the middle, two stand left and right in the order they were named, the background is plain and the style
storybook. What was said is always kept.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from data_recipes.storybook.language.captions import in_reading_order
from data_recipes.storybook.language.wording import visible_colour
from data_recipes.storybook.splits import Split, colour_is_held_out, may_show, pair_is_held_out
from data_recipes.storybook.world.layout import MAX_STACK, is_possible
from data_recipes.storybook.world.scene import PLACES, Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES

KINDS = tuple(OBJECTS)
COLOUR_NAMES = tuple(COLOURS)
SCENIC = tuple(name for name in BACKGROUNDS if name != "plain")
ARTISTIC = tuple(name for name in STYLES if name != "storybook")
RELATION_PLACES = {
    "left of": ("left", "right"),
    "right of": ("right", "left"),
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
    "next to": ("left", "right"),
}
HIDING_STYLES = ("sepia", "black and white")
OPPOSITE = {"left": "right", "top": "bottom", "top left": "bottom right", "top right": "bottom left", "center": "right"}
OPPOSITE |= {there: here for here, there in OPPOSITE.items() if here != "center"}
TRIOS = (("top left", "top right", "bottom"), ("top", "bottom left", "bottom right"), ("left", "center", "right"))
STACKING = ("left", "right", "top", "bottom")  # where several equal things may stand beside others


@dataclass(frozen=True)
class GroupSpec:
    """What a prompt says about one group; None = left open."""

    kind: str
    count: int = 1
    colour: str | None = None
    size: str | None = None
    place: str | None = None

    def is_met_by(self, group: Group) -> bool:
        return (
            (self.kind, self.count) == (group.kind, group.count)
            and self.colour in (None, visible_colour(group))
            and self.size in (None, group.size)
            and self.place in (None, group.place)
        )


@dataclass(frozen=True)
class DrawingPrompt:
    """What a prompt says about a picture; None = left open. `relation` holds between the first two groups."""

    specs: tuple[GroupSpec, ...]
    background: str | None = None
    style: str | None = None
    relation: str | None = None

    def is_met_by(self, scene: Scene) -> bool:
        """True if the scene shows what was said, in the order it was said, and nothing else."""
        return (
            len(self.specs) == len(scene.groups)
            and all(spec.is_met_by(group) for spec, group in zip(self.specs, scene.groups, strict=True))
            and self.background in (None, scene.background)
            and self.style in (None, scene.style)
            and (self.relation is None or relation_holds(self.relation, scene.groups[0], scene.groups[1]))
        )


def cell(place: str) -> tuple[int, int]:
    """(row, column) of a place, 0 .. 2 from the top left."""
    return divmod(PLACES.index(place), 3)


def relation_holds(relation: str, first: Group, second: Group) -> bool:
    """Whether the first group stands left of / right of / above / below / next to the second."""
    (row, column), (other_row, other_column) = cell(first.place), cell(second.place)
    return {
        "left of": column < other_column,
        "right of": column > other_column,
        "above": row < other_row,
        "below": row > other_row,
        "next to": row == other_row and column != other_column,
    }[relation]


def sample_prompt(rng: random.Random, split: Split = "train", num_groups: int | None = None) -> DrawingPrompt:
    """A random prompt, without regard to whether it can be met; `sample_drawing` rejects those that cannot."""
    if num_groups is None:
        num_groups = rng.choices((1, 2, 3), (0.5, 0.37, 0.13))[0]
    kinds = rng.sample(KINDS, num_groups)
    relation = rng.choice(tuple(RELATION_PLACES)) if num_groups == 2 and rng.random() < 0.22 else None
    say_places = relation is None and rng.random() < (0.3 if num_groups == 1 else 0.35)
    specs = tuple(sample_spec(rng, kind, split, num_groups, say_places) for kind in kinds)
    background = rng.choice(SCENIC) if rng.random() < 0.33 else "plain" if rng.random() < 0.04 else None
    style = rng.choice(ARTISTIC) if rng.random() < 0.2 else "storybook" if rng.random() < 0.02 else None
    return DrawingPrompt(specs, background, style, relation)


def sample_spec(rng: random.Random, kind: str, split: Split, num_groups: int, say_place: bool) -> GroupSpec:
    """One random group. Natural colours are said now and then ("a red cherry"), impossible ones never."""
    many = 0.4 if num_groups == 1 else 0.3 if num_groups == 2 else 0.12
    count = rng.choice((2, 3, 4, 5) if num_groups == 1 else (2, 3)) if rng.random() < many else 1
    colour = None
    if OBJECTS[kind].recolourable and rng.random() < 0.6:
        colour = rng.choice(COLOUR_NAMES)
        if split == "train" and colour_is_held_out(colour, kind):
            colour = None
    elif OBJECTS[kind].colour and rng.random() < 0.06:
        colour = OBJECTS[kind].colour
    size = rng.choice(("small", "large")) if rng.random() < 0.2 else None
    place = None
    if say_place and rng.random() < 0.8 and (count == 1 or num_groups > 1):
        place = rng.choice(PLACES if count == 1 else STACKING)
    return GroupSpec(kind, count, colour, size, place)


def complete(rng: random.Random, prompt: DrawingPrompt, split: Split = "train", surprise: bool = True) -> Scene | None:
    """The scene of a prompt, gaps filled; None if it does not fit on one picture or `split` may not show it.

    Without `surprise` all gaps are filled by default: a plain picture, a single thing in the middle.
    """
    if split == "train" and any(
        pair_is_held_out(a.kind, b.kind) for i, a in enumerate(prompt.specs) for b in prompt.specs[:i]
    ):
        return None
    background, style = prompt.background, prompt.style or "storybook"
    if background is None:
        background = "plain" if not surprise or rng.random() < 0.6 else rng.choice(SCENIC)
    colours = tuple(group_colour(rng, spec, split) for spec in prompt.specs)
    for places, sizes in _placements(rng, prompt, surprise):
        groups = tuple(
            Group(spec.kind, spec.count, colour, size, place)
            for spec, colour, size, place in zip(prompt.specs, colours, sizes, places, strict=True)
        )
        scene = Scene(groups, background, style)
        if prompt.is_met_by(scene) and is_possible(scene):
            return scene if may_show(scene, split) else None
    return None


def group_colour(rng: random.Random, spec: GroupSpec, split: Split) -> str | None:
    """The colour to draw in: None for natural kinds, what was said, else the usual colour, else any."""
    kind = OBJECTS[spec.kind]
    if not kind.recolourable:
        return None
    if spec.colour or kind.colour:
        return spec.colour or kind.colour
    colours = [c for c in COLOUR_NAMES if split == "heldout" or not colour_is_held_out(c, spec.kind)]
    return rng.choice(colours)


def _placements(
    rng: random.Random, prompt: DrawingPrompt, surprise: bool
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Places and sizes of all groups, best first: the default, then smaller, then by chance. What was said is kept."""
    said = [spec.place for spec in prompt.specs]
    if not _can_be_met(prompt):
        return
    if surprise and len(said) == 1 and prompt.specs[0].count == 1 and said[0] is None and rng.random() < 0.2:
        yield (rng.choice(PLACES),), (prompt.specs[0].size or rng.choice(("small", "medium", "large")),)
    for default in ("medium", "small"):
        for places in default_places(prompt, said):
            yield places, _sizes(prompt, default)
    for attempt in range(24):
        free = [place for place in PLACES if place not in said]
        rng.shuffle(free)
        yield tuple(place or free.pop() for place in said), _sizes(prompt, "medium" if attempt < 8 else "small")


def _sizes(prompt: DrawingPrompt, default: str) -> tuple[str, ...]:
    """Sizes as said, else `default`; several equal things beside others are small by the rules of the picture."""
    alone = len(prompt.specs) == 1
    return tuple(spec.size or (default if alone or spec.count == 1 else "small") for spec in prompt.specs)


def _can_be_met(prompt: DrawingPrompt) -> bool:
    """A quick look at what the rules of the picture forbid, before any places are tried."""
    alone = len(prompt.specs) == 1
    places = [spec.place for spec in prompt.specs if spec.place]
    if len(set(places)) < len(places):
        return False
    for spec in prompt.specs:
        if spec.count > 1 and alone and (spec.place not in (None, "center") or spec.size == "large"):
            return False
        if spec.count > 1 and not alone:
            if spec.count > MAX_STACK or spec.size == "large" or spec.place not in (None, *STACKING):
                return False
    return True


def default_places(prompt: DrawingPrompt, said: list[str | None]) -> list[tuple[str, ...]]:
    """The expected places, best first, all that was said kept; empty where there is no custom."""
    if prompt.relation:
        return [RELATION_PLACES[prompt.relation]]
    if len(said) == 1:
        return [(said[0] or "center",)]
    if len(said) == 2:
        first, second = said
        if first is None and second is None:
            return [("left", "right"), ("top", "bottom")]
        return [(first or OPPOSITE[second or ""], second or OPPOSITE[first or ""])]
    return [trio for trio in TRIOS if all(s in (None, place) for s, place in zip(said, trio, strict=True))]


def sample_drawing(
    rng: random.Random, split: Split = "train", num_groups: int | None = None
) -> tuple[DrawingPrompt, Scene]:
    """A random prompt that can be met, and the scene that `complete` makes of it."""
    while True:
        prompt = sample_prompt(rng, split, num_groups)
        scene = complete(rng, prompt, split)
        if scene is not None:
            return prompt, scene


def sample_upload(rng: random.Random, split: Split = "train", num_groups: int | None = None) -> Scene:
    """A scene that a user may upload: every detail random, groups in reading order.

    In styles that hide colours, things stand in their usual ones, so that the picture tells what the words say.
    """
    while True:
        num = num_groups or rng.choices((1, 2, 3), (0.4, 0.42, 0.18))[0]
        style = rng.choice(ARTISTIC) if rng.random() < 0.25 else "storybook"
        specs = tuple(_random_spec(rng, kind, num, style) for kind in rng.sample(KINDS, num))
        if style in HIDING_STYLES and any(_has_no_usual_colour(spec.kind) for spec in specs):
            continue
        background = rng.choice(SCENIC) if rng.random() < 0.6 else "plain"
        scene = complete(rng, DrawingPrompt(specs, background, style), split)
        if scene is not None:
            return in_reading_order(scene)


def _random_spec(rng: random.Random, kind: str, num_groups: int, style: str) -> GroupSpec:
    count = rng.choice((2, 3, 4, 5) if num_groups == 1 else (2, 3)) if rng.random() < 0.35 else 1
    colour = rng.choice(COLOUR_NAMES) if OBJECTS[kind].recolourable and style not in HIDING_STYLES else None
    place = rng.choice(PLACES if count == 1 else STACKING) if num_groups > 1 or count == 1 else None
    size = rng.choice(("small", "medium", "large")) if count == 1 else None
    return GroupSpec(kind, count, colour, size, place)


def _has_no_usual_colour(kind: str) -> bool:
    return OBJECTS[kind].recolourable and OBJECTS[kind].colour is None
