"""The assistant's words for a scene: one canonical sentence that determines it completely, and looser ones.

`parse_canonical` is the inverse of `canonical`. Order: the groups as they stand in the scene, each with count, size
(unless medium), colour (if set), noun and place; then background (unless plain) and style (unless storybook).
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from functools import cache

from data_recipes.storybook.language.wording import COUNT_WORDS, PLACE_PHRASES, be, capitalised, listing, looks, noun
from data_recipes.storybook.splits import Phrases, Split
from data_recipes.storybook.world.scene import MAX_COUNT, PLACES, Group, Scene
from data_recipes.storybook.world.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, STYLES


def canonical(scene: Scene) -> str:
    """ "A small red car on the left and a fox on the right, at night, in pixel art style." """
    groups = listing([f"{looks(group)} {PLACE_PHRASES[group.place]}" for group in scene.groups])
    return f"{capitalised(groups)}{look_suffix(scene)}."


def look_suffix(scene: Scene) -> str:
    """ ", at night, in pixel art style"; empty for a plain storybook picture."""
    background = "" if scene.background == "plain" else f", {BACKGROUNDS[scene.background].phrases[0]}"
    style = "" if scene.style == "storybook" else f", {STYLES[scene.style].phrases[0]}"
    return background + style


def short(scene: Scene) -> str:
    """Without places: "A small red car and a fox, at night." """
    return f"{capitalised(listing([looks(group) for group in scene.groups]))}{look_suffix(scene)}."


def long(scene: Scene) -> str:
    """One sentence for each group, then background and style, defaults included."""
    sentences = [
        f"There {be(group.count)} {looks(group)} {PLACE_PHRASES[group.place]}."
        if i == 0
        else f"{capitalised(PLACE_PHRASES[group.place])} there {be(group.count)} {looks(group)}."
        for i, group in enumerate(scene.groups)
    ]
    where = "on a plain page" if scene.background == "plain" else BACKGROUNDS[scene.background].phrases[0]
    sentences.append(f"It is drawn {where}, {STYLES[scene.style].phrases[0]}.")
    return " ".join(sentences)


FREE = Phrases(
    "caption",
    ("{looks}{suffix}.", "{groups}{suffix}.", "A picture of {looks}{suffix}.", "This is a page with {groups}{suffix}.",
     "The picture shows {groups}{suffix}.", "You see {looks}{suffix}.", "A drawing of {looks}{suffix}.",
     "On this page there is {groups}{suffix}."),
)  # fmt: skip


def free(rng: random.Random, scene: Scene, split: Split = "train") -> str:
    """One of many looser captions, short or long; what it says is true, but it need not say everything."""
    if rng.random() < 0.2:
        return long(scene)
    slots = {
        "looks": listing([looks(group) for group in scene.groups]),
        "groups": listing([f"{looks(group)} {PLACE_PHRASES[group.place]}" for group in scene.groups]),
        "suffix": look_suffix(scene),
    }
    return capitalised(FREE.choose(rng, split).format(**slots))


def in_reading_order(scene: Scene) -> Scene:
    """The same picture with its groups from top left to bottom right: the only order that a picture shows."""
    return replace(scene, groups=tuple(sorted(scene.groups, key=lambda group: PLACES.index(group.place))))


def parse_canonical(text: str) -> Scene:
    """The scene of a canonical sentence.

    Raises:
        ValueError: if the text is not a sentence that `canonical` writes.
    """
    body = text.strip()
    if not body.endswith("."):
        raise ValueError(f"a canonical caption ends with a full stop, got {text!r}")
    body = body[:1].lower() + body[1:-1]
    pattern, groups, at = _group_pattern(), [], 0
    while match := pattern.match(body, at):
        groups.append(_group_of(match, text))
        at = match.end()
        joint = re.compile(", | and ").match(body, at)
        if not joint or not pattern.match(body, joint.end()):
            break
        at = joint.end()
    if not groups:
        raise ValueError(f"no group of known things at the start of {text!r}")
    background, style = _parse_looks(body[at:], text)
    return Scene(tuple(groups), background, style)


def _group_of(match: re.Match[str], text: str) -> Group:
    count = 1 if match["count"] in ("a", "an") else COUNT_WORDS.index(match["count"])
    kind = _kinds_by_noun(count == 1).get(match["noun"])
    if kind is None:
        raise ValueError(f"{match['noun']!r} does not agree with the count {match['count']!r} in {text!r}")
    place = next(place for place, phrase in PLACE_PHRASES.items() if phrase == match["place"])
    return Group(kind, count, match["colour"], match["size"] or "medium", place)


def _parse_looks(rest: str, text: str) -> tuple[str, str]:
    background, style = "plain", "storybook"
    for name, look in BACKGROUNDS.items():
        if name != "plain" and (rest == f", {look.phrases[0]}" or rest.startswith(f", {look.phrases[0]}, ")):
            background, rest = name, rest[len(look.phrases[0]) + 2 :]
            break
    for name, look in STYLES.items():
        if name != "storybook" and rest == f", {look.phrases[0]}":
            style, rest = name, ""
    if rest:
        raise ValueError(f"cannot read {rest!r} at the end of the caption {text!r}")
    return background, style


@cache
def _kinds_by_noun(singular: bool) -> dict[str, str]:
    return {noun(kind, 1 if singular else 2): kind for kind in OBJECTS}


@cache
def _group_pattern() -> re.Pattern[str]:
    nouns = sorted({*_kinds_by_noun(True), *_kinds_by_noun(False)}, key=len, reverse=True)
    places = sorted(PLACE_PHRASES.values(), key=len, reverse=True)
    counts = ("an", "a", *COUNT_WORDS[2 : MAX_COUNT + 1])
    return re.compile(
        rf"(?P<count>{'|'.join(counts)}) (?:(?P<size>small|large) )?(?:(?P<colour>{_either(tuple(COLOURS))}) )?"
        rf"(?P<noun>{_either(nouns)}) (?P<place>{_either(places)})(?=$|,| and )"
    )


def _either(words: list[str] | tuple[str, ...]) -> str:
    return "|".join(re.escape(word) for word in words)
