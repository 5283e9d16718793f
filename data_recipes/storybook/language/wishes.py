"""What a user asks for: a scene with gaps. The gaps are drawn first, then filled with the defaults everybody expects.

A `Wish` says which details were said; `complete` fills the rest: one thing stands in the middle, two stand left and
right in the order they were named, the page is plain and in storybook style. What was said is always kept.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations

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
class Want:
    """One group as far as it was said; None = left to the painter."""

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
class Wish:
    """Everything that was said about a page. `relation` holds between the first two wants."""

    wants: tuple[Want, ...]
    background: str | None = None
    style: str | None = None
    relation: str | None = None

    def is_met_by(self, scene: Scene) -> bool:
        """True if the scene shows what was said, in the order it was said, and nothing else."""
        return (
            len(self.wants) == len(scene.groups)
            and all(want.is_met_by(group) for want, group in zip(self.wants, scene.groups, strict=True))
            and self.background in (None, scene.background)
            and self.style in (None, scene.style)
            and (self.relation is None or relation_holds(self.relation, scene.groups[0], scene.groups[1]))
        )

    def is_met_in_any_order(self, scene: Scene) -> bool:
        """The same, whatever the order of the groups: for pages that were read back from a picture."""
        return any(self.is_met_by(replace(scene, groups=order)) for order in permutations(scene.groups))


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


def sample_wish(rng: random.Random, split: Split = "train", num_wants: int | None = None) -> Wish:
    """A random wish, without regard to whether it can be met; `sample_drawing` rejects those that cannot."""
    if num_wants is None:
        num_wants = rng.choices((1, 2, 3), (0.5, 0.37, 0.13))[0]
    kinds = rng.sample(KINDS, num_wants)
    relation = rng.choice(tuple(RELATION_PLACES)) if num_wants == 2 and rng.random() < 0.22 else None
    say_places = relation is None and rng.random() < (0.3 if num_wants == 1 else 0.35)
    wants = tuple(sample_want(rng, kind, split, num_wants, say_places) for kind in kinds)
    background = rng.choice(SCENIC) if rng.random() < 0.33 else "plain" if rng.random() < 0.04 else None
    style = rng.choice(ARTISTIC) if rng.random() < 0.2 else "storybook" if rng.random() < 0.02 else None
    return Wish(wants, background, style, relation)


def sample_want(rng: random.Random, kind: str, split: Split, num_wants: int, say_place: bool) -> Want:
    """One random want. Natural colours are said now and then ("a red cherry"), impossible ones never."""
    many = 0.4 if num_wants == 1 else 0.3 if num_wants == 2 else 0.12
    count = rng.choice((2, 3, 4, 5) if num_wants == 1 else (2, 3)) if rng.random() < many else 1
    colour = None
    if OBJECTS[kind].recolourable and rng.random() < 0.6:
        colour = rng.choice(COLOUR_NAMES)
        if split == "train" and colour_is_held_out(colour, kind):
            colour = None
    elif OBJECTS[kind].colour and rng.random() < 0.06:
        colour = OBJECTS[kind].colour
    size = rng.choice(("small", "large")) if rng.random() < 0.2 else None
    place = None
    if say_place and rng.random() < 0.8 and (count == 1 or num_wants > 1):
        place = rng.choice(PLACES if count == 1 else STACKING)
    return Want(kind, count, colour, size, place)


def complete(rng: random.Random, wish: Wish, split: Split = "train", surprise: bool = True) -> Scene | None:
    """The sensible page for a wish, or None if what was said does not fit on one page (or may not be shown).

    Without `surprise` all gaps are filled by default: a plain page, a single thing in the middle.
    """
    if split == "train" and any(
        pair_is_held_out(a.kind, b.kind) for i, a in enumerate(wish.wants) for b in wish.wants[:i]
    ):
        return None
    background, style = wish.background, wish.style or "storybook"
    if background is None:
        background = "plain" if not surprise or rng.random() < 0.6 else rng.choice(SCENIC)
    colours = tuple(group_colour(rng, want, split) for want in wish.wants)
    for places, sizes in _placements(rng, wish, surprise):
        groups = tuple(
            Group(want.kind, want.count, colour, size, place)
            for want, colour, size, place in zip(wish.wants, colours, sizes, places, strict=True)
        )
        scene = Scene(groups, background, style)
        if wish.is_met_by(scene) and is_possible(scene):
            return scene if may_show(scene, split) else None
    return None


def group_colour(rng: random.Random, want: Want, split: Split) -> str | None:
    """The colour to draw in: None for natural kinds, what was said, else the usual colour, else any."""
    kind = OBJECTS[want.kind]
    if not kind.recolourable:
        return None
    if want.colour or kind.colour:
        return want.colour or kind.colour
    colours = [c for c in COLOUR_NAMES if split == "heldout" or not colour_is_held_out(c, want.kind)]
    return rng.choice(colours)


def _placements(rng: random.Random, wish: Wish, surprise: bool) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Places and sizes of all wants, best first: the default, then smaller, then by chance. What was said is kept."""
    said = [want.place for want in wish.wants]
    if not _can_be_met(wish):
        return
    if surprise and len(said) == 1 and wish.wants[0].count == 1 and said[0] is None and rng.random() < 0.2:
        yield (rng.choice(PLACES),), (wish.wants[0].size or rng.choice(("small", "medium", "large")),)
    for default in ("medium", "small"):
        for places in default_places(wish, said):
            yield places, _sizes(wish, default)
    for attempt in range(24):
        free = [place for place in PLACES if place not in said]
        rng.shuffle(free)
        yield tuple(place or free.pop() for place in said), _sizes(wish, "medium" if attempt < 8 else "small")


