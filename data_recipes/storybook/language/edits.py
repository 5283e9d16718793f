"""Edits: an instruction in many wordings and the scene after it. What is not mentioned stays as it was.

The rules of the picture force two exceptions: a lone thing in the middle steps aside for a new one, and several equal
things become small beside others and go to the middle when they are left alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from data_recipes.storybook.language.drawing_prompts import (
    ARTISTIC,
    COLOUR_NAMES,
    HIDING_STYLES,
    KINDS,
    OPPOSITE,
    SCENIC,
)
from data_recipes.storybook.language.drawing_requests import counted
from data_recipes.storybook.language.edit_phrases import TEMPLATES
from data_recipes.storybook.language.wording import USER_PLACES, noun, pronoun, rough, user_definite, user_noun
from data_recipes.storybook.splits import Phrases, Split, colour_is_held_out, may_show
from data_recipes.storybook.world.layout import is_possible
from data_recipes.storybook.world.scene import MAX_COUNT, MAX_GROUPS, PLACES, SIZES, Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, OBJECTS, STYLES

FAMILIES = {kind: Phrases(f"edit {kind}", templates) for kind, templates in TEMPLATES.items()}
ADD_ORDER = ("right", "left", "top", "bottom", "top right", "top left", "bottom right", "bottom left", "center")
TO_PLACE = {
    "top left": ("to the top left", "to the top left corner", "to the upper left"),
    "top": ("to the top", "up", "up to the top"),
    "top right": ("to the top right", "to the top right corner", "to the upper right"),
    "left": ("to the left", "over to the left", "to the left side"),
    "center": ("to the center", "to the middle", "into the middle"),
    "right": ("to the right", "over to the right", "to the right side"),
    "bottom left": ("to the bottom left", "to the bottom left corner", "to the lower left"),
    "bottom": ("to the bottom", "down", "down to the bottom"),
    "bottom right": ("to the bottom right", "to the bottom right corner", "to the lower right"),
}
WEIGHTS = {
    "add": 0.16, "more": 0.06, "fewer": 0.03, "remove": 0.1, "replace": 0.13, "recolour": 0.14, "resize": 0.1,
    "move": 0.1, "swap": 0.03, "background": 0.09, "style": 0.06,
}  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """An instruction and the pictures before and after it. Untouched groups are equal in both and keep their order."""

    kind: str  # a name in WEIGHTS
    instruction: str
    before: Scene
    after: Scene


@dataclass(frozen=True)
class Saying:
    """How an instruction refers to a group: how often as "it" where there is only one, and which group "it" means."""

    it: float
    recent: int | None = None


Made = (
    tuple[str, Scene] | None
)  # the instruction before `rough`, and the scene after it; None = this edit does not fit this scene


def sample_edit(
    rng: random.Random,
    scene: Scene,
    split: Split = "train",
    kind: str | None = None,
    say_it: float = 0.35,
    recent: int | None = None,
) -> Edit | None:
    """One edit of the picture, of the given kind or any; None if none was found that fits (rare).

    `say_it` is how often a picture with one group is referred to by "it" or "them" instead of by name; `recent` is the
    index of the group that was just spoken of, which "it" may mean on any picture.
    """
    for _ in range(16):
        chosen = kind or rng.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
        made = MAKERS[chosen](rng, scene, split, Saying(say_it, recent))
        if made is None:
            continue
        instruction, after = made
        if after != scene and is_possible(after) and may_show(after, split):
            return Edit(chosen, rough(rng, instruction), scene, after)
    return None


def with_group(scene: Scene, index: int, group: Group) -> Scene:
    return replace(scene, groups=(*scene.groups[:index], group, *scene.groups[index + 1 :]))


def _target(rng: random.Random, scene: Scene, saying: Saying) -> tuple[int, Group, str]:
    """A group of the picture and the words that point at it."""
    if saying.recent is not None and saying.it and rng.random() < 0.4:
        return saying.recent, scene.groups[saying.recent], pronoun(scene.groups[saying.recent])
    index = rng.randrange(len(scene.groups))
    group = scene.groups[index]
    if len(scene.groups) == 1 and rng.random() < saying.it:
        return index, group, pronoun(group)
    return index, group, user_definite(rng, scene, group)


def _new_thing(rng: random.Random, scene: Scene, split: Split, count: int = 1) -> tuple[Group, str]:
    """A kind that is not in the picture yet, and how it is named with its adjectives."""
    kind = rng.choice([kind for kind in rng.sample(KINDS, 4) if all(kind != g.kind for g in scene.groups)])
    thing = OBJECTS[kind]
    colour, said = thing.colour if thing.recolourable else None, ""
    if thing.recolourable and (colour is None or rng.random() < 0.5):
        colours = [c for c in COLOUR_NAMES if split == "heldout" or not colour_is_held_out(c, kind)]
        colour = rng.choice(colours)
        said = colour + " "
    return Group(kind, count, colour), said + user_noun(rng, kind, count)


def _add(rng: random.Random, scene: Scene, split: Split, saying: Saying) -> Made:
    if len(scene.groups) == MAX_GROUPS:
        return None
    count = rng.choice((2, 3)) if rng.random() < 0.15 else 1
    group, words = _new_thing(rng, scene, split, count)
    size, said_size = ("small", "small ") if rng.random() < 0.15 else ("medium", "")
    template = FAMILIES["add"].choose(rng, split)
    say_place = "{where}" in template and rng.random() < 0.6
    if say_place:
        place = rng.choice([place for place in PLACES if all(place != g.place for g in scene.groups)])
        places: tuple[str, ...] = (place,)
    else:
        places = ADD_ORDER
        template = template.replace(" {where}", " in the picture" if template.startswith(("put", "place")) else "")
        template = template.replace(" in the picture", "") if rng.random() < 0.1 and "add" in template else template
    new = replace(group, size=size if count == 1 else "small")
    for after in _additions(scene, new, places):
        if is_possible(after):
            where = rng.choice(USER_PLACES[after.groups[-1].place])
            return template.format(a=counted(rng, count, said_size + words), where=where), after
    return None


def _additions(scene: Scene, new: Group, places: tuple[str, ...]) -> Iterator[Scene]:
    """The picture with the new group at each of the places; last, a lone group steps aside to make room."""
    for place in places:
        yield replace(scene, groups=(*scene.groups, replace(new, place=place)))
    if len(scene.groups) == 1:
        old = scene.groups[0]
        size = old.size if old.count == 1 else "small"
        aside = replace(old, size=size, place=OPPOSITE[places[0]])
        yield replace(scene, groups=(aside, replace(new, place=places[0])))


def refitted(scene: Scene, index: int, group: Group) -> Scene:
    """The scene with this group; several things that cannot stand like that become small or go to the middle."""
    after = with_group(scene, index, group)
    if is_possible(after) or group.count == 1:
        return after
    if len(scene.groups) == 1:
        size = "medium" if group.size == "large" else group.size
        return with_group(scene, index, replace(group, place="center", size=size))
    return with_group(scene, index, replace(group, size="small"))


def _more(rng: random.Random, scene: Scene, split: Split, saying: Saying) -> Made:
    return _recount(rng, scene, split, "more", 1)


def _fewer(rng: random.Random, scene: Scene, split: Split, saying: Saying) -> Made:
    return _recount(rng, scene, split, "fewer", -1)


def _recount(rng: random.Random, scene: Scene, split: Split, family: str, step: int) -> Made:
    index = rng.randrange(len(scene.groups))
    group = scene.groups[index]
    template = FAMILIES[family].choose(rng, split)
    twins = sum(other.kind == group.kind for other in scene.groups) > 1
    if twins or not 1 <= group.count + step <= MAX_COUNT or ("{one}" not in template and len(scene.groups) > 1):
        return None
    after = refitted(scene, index, replace(group, count=group.count + step))
    return template.format(one=noun(group.kind, 1)), after


def _remove(rng: random.Random, scene: Scene, split: Split, saying: Saying) -> Made:
    if len(scene.groups) == 1:
        return None
    index, _, the = _target(rng, scene, Saying(0.0))
    rest = replace(scene, groups=scene.groups[:index] + scene.groups[index + 1 :])
    after = refitted(rest, 0, rest.groups[0])
    return FAMILIES["remove"].choose(rng, split).format(the=the, bare=the.removeprefix("the ")), after


def _replace(rng: random.Random, scene: Scene, split: Split, saying: Saying) -> Made:
    """The new thing stands where the old one stood, in its size and number."""
    index, group, the = _target(rng, scene, saying)
    thing, words = _new_thing(rng, scene, split, group.count)
    after = with_group(scene, index, replace(group, kind=thing.kind, colour=thing.colour))
    template = FAMILIES["replace"].choose(rng, split)
    return template.format(the=the, a=counted(rng, group.count, words)), after


def _recolour(rng: random.Random, scene: Scene, split: Split, saying: Saying) -> Made:
    index, group, the = _target(rng, scene, saying)
    if not OBJECTS[group.kind].recolourable or scene.style in HIDING_STYLES:  # nobody could see it
        return None
    colour = rng.choice([colour for colour in COLOUR_NAMES if colour != group.colour])
    after = with_group(scene, index, replace(group, colour=colour))
    return FAMILIES["recolour"].choose(rng, split).format(the=the, colour=colour), after


def _resize(rng: random.Random, scene: Scene, split: Split, saying: Saying) -> Made:
    index, group, the = _target(rng, scene, saying)
    family = rng.choice(("bigger", "bigger", "smaller", "large", "small"))
    if family in ("large", "small"):
        size = family
    else:
        step = SIZES.index(group.size) + (1 if family == "bigger" else -1)
        if not 0 <= step < len(SIZES):
            return None
        size = SIZES[step]
    after = with_group(scene, index, replace(group, size=size))
    return FAMILIES[family].choose(rng, split).format(the=the), after


def _move(rng: random.Random, scene: Scene, split: Split, saying: Saying) -> Made:
    index, group, the = _target(rng, scene, saying)
    place = rng.choice([place for place in PLACES if all(place != other.place for other in scene.groups)])
    after = with_group(scene, index, replace(group, place=place))
    slots = {"to": rng.choice(TO_PLACE[place]), "where": rng.choice(USER_PLACES[place])}
    return FAMILIES["move"].choose(rng, split).format(the=the, **slots), after


def _swap(rng: random.Random, scene: Scene, split: Split, saying: Saying) -> Made:
    if len(scene.groups) != 2:
        return None
    first, second = scene.groups
    after = replace(scene, groups=(replace(first, place=second.place), replace(second, place=first.place)))
    words = {"first": user_definite(rng, scene, first), "second": user_definite(rng, scene, second)}
    return FAMILIES["swap"].choose(rng, split).format(**words), after


def _background(rng: random.Random, scene: Scene, split: Split, saying: Saying) -> Made:
    if scene.background != "plain" and rng.random() < 0.2:
        return FAMILIES["plain"].choose(rng, split), replace(scene, background="plain")
    background = rng.choice([name for name in SCENIC if name != scene.background])
    where = rng.choice(BACKGROUNDS[background].phrases)
    return FAMILIES["background"].choose(rng, split).format(where=where), replace(scene, background=background)


def _style(rng: random.Random, scene: Scene, split: Split, saying: Saying) -> Made:
    if scene.style != "storybook" and rng.random() < 0.4:
        return FAMILIES["usual style"].choose(rng, split), replace(scene, style="storybook")
    style = rng.choice([name for name in ARTISTIC if name != scene.style])
    words = rng.choice(STYLES[style].phrases)
    return FAMILIES["style"].choose(rng, split).format(style=words), replace(scene, style=style)


MAKERS: dict[str, Callable[[random.Random, Scene, Split, Saying], Made]] = {
    "add": _add,
    "more": _more,
    "fewer": _fewer,
    "remove": _remove,
    "replace": _replace,
    "recolour": _recolour,
    "resize": _resize,
    "move": _move,
    "swap": _swap,
    "background": _background,
    "style": _style,
}
