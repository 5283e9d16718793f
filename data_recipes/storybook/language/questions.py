"""Questions about a picture, with short canonical answers and the key words that a right answer contains.

Every question is answered from the scene alone. Colours are asked only where the style shows them. Where an answer
follows from what is seen, what is seen comes first ("The owl is large and the ring is small, so the owl is bigger."):
a model that must decide at the first word guesses, and its user cannot see why. Whether a thing is there is told like
its number ("There are two cars, so yes.", "There is no cow, but a fox."): a small model learns to look for what was
named, but hardly to compare a name with a list that it has just written.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from data_recipes.storybook.language.captions import canonical, long, short
from data_recipes.storybook.language.drawing_prompts import HIDING_STYLES, KINDS, cell
from data_recipes.storybook.language.question_phrases import TEMPLATES
from data_recipes.storybook.language.wording import (
    COUNT_WORDS,
    PLACE_PHRASES,
    article,
    be,
    capitalised,
    definite,
    listing,
    looks,
    noun,
    rough,
    user_definite,
    user_noun,
    visible_colour,
    with_count,
)
from data_recipes.storybook.splits import Phrases, Split
from data_recipes.storybook.world.scene import PLACES, SIZES, Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES

CATEGORY_NOUNS = {
    "animal": ("animal", "animals"),
    "bird": ("bird", "birds"),
    "sea animal": ("sea animal", "sea animals"),
    "plant": ("plant", "plants"),
    "food": ("piece of food", "pieces of food"),
    "vehicle": ("vehicle", "vehicles"),
    "building": ("building", "buildings"),
    "clothing": ("piece of clothing", "pieces of clothing"),
    "instrument": ("instrument", "instruments"),
    "tool": ("tool", "tools"),
    "household": ("household thing", "household things"),
    "toy": ("toy", "toys"),
    "sky": ("thing of the sky", "things of the sky"),
    "shape": ("shape", "shapes"),
}
ANIMALS = ("animal", "bird", "sea animal")
FAMILIES = {kind: Phrases(f"question {kind}", templates) for kind, templates in TEMPLATES.items()}


@dataclass(frozen=True)
class Question:
    """A question on one picture. `key` holds the words that a right answer may hold, any one of them suffices."""

    kind: str  # a name in MAKERS, or "more", "which", or one of the other two descriptions
    question: str
    answer: str
    key: tuple[str, ...]


def all_groups_of(scene: Scene, kind: str) -> list[Group]:
    """The groups that answer to the kind's name; a duck is a bird too."""
    return [g for g in scene.groups if g.kind == kind or (kind == "bird" and OBJECTS[g.kind].category == "bird")]


def count_of(scene: Scene, kind: str) -> int:
    return sum(group.count for group in all_groups_of(scene, kind))


def count_of_category(scene: Scene, category: str) -> int:
    """Birds and sea animals are animals too."""
    wanted = ANIMALS if category == "animal" else (category,)
    return sum(group.count for group in scene.groups if OBJECTS[group.kind].category in wanted)


@cache
def kinds_of(category: str) -> tuple[str, ...]:
    return tuple(kind for kind in KINDS if OBJECTS[kind].category == category)


def ask(rng: random.Random, scene: Scene, split: Split = "train", kind: str | None = None) -> Question:
    """One question on the scene, of the given kind if the scene allows it, else of a kind it allows."""
    for _ in range(20):
        asked = MAKERS[kind or rng.choice(ASKED)](rng, scene, split)
        if asked is not None:
            return asked
        kind = None
    raise AssertionError(f"no question fits {scene}")


def _other_kind(rng: random.Random, scene: Scene) -> str:
    """A kind that is not on the picture; half of the time a near one, of the category of a thing on it."""
    while True:
        near = OBJECTS[rng.choice(scene.groups).kind].category
        kind = rng.choice(kinds_of(near) if rng.random() < 0.5 else KINDS)
        if not all_groups_of(scene, kind):
            return kind


def _question(rng: random.Random, split: Split, kind: str, answer: str, key: tuple[str, ...], **slots: str) -> Question:
    text = FAMILIES[kind].choose(rng, split).format(**slots)
    return Question(kind, rough(rng, text), answer, key)