def _sizes(wish: Wish, default: str) -> tuple[str, ...]:
    """Sizes as said, else `default`; several equal things beside others are small by the rules of the page."""
    alone = len(wish.wants) == 1
    return tuple(want.size or (default if alone or want.count == 1 else "small") for want in wish.wants)


def _can_be_met(wish: Wish) -> bool:
    """A quick look at what the rules of the page forbid, before any places are tried."""
    alone = len(wish.wants) == 1
    places = [want.place for want in wish.wants if want.place]
    if len(set(places)) < len(places):
        return False
    for want in wish.wants:
        if want.count > 1 and alone and (want.place not in (None, "center") or want.size == "large"):
            return False
        if want.count > 1 and not alone:
            if want.count > MAX_STACK or want.size == "large" or want.place not in (None, *STACKING):
                return False
    return True


def default_places(wish: Wish, said: list[str | None]) -> list[tuple[str, ...]]:
    """The expected places, best first, all that was said kept; empty where there is no custom."""
    if wish.relation:
        return [RELATION_PLACES[wish.relation]]
    if len(said) == 1:
        return [(said[0] or "center",)]
    if len(said) == 2:
        first, second = said
        if first is None and second is None:
            return [("left", "right"), ("top", "bottom")]
        return [(first or OPPOSITE[second or ""], second or OPPOSITE[first or ""])]
    return [trio for trio in TRIOS if all(s in (None, place) for s, place in zip(said, trio, strict=True))]


def sample_drawing(rng: random.Random, split: Split = "train", num_wants: int | None = None) -> tuple[Wish, Scene]:
    """A wish that can be met, and the page that meets it."""
    while True:
        wish = sample_wish(rng, split, num_wants)
        scene = complete(rng, wish, split)
        if scene is not None:
            return wish, scene


def wish_for(rng: random.Random, scene: Scene, keep: float = 0.6) -> Wish:
    """A wish that the given page meets, each detail said with probability `keep`; unusual colours always."""
    wants = []
    for group in scene.groups:
        usual = OBJECTS[group.kind].colour
        colour = group.colour if group.colour != usual or rng.random() < keep else None
        size = group.size if group.size != "medium" else None
        wants.append(Want(group.kind, group.count, colour, size, group.place if rng.random() < keep else None))
    background = scene.background if scene.background != "plain" else None
    return Wish(tuple(wants), background, scene.style if scene.style != "storybook" else None)


def sample_page(rng: random.Random, split: Split = "train", num_groups: int | None = None) -> Scene:
    """A page as it may be uploaded: everything by chance, groups in reading order.

    In styles that hide colours, things stand in their usual ones, so that the picture tells what the words say.
    """
    while True:
        num = num_groups or rng.choices((1, 2, 3), (0.4, 0.42, 0.18))[0]
        style = rng.choice(ARTISTIC) if rng.random() < 0.25 else "storybook"
        wants = tuple(_random_want(rng, kind, num, style) for kind in rng.sample(KINDS, num))
        if style in HIDING_STYLES and any(_has_no_usual_colour(want.kind) for want in wants):
            continue
        background = rng.choice(SCENIC) if rng.random() < 0.6 else "plain"
        scene = complete(rng, Wish(wants, background, style), split)
        if scene is not None:
            return in_reading_order(scene)


def _random_want(rng: random.Random, kind: str, num_wants: int, style: str) -> Want:
    count = rng.choice((2, 3, 4, 5) if num_wants == 1 else (2, 3)) if rng.random() < 0.35 else 1
    colour = rng.choice(COLOUR_NAMES) if OBJECTS[kind].recolourable and style not in HIDING_STYLES else None
    place = rng.choice(PLACES if count == 1 else STACKING) if num_wants > 1 or count == 1 else None
    size = rng.choice(("small", "medium", "large")) if count == 1 else None
    return Want(kind, count, colour, size, place)


def _has_no_usual_colour(kind: str) -> bool:
    return OBJECTS[kind].recolourable and OBJECTS[kind].colour is None
