"""Every picture of a conversation as a tree: which was made from which, and where each stands when the tree is drawn.

In: pictures in the order in which they came. Out: `Tree`, and for every picture its place on a grid. No page and no
model in here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vargpt.types import ImagePart

How = Literal["attached", "drawn", "again", "refined", "variation"]
UNKNOWN = "This picture belongs to a conversation that has ended; ask for it once more."


@dataclass(frozen=True, eq=False)
class Version:
    """One picture: number `index` among those of the question (attached) or of the reply of turn `turn`."""

    turn: str
    index: int
    part: ImagePart
    parent: str | None = None  # id of the picture it was made from
    how: How = "drawn"
    words: str = ""  # what was asked for

    @property
    def id(self) -> str:
        return version_id(self.turn, self.index, is_attached=self.how == "attached")


@dataclass(frozen=True, eq=False)
class Tree:
    """Versions in the order in which they came; a parent always comes before its children."""

    versions: tuple[Version, ...] = ()

    def find(self, wanted: str | None) -> Version:
        """The version of this id.

        Raises:
            ValueError: there is none.
        """
        for version in self.versions:
            if version.id == wanted:
                return version
        raise ValueError(UNKNOWN)

    def holding(self, part: ImagePart) -> Version | None:
        """The version that is exactly this picture."""
        return next((version for version in self.versions if version.part is part), None)

    def number(self, wanted: str | None) -> int:
        """1 for the first picture of the conversation, and so on."""
        return self.versions.index(self.find(wanted)) + 1

    def numbered(self, number: int) -> Version:
        """The inverse of `number`.

        Raises:
            ValueError: no picture has this number.
        """
        if not 1 <= number <= len(self.versions):
            count = len(self.versions)
            allowed = f"choose one from 1 to {count}" if count else "nothing has been drawn or attached yet"
            raise ValueError(f"There is no version {number}: {allowed}.")
        return self.versions[number - 1]

    def path(self, wanted: str | None) -> tuple[Version, ...]:
        """From the picture that it all began with to this one; empty for None."""
        path: list[Version] = []
        while wanted is not None:
            path.insert(0, self.find(wanted))
            wanted = path[0].parent
        return tuple(path)

    def children(self, parent: str | None) -> tuple[Version, ...]:
        """What was made from a version; of None, the pictures that were made from no other."""
        return tuple(version for version in self.versions if version.parent == parent)

    def places(self) -> dict[str, tuple[int, int]]:
        """(column, row) of every id: a column right of its parent; a first child in its parent's row, others below."""
        places: dict[str, tuple[int, int]] = {}
        num_rows = 0
        to_place: list[tuple[Version, int, int | None]] = [(root, 0, None) for root in reversed(self.children(None))]
        while to_place:
            version, column, row = to_place.pop()
            if row is None:
                row, num_rows = num_rows, num_rows + 1
            places[version.id] = (column, row)
            first, *others = self.children(version.id) or (None,)
            to_place += [(child, column + 1, None) for child in reversed(others)]
            to_place += [(first, column + 1, row)] if first else []
        return places


def version_id(turn: str, index: int, is_attached: bool = False) -> str:
    """How a picture is named on the page."""
    return f"{turn}/{'in' if is_attached else ''}{index}"


def tree_of(versions: Iterable[Version]) -> Tree:
    """A tree; a version whose parent is not among those before it (it was forgotten) becomes a beginning of its own."""
    known: dict[str, Version] = {}
    for version in versions:
        parent = version.parent if version.parent in known else None
        kept = Version(version.turn, version.index, version.part, parent, version.how, version.words)
        known.setdefault(kept.id, kept)
    return Tree(tuple(known.values()))
