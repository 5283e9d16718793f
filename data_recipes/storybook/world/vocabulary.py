"""The vocabulary of the storybook world: things, colours, backgrounds and styles, with the words people use."""

from __future__ import annotations

from dataclasses import dataclass

from data_recipes.storybook.world.things import TABLE


@dataclass(frozen=True)
class ObjectKind:
    """One kind of thing. `name` is what we call it ("fox"), `synonyms` what people may also say ("red fox")."""

    name: str
    plural: str
    category: str  # a name in CATEGORIES: "animal", "plant", "food", ...
    synonyms: tuple[str, ...] = ()
    glyph: str | None = None  # the emoji it is drawn from; None for plain shapes, which are drawn by code
    recolourable: bool = False  # shapes and hue-shiftable things, which may carry any of COLOURS
    # The colour word of its usual look, where one word fits ("red" for an apple). A recolourable kind without an
    # explicit colour is drawn in exactly this one, so that "a car" and "a red car" are the same picture.
    colour: str | None = None


@dataclass(frozen=True)
class Look:
    """A background or a style: its name and the ways to say it ("at night", "during the night")."""

    name: str
    phrases: tuple[str, ...]


def _kind(category: str, line: str) -> ObjectKind:
    """One line of the table (`name | plural | glyph | colour | synonyms`); missing fields at the end are empty."""
    cells = [cell.strip() for cell in line.split("|")]
    name, plural, glyph, colour, synonyms = cells + [""] * (5 - len(cells))
    return ObjectKind(
        name=name,
        plural=plural or name + "s",
        category=category,
        synonyms=tuple(word.strip() for word in synonyms.split(",") if word.strip()),
        glyph=glyph or None,
        recolourable=colour.endswith("*"),
        colour=colour.rstrip("*") or None,
    )


def _looks(**phrases: tuple[str, ...]) -> dict[str, Look]:
    looks = [Look(name.replace("_", " "), ways) for name, ways in phrases.items()]
    return {look.name: look for look in looks}


COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 25),
    "yellow": (250, 215, 40),
    "green": (50, 165, 65),
    "blue": (45, 100, 225),
    "purple": (140, 65, 190),
    "pink": (250, 130, 185),
    "brown": (130, 80, 45),
    "black": (40, 40, 45),
    "white": (250, 250, 250),
}

CATEGORIES: tuple[str, ...] = tuple(TABLE)

OBJECTS: dict[str, ObjectKind] = {
    kind.name: kind
    for category, lines in TABLE.items()
    for kind in (_kind(category, line) for line in lines.strip().splitlines())
}

BACKGROUNDS: dict[str, Look] = _looks(
    plain=("on plain paper", "on a plain background", "on a blank page"),
    meadow=("in a meadow", "on the grass", "in a green field"),
    forest=("in a forest", "in the woods", "among the trees"),
    beach=("on a beach", "at the beach", "by the seaside"),
    sea=("under the sea", "underwater", "at the bottom of the sea"),
    desert=("in a desert", "in the desert", "among the dunes"),
    snow=("in the snow", "in a snowy landscape", "on a snowy day"),
    mountains=("in the mountains", "before the mountains", "in a mountain valley"),
    city=("in a city", "in the city", "before the skyline of a town"),
    night=("at night", "under the stars", "during the night"),
)

STYLES: dict[str, Look] = _looks(
    storybook=("in storybook style", "as a storybook page", "in the usual style"),
    pixel_art=("in pixel art style", "as pixel art", "in a blocky pixel style"),
    sepia=("in sepia", "as an old sepia photo", "in sepia tones"),
    black_and_white=("in black and white", "as a black and white picture", "in shades of grey", "in black & white"),
    watercolour=("as a watercolour", "in watercolour style", "painted in watercolour"),
    pencil_sketch=("as a pencil sketch", "drawn in pencil", "as a crayon sketch"),
)