def _in_the_picture(scene: Scene) -> str:
    """ "a fox and two cars": what stands there, equal kinds together."""
    counts: dict[str, int] = {}
    for group in scene.groups:
        counts[group.kind] = counts.get(group.kind, 0) + group.count
    return listing([with_count(count, noun(kind, count)) for kind, count in counts.items()])


def _present(total: int, names: tuple[str, str]) -> str:
    """Yes, with what that follows from; `names` holds the singular and the plural."""
    return f"There {be(total)} {COUNT_WORDS[total]} {names[total != 1]}, so yes."


def _missing(scene: Scene, name: str) -> str:
    return f"There is no {name}, but {_in_the_picture(scene)}."


def _single_reference(rng: random.Random, scene: Scene, group: Group, it: float = 0.25) -> dict[str, str]:
    """The words that point at a group; a single thing alone on its picture is at times just "it"."""
    verbs = ("is", "has", "does") if group.count == 1 else ("are", "have", "do")
    alone = len(scene.groups) == 1 and group.count == 1
    the = "it" if alone and rng.random() < it else user_definite(rng, scene, group)
    return {"the": the, "is": verbs[0], "has": verbs[1], "does": verbs[2]}


def _presence(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    if rng.random() < 0.5:
        kind = rng.choice(scene.groups).kind
        answer, key = _present(count_of(scene, kind), (noun(kind, 1), noun(kind, 2))), "yes"
    else:
        kind = _other_kind(rng, scene)
        answer, key = _missing(scene, noun(kind, 1)), "no"
    name = user_noun(rng, kind, 1)
    return _question(rng, split, "presence", answer, (key,), a=f"{article(name)} {name}", plural=noun(kind, 2))


def _count(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    if rng.random() < 0.3:
        category = rng.choice([OBJECTS[group.kind].category for group in scene.groups])
        category = "animal" if category in ANIMALS and rng.random() < 0.7 else category
        total, names = count_of_category(scene, category), CATEGORY_NOUNS[category]
        asked = names[1]
    else:
        kind = rng.choice(scene.groups).kind if rng.random() < 0.8 else _other_kind(rng, scene)
        total, names = count_of(scene, kind), (noun(kind, 1), noun(kind, 2))
        asked = user_noun(rng, kind, 2)
    answer = f"There {be(total)} {COUNT_WORDS[total]} {names[total != 1]}."
    return _question(rng, split, "count", answer, (COUNT_WORDS[total],), plural=asked)


def _total(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    total = sum(group.count for group in scene.groups)
    answer = f"There {be(total)} {COUNT_WORDS[total]} {'thing' if total == 1 else 'things'}."
    return _question(rng, split, "total", answer, (COUNT_WORDS[total],))


def _colour(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    groups = [g for g in scene.groups if visible_colour(g) and len(all_groups_of(scene, g.kind)) == 1]
    if not groups or scene.style in HIDING_STYLES:
        return None
    group = rng.choice(groups)
    answer = f"{capitalised(definite(scene, group))} {be(group.count)} {visible_colour(group)}."
    slots = _single_reference(rng, scene, group)
    if group.colour and group.colour in slots["the"]:
        slots["the"] = f"the {user_noun(rng, group.kind, group.count)}"
    return _question(rng, split, "colour", answer, (visible_colour(group) or "",), **slots)


def _position(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    group = rng.choice(scene.groups)
    answer = f"{capitalised(definite(scene, group))} {be(group.count)} {PLACE_PHRASES[group.place]}."
    return _question(rng, split, "position", answer, (group.place,), **_single_reference(rng, scene, group))


def _absent(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    """A question about a thing that is absent, worded as if it were there."""
    kind = _other_kind(rng, scene)
    family = rng.choice(("position", "size", "colour"))
    template = FAMILIES[family].choose(rng, split)
    text = template.format(the=f"the {user_noun(rng, kind, 1)}", **{"is": "is", "has": "has"})
    return Question("absent", rough(rng, text), _missing(scene, noun(kind, 1)), ("no",))


def _verify(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    """Is it so? A wrong guess is put right in the answer."""
    group = rng.choice(scene.groups)
    colour = visible_colour(group)
    twins = len(all_groups_of(scene, group.kind)) > 1
    if colour and not twins and scene.style not in HIDING_STYLES and rng.random() < 0.5:
        said = truth = colour
        guess = rng.choice(tuple(COLOURS))
    else:
        said = truth = PLACE_PHRASES[group.place]
        guess = PLACE_PHRASES[rng.choice(PLACES)]
    said = said if rng.random() < 0.5 else guess
    verdict = "yes" if said == truth else "no"
    answer = f"{capitalised(definite(scene, group))} {be(group.count)} {truth}, so {verdict}."
    slots = {"the": definite(scene, group), "is": be(group.count), "value": said}
    return _question(rng, split, "verify", answer, (verdict,), **slots)


def _size(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    group = rng.choice(scene.groups)
    answer = f"{capitalised(definite(scene, group))} {be(group.count)} {group.size}."
    return _question(rng, split, "size", answer, (group.size,), **_single_reference(rng, scene, group))


def _background(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    phrases = BACKGROUNDS[scene.background].phrases
    words = "night" if scene.background == "night" else scene.background
    return _question(rng, split, "background", f"It is {phrases[0]}.", (words, *phrases))


def _night(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    at_night = scene.background == "night"
    template = FAMILIES["night"].choose(rng, split)
    if "day" in template:
        return Question("night", rough(rng, template), f"It is {'night' if at_night else 'day'}.",
                        ("night",) if at_night else ("day",))  # fmt: skip
    answer = "Yes, it is night." if at_night else "No, it is day."
    return Question("night", rough(rng, template), answer, ("yes",) if at_night else ("no",))


def _category(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    group = rng.choice(scene.groups)
    category = OBJECTS[group.kind].category
    one, many = CATEGORY_NOUNS[category]
    what = with_count(1, one) if group.count == 1 else many
    answer = f"{capitalised(definite(scene, group))} {be(group.count)} {what}."
    key = (one, many, category)
    return _question(rng, split, "category", answer, key, **_single_reference(rng, scene, group, it=0.0))


def _category_presence(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    category = rng.choice(tuple(CATEGORY_NOUNS))
    if rng.random() < 0.5:
        category = OBJECTS[rng.choice(scene.groups).kind].category
        category = "animal" if category in ANIMALS else category
    if category == "bird" or category == "sky":
        return None
    total, names = count_of_category(scene, category), CATEGORY_NOUNS[category]
    answer, key = (_present(total, names), "yes") if total else (_missing(scene, names[0]), "no")
    return _question(rng, split, "category presence", answer, (key,), a=with_count(1, names[0]))


def _comparison(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    kinds = [group.kind for group in scene.groups if group.kind != "bird"]
    if len(set(kinds)) < 2:
        return None
    first, second = rng.sample(sorted(set(kinds)), 2)
    ones, others = count_of(scene, first), count_of(scene, second)
    slots = {"first": noun(first, 2), "second": noun(second, 2)}
    if rng.random() < 0.5:
        verdict = "yes" if ones > others else "no"
        counts = f"{with_number(ones, first)} and {with_number(others, second)}"
        return _question(rng, split, "more", f"There {be(ones)} {counts}, so {verdict}.", (verdict,), **slots)
    if ones == others:
        return _question(rng, split, "comparison", "There are equally many.", ("equally", "same", "equal"), **slots)
    more = noun(first if ones > others else second, 2)
    return _question(rng, split, "comparison", f"There are more {more}.", (more,), **slots)


def with_number(count: int, kind: str) -> str:
    """ "one fox", "two foxes": the count always as a number word."""
    return f"{COUNT_WORDS[count]} {noun(kind, count)}"


def _bigger(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    singles = [g for g in scene.groups if g.count == 1 and sum(o.kind == g.kind for o in scene.groups) == 1]
    if len(singles) < 2:
        return None
    first, second = rng.sample(singles, 2)
    slots = {"first": f"the {noun(first.kind, 1)}", "second": f"the {noun(second.kind, 1)}"}
    sizes = capitalised(f"{slots['first']} is {first.size} and {slots['second']} is {second.size}")
    if first.size == second.size:
        answer = f"{sizes}, so they are the same size."
        return _question(rng, split, "bigger", answer, ("same", "equal"), **slots)
    bigger = noun(max(first, second, key=lambda group: SIZES.index(group.size)).kind, 1)
    return _question(rng, split, "bigger", f"{sizes}, so the {bigger} is bigger.", (bigger,), **slots)


def _neighbour(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    """Asked only of two groups that stand in one row or one column, so that there is one answer."""
    if len(scene.groups) != 2 or scene.groups[0].kind == scene.groups[1].kind:
        return None
    asked, other = rng.sample(scene.groups, 2)
    (row, column), (other_row, other_column) = cell(asked.place), cell(other.place)
    if row == other_row:
        relation = "left of" if other_column < column else "right of"
    elif column == other_column:
        relation = "above" if other_row < row else "below"
    else:
        return None
    side = f"{'to the ' if 'of' in relation and rng.random() < 0.5 else ''}{relation}"
    key = (noun(other.kind, 1), noun(other.kind, 2))
    answer = f"{capitalised(looks(other))} {be(other.count)} {relation} {definite(scene, asked)}."
    return _question(rng, split, "neighbour", answer, key, relation=side, the=user_definite(rng, scene, asked))


def _at_place(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    group = rng.choice(scene.groups)
    where = PLACE_PHRASES[group.place]
    answer = f"There {be(group.count)} {looks(group)} {where}."
    return _question(rng, split, "at place", answer, (noun(group.kind, 1), noun(group.kind, 2)), where=where)


def _style(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    phrases = STYLES[scene.style].phrases
    return _question(rng, split, "style", f"It is drawn {phrases[0]}.", (scene.style, *phrases))


def which(rng: random.Random, scene: Scene, split: Split = "train") -> Question:
    """Which of several things are there; every one is answered for. Its key is the whole answer."""
    kinds = {_other_kind(rng, scene) for _ in range(rng.choice((1, 2, 3)))}
    kinds |= {group.kind for group in rng.sample(scene.groups, rng.randint(1, len(scene.groups)))}
    asked = rng.sample(sorted(kinds), len(kinds))
    answer = ". ".join(f"{capitalised(noun(kind, 1))}: {'yes' if count_of(scene, kind) else 'no'}" for kind in asked)
    things = listing([with_count(1, user_noun(rng, kind, 1)) for kind in asked], rng.choice(("and", "or")))
    return _question(rng, split, "which", f"{answer}.", (f"{answer}.",), things=things)


def describe(rng: random.Random, scene: Scene, split: Split = "train", kind: str = "description") -> Question:
    """A request for a description; its key is the whole sentence."""
    answer = {"description": canonical, "short description": short, "long description": long}[kind](scene)
    return _question(rng, split, kind, answer, (answer,))


Maker = Callable[[random.Random, Scene, Split], Question | None]
MAKERS: dict[str, Maker] = {
    "presence": _presence,
    "count": _count,
    "total": _total,
    "colour": _colour,
    "position": _position,
    "size": _size,
    "background": _background,
    "night": _night,
    "category": _category,
    "category presence": _category_presence,
    "comparison": _comparison,
    "bigger": _bigger,
    "neighbour": _neighbour,
    "at place": _at_place,
    "style": _style,
    "verify": _verify,
    "absent": _absent,
    "description": describe,
}
ASKED = (
    *("verify",) * 2, *("absent",) * 2, *("bigger",) * 2,
    *("presence",) * 4, *("count",) * 4, *("colour",) * 3, *("position",) * 3, *("background",) * 2, *("at place",) * 2,
    "total", "size", "night", "category", "category presence", "comparison", "neighbour", "style",
    "description",
)  # fmt: skip
COUNT_KINDS = ("count", "total")
YES_NO_KINDS = ("verify", "absent", "presence", "category presence", "more", "night")
