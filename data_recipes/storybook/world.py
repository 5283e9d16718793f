"""The vocabulary of the storybook world: what can be drawn, in which colours, before which backgrounds, in which styles."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ObjectKind:
    """One kind of thing. `name` is what we call it ("fox"), `synonyms` what people may also say ("red fox")."""

    name: str
    plural: str
    category: str  # a name in CATEGORIES: "animal", "plant", "food", ...
    synonyms: tuple[str, ...] = ()
    glyph: str | None = None  # the emoji it is drawn from; None for plain shapes, which are drawn by code
    recolourable: bool = False  # shapes and hue-shiftable things, which may carry any of COLOURS
    colour: str | None = None  # the colour word of its usual look, where one word fits ("red" for an apple)


@dataclass(frozen=True)
class Look:
    """A background or a style: its name and the ways to say it ("at night", "during the night")."""

    name: str
    phrases: tuple[str, ...]


COLOURS: dict[str, tuple[int, int, int]] = {}
CATEGORIES: tuple[str, ...] = ()
OBJECTS: dict[str, ObjectKind] = {}
BACKGROUNDS: dict[str, Look] = {}
STYLES: dict[str, Look] = {}
