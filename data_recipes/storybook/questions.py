"""Questions about a page, with short canonical answers and the key that a right answer must hold.

Every question is answered from the scene alone. Colours are asked only where the style shows them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from data_recipes.storybook.captions import canonical, long, short
from data_recipes.storybook.scene import PLACES, SIZES, Group, Scene
from data_recipes.storybook.splits import Phrases, Split
from data_recipes.storybook.wishes import HIDING_STYLES, KINDS, cell
from data_recipes.storybook.wording import (
    COUNT_WORDS,
    PLACE_PHRASES,
    article,
    be,
    capitalised,
    definite,
    looks,
    noun,
    rough,
    user_definite,
    user_noun,
    visible_colour,
    with_count,
)
from data_recipes.storybook.world import BACKGROUNDS, COLOURS, OBJECTS, STYLES

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
TEMPLATES = {
    "presence": ("is there {a}?", "do you see {a}?", "can you see {a}?", "is there {a} in the picture?",
                 "does the picture show {a}?", "is {a} in it?", "any {plural} here?", "are there any {plural}?",
                 "is {a} anywhere?", "can {a} be seen?", "have you spotted {a}?", "is {a} on the page?",
                 "do we see {a} here?", "i wonder if there is {a}", "did someone draw {a}?",
                 "could you check for {a}?", "tell me if there is {a}", "does it contain {a}?",
                 "look for {a}, is it there?", "are {plural} shown?"),
    "count": ("how many {plural} are there?", "how many {plural}?", "how many {plural} do you see?",
              "count the {plural}", "can you count the {plural}?", "what is the number of {plural}?",
              "how many {plural} are in the picture?", "tell me how many {plural} there are",
              "how often do you see {plural}?", "how many {plural} can you count?", "give me the number of {plural}",
              "number of {plural}?", "{plural}: how many?", "how many {plural} does the picture show?",
              "how many of the {plural} are there?", "say how many {plural} you see",
              "i want to know how many {plural} there are", "what number of {plural} is drawn?",
              "please count the {plural}", "how many {plural} have been drawn?"),
    "total": ("how many things are there?", "how many things do you see?", "how many objects are in the picture?",
              "count everything", "how many things are there in total?", "how many objects are there altogether?",
              "how many things did you find?", "what is the number of all things?", "how much is there to see?",
              "number of objects?", "how many figures are there?", "please count all things",
              "add up everything you see", "tell me how many things you see", "how many are there in all?",
              "how many items does the page hold?"),
    "colour": ("what colour {is} {the}?", "which colour {is} {the}?", "what is the colour of {the}?",
               "{the}: what colour?", "tell me the colour of {the}", "what colour {has} {the}?",
               "what colour {is} {the} in?", "{the}, which colour?", "in which colour {is} {the} drawn?",
               "say what colour {the} {has}", "name the colour of {the}", "do you know the colour of {the}?",
               "what colour did you give {the}?", "i want to know the colour of {the}", "colour of {the}?",
               "with what colour {is} {the} painted?"),
    "position": ("where {is} {the}?", "where can i find {the}?", "where do you see {the}?", "find {the}",
                 "in which part of the picture {is} {the}?", "what is the position of {the}?",
                 "whereabouts {is} {the}?", "where {is} {the} standing?", "{the}: where?",
                 "on which side {is} {the}?", "can you tell me where {the} {is}?", "at which place {is} {the}?",
                 "say where {the} {is}", "locate {the}", "in which corner or side {is} {the}?",
                 "which part of the page {has} {the}?", "show me where {the} {is}", "i am looking for {the}",
                 "point out {the}", "where on the page {is} {the}?"),
    "size": ("how big {is} {the}?", "what size {is} {the}?", "{is} {the} big or small?", "how large {is} {the}?",
             "is the size of {the} small, medium or large?", "tell me the size of {the}", "{the}: what size?",
             "{is} {the} small, medium or large?", "in what size {is} {the} drawn?",
             "do you know how big {the} {is}?", "is it a small or a big size that {the} {has}?",
             "say how large {the} {is}", "size of {the}?", "{is} {the} large or little?", "name the size of {the}",
             "which of the three sizes {has} {the}?"),
    "background": ("where is this?", "what is the background?", "where does this take place?", "what place is this?",
                   "what do you see in the background?", "which background does it have?", "what is behind it?",
                   "describe the background", "in what surroundings is it?", "where was this picture made?",
                   "which place does it show?", "what is in the back?", "what scenery is this?",
                   "name the background", "background?", "what lies behind the things?", "in which place are we?",
                   "what are the surroundings?", "tell me the background", "where are we here?"),
    "night": ("is it night?", "is it dark?", "is this at night?", "does this happen at night?",
              "is it night or day?", "what time of day is it?", "is it dark outside?", "is it nighttime?",
              "does it show the night?", "are we in the night?", "is it daytime?", "is it day or night here?",
              "has night fallen?", "do we see the night sky?", "tell me if it is day or night",
              "is it late at night?"),
    "category": ("what kind of thing {is} {the}?", "what {is} {the}?", "what sort of thing {is} {the}?",
                 "to which group of things {does} {the} belong?", "what type of thing {is} {the}?",
                 "{the}: what kind of thing {is} that?", "what kind of a thing {is} {the}?",
                 "in which group {does} {the} belong?", "name the kind of thing that {the} {is}",
                 "{the}, what sort of thing?", "which category {does} {the} belong to?",
                 "how would you class {the}?", "{the} {is} what kind of thing?", "say what type of thing {the} {is}"),
    "category presence": ("is there {a}?", "do you see {a}?", "can you see {a}?", "is there {a} in the picture?",
                          "is {a} in it?", "does the picture show {a}?", "is {a} anywhere?",
                          "could you check for {a}?", "does it contain {a}?", "have you spotted {a}?",
                          "tell me if there is {a}", "is {a} on the page?", "can {a} be seen?",
                          "are you able to find {a}?"),
    "comparison": ("are there more {first} or more {second}?", "which are there more of, {first} or {second}?",
                   "more {first} or more {second}?", "what do you see more of, {first} or {second}?",
                   "are the {first} more than the {second}, or the other way round?",
                   "do you see more {first} or more {second}?", "{first} or {second}: which are more?",
                   "who is in the majority, {first} or {second}?", "what is there more of, {first} or {second}?",
                   "compare the numbers of {first} and {second}", "which group is larger, {first} or {second}?",
                   "say which are more, {first} or {second}", "{first} against {second}, who wins by number?"),
    "more": ("are there more {first} than {second}?", "do you see more {first} than {second}?",
             "more {first} than {second}?", "is the number of {first} greater than the number of {second}?",
             "are the {first} more than the {second}?", "do the {first} outnumber the {second}?",
             "are {first} in the majority over {second}?", "have we more {first} than {second}?",
             "is it true that there are more {first} than {second}?", "can you see more {first} than {second}?",
             "would you count more {first} than {second}?", "do you find more {first} than {second}?"),
    "bigger": ("which is bigger, {first} or {second}?", "what is bigger, {first} or {second}?",
               "is {first} or {second} bigger?", "which is larger: {first} or {second}?",
               "{first} or {second}, which is bigger?", "who is bigger, {first} or {second}?",
               "compare {first} and {second}, which is bigger?", "which of the two is larger, {first} or {second}?",
               "which one is the bigger one, {first} or {second}?", "tell me which is bigger, {first} or {second}",
               "what has the larger size, {first} or {second}?", "is {first} larger, or {second}?",
               "between {first} and {second}, which is bigger?"),
    "neighbour": ("what is {relation} {the}?", "what do you see {relation} {the}?",
                  "what can you see {relation} {the}?", "who is {relation} {the}?",
                  "which thing is {relation} {the}?", "tell me what is {relation} {the}",
                  "what stands {relation} {the}?", "what is there {relation} {the}?",
                  "name the thing {relation} {the}", "what has been drawn {relation} {the}?",
                  "which object do you find {relation} {the}?", "say what is {relation} {the}",
                  "{relation} {the}, what is there?", "what lies {relation} {the}?"),
    "at place": ("what is {where}?", "what do you see {where}?", "what can you see {where}?", "what {where}?",
                 "which thing is {where}?", "tell me what is {where}", "what stands {where}?",
                 "what is there {where}?", "name the thing {where}", "what has been drawn {where}?",
                 "{where}, what is there?", "which object do you find {where}?", "say what is {where}",
                 "what was placed {where}?"),
    "description": ("describe the picture", "what do you see?", "what is in this picture?", "describe this",
                    "what does this picture show?", "can you describe the image?", "tell me what you see",
                    "what is this?", "what's in the picture?", "please describe what you see", "caption this",
                    "what can you see here?", "say what is on this page", "write a caption for this picture",
                    "what's this?", "describe it", "tell me about the picture", "what is shown?",
                    "what am i looking at?", "give a caption", "what has been drawn here?", "what does it show?",
                    "can you tell what this is?", "explain the picture"),
    "short description": ("describe it briefly", "in short, what is this?", "give me a short description",
                          "what is this, in a few words?", "short caption please", "sum it up"),
    "long description": ("describe it in detail", "tell me everything you see", "give me a long description",
                         "describe the picture in full sentences", "explain the picture in detail",
                         "give a detailed description of this"),
    "verify": ("{is} {the} {value}?", "is it true that {the} {is} {value}?", "{the} {is} {value}, correct?",
               "would you say {the} {is} {value}?", "{is} {the} {value} or not?",
               "am i right that {the} {is} {value}?", "so {the} {is} {value}?",
               "can you confirm that {the} {is} {value}?", "i think {the} {is} {value}, right?",
               "true or false: {the} {is} {value}", "{the} {is} {value}, yes or no?",
               "do you agree that {the} {is} {value}?", "is it right to say that {the} {is} {value}?"),
    "style": ("what style is this?", "which style is it drawn in?", "in what style is this picture?",
              "what is the style?", "how is it drawn?", "what kind of picture is this?", "name the style",
              "tell me the style", "style?", "how was this made?", "in which manner is it drawn?",
              "which technique was used?", "what look does it have?", "do you know the style?",
              "is there a special style?", "say how it is drawn", "what drawing style do you see?"),
}  # fmt: skip
FAMILIES = {kind: Phrases(f"question {kind}", templates) for kind, templates in TEMPLATES.items()}


@dataclass(frozen=True)
class Question:
    """A question on one page. `key` holds the words that a right answer may hold, any one of them suffices."""

    kind: str  # a name in MAKERS, or "more", or one of the other two descriptions
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
    """A kind that is not on the page; half of the time a near one, of the category of a thing on it."""
    while True:
        near = OBJECTS[rng.choice(scene.groups).kind].category
        kind = rng.choice(kinds_of(near) if rng.random() < 0.5 else KINDS)
        if not all_groups_of(scene, kind):
            return kind


def _question(rng: random.Random, split: Split, kind: str, answer: str, key: tuple[str, ...], **slots: str) -> Question:
    text = FAMILIES[kind].choose(rng, split).format(**slots)
    return Question(kind, rough(rng, text), answer, key)


def _single_reference(rng: random.Random, scene: Scene, group: Group, it: float = 0.25) -> dict[str, str]:
    """The words that point at a group; a single thing alone on its page is at times just "it"."""
    verbs = ("is", "has", "does") if group.count == 1 else ("are", "have", "do")
    alone = len(scene.groups) == 1 and group.count == 1
    the = "it" if alone and rng.random() < it else user_definite(rng, scene, group)
    return {"the": the, "is": verbs[0], "has": verbs[1], "does": verbs[2]}


def _presence(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    if rng.random() < 0.5:
        group = rng.choice(scene.groups)
        count = count_of(scene, group.kind)
        words = with_count(count, noun(group.kind, count))
        answer, key, kind = f"Yes, there {be(count)} {words}.", "yes", group.kind
    else:
        kind = _other_kind(rng, scene)
        answer, key = f"No, there is no {noun(kind, 1)}.", "no"
    name = user_noun(rng, kind, 1)
    return _question(rng, split, "presence", answer, (key,), a=f"{article(name)} {name}", plural=noun(kind, 2))


def _count(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    if rng.random() < 0.3:
        category = rng.choice([OBJECTS[group.kind].category for group in scene.groups])
        category = "animal" if category in ANIMALS and rng.random() < 0.7 else category
        total, names = count_of_category(scene, category), CATEGORY_NOUNS[category]
        asked = names[1]
    else:
        kind = rng.choice(scene.groups).kind if rng.random() < 0.9 else _other_kind(rng, scene)
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
    """Asks after a thing that is not there, as if it were."""
    kind = _other_kind(rng, scene)
    family = rng.choice(("position", "size", "colour"))
    template = FAMILIES[family].choose(rng, split)
    text = template.format(the=f"the {user_noun(rng, kind, 1)}", **{"is": "is", "has": "has"})
    return Question("absent", rough(rng, text), f"There is no {noun(kind, 1)} in the picture.", ("no",))


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
    verdict = "Yes" if said == truth else "No"
    answer = f"{verdict}, {definite(scene, group)} {be(group.count)} {truth}."
    slots = {"the": definite(scene, group), "is": be(group.count), "value": said}
    return _question(rng, split, "verify", answer, (verdict.lower(),), **slots)


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
    wanted = ANIMALS if category == "animal" else (category,)
    shown = [group for group in scene.groups if OBJECTS[group.kind].category in wanted]
    one = CATEGORY_NOUNS[category][0]
    if shown:
        count = count_of(scene, shown[0].kind) if len(all_groups_of(scene, shown[0].kind)) > 1 else shown[0].count
        answer, key = f"Yes, there {be(count)} {with_count(count, noun(shown[0].kind, count))}.", "yes"
    else:
        answer, key = f"No, there is no {one}.", "no"
    return _question(rng, split, "category presence", answer, (key,), a=f"{article(one)} {one}")


def _comparison(rng: random.Random, scene: Scene, split: Split) -> Question | None:
    kinds = [group.kind for group in scene.groups if group.kind != "bird"]
    if len(set(kinds)) < 2:
        return None
    first, second = rng.sample(sorted(set(kinds)), 2)
    ones, others = count_of(scene, first), count_of(scene, second)
    slots = {"first": noun(first, 2), "second": noun(second, 2)}
    if rng.random() < 0.5:
        verdict = "Yes" if ones > others else "No"
        counts = f"{with_number(ones, first)} and {with_number(others, second)}"
        return _question(rng, split, "more", f"{verdict}, there {be(ones)} {counts}.", (verdict.lower(),), **slots)
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
    if first.size == second.size:
        return _question(rng, split, "bigger", "They are the same size.", ("same", "equal"), **slots)
    bigger = max(first, second, key=lambda group: SIZES.index(group.size))
    return _question(rng, split, "bigger", f"The {noun(bigger.kind, 1)} is bigger.", (noun(bigger.kind, 1),), **slots)


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


def describe(rng: random.Random, scene: Scene, split: Split = "train", kind: str = "description") -> Question:
    """A wish for a description; its key is the whole sentence."""
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
    *("verify",) * 2, "absent",
    *("presence",) * 3, *("count",) * 4, *("colour",) * 3, *("position",) * 3, *("background",) * 2, *("at place",) * 2,
    "total", "size", "night", "category", "category presence", "comparison", "bigger", "neighbour", "style",
    "description",
)  # fmt: skip
COUNT_KINDS = ("count", "total")
YES_NO_KINDS = ("verify", "absent", "presence", "category presence", "more", "night")
