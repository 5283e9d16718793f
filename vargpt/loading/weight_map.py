"""How weights of one naming become weights of another, tensor by tensor, in both directions.

A map is a list of `Rename`s with placeholders for layer numbers ("encoder.down.{i}.block.{j}.conv1.{w}") and of
`Constant`s: buffers that a published file carries and nobody needs. Several published tensors may be pieces of one of
ours. Nothing here knows a model, reads a file or holds more than the tensor it is given, so loading can stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

PLACEHOLDER = re.compile(r"\{(\w+)\}")
CHUNK = re.compile(r"(^|\.)block_chunks\.(\d+)\.module\.(\d+)\.")
FLAT = re.compile(r"(^|\.)chunked\.(\d+)\.")
NUMBERS = set("ijkl")  # these placeholders stand for numbers; any other one for "weight" or "bias"


@dataclass(frozen=True)
class Rename:
    """One tensor, or one of `count` equal `piece`s (along the first axis) of one of ours.

    With `row`, ours is the last row of a published table of `row + 1`, all that is ever used of it. `leading` is how
    many axes of size one the published tensor has before ours begin; `zero` says that the published tensor is zero by
    construction (a key bias that attention cannot see).
    """

    theirs: str
    ours: str
    piece: int = 0
    count: int = 1
    leading: int = 0
    zero: bool = False
    row: int | None = None


@dataclass(frozen=True)
class Constant:
    """A published buffer that is no weight: left out when loading, made again by `value` when writing."""

    theirs: str
    value: Callable[[], Tensor]


@dataclass(frozen=True)
class Place:
    """Where a published tensor belongs: `piece` of `count` of our tensor `name`."""

    name: str
    piece: int
    count: int
    leading: int
    zero: bool
    row: int | None = None


@dataclass(frozen=True)
class WeightMap:
    """Renames of one family. `number` translates layer numbers, theirs to ours and (being its own inverse) back.

    Where `blocks_per_chunk` is given, published blocks stand in chunks ("block_chunks.2.module.1"): the renames speak
    of "chunked.9" instead.
    """

    renames: tuple[Rename, ...]
    constants: tuple[Constant, ...] = ()
    number: Mapping[str, Callable[[int], int]] = field(default_factory=dict)
    blocks_per_chunk: int = 0

    def prefixed(self, theirs: str, ours: str) -> WeightMap:
        """The same map inside larger models."""
        renames = tuple(
            replace(rename, theirs=theirs + rename.theirs, ours=ours + rename.ours) for rename in self.renames
        )
        constants = tuple(Constant(theirs + c.theirs, c.value) for c in self.constants)
        return WeightMap(renames, constants, self.number, self.blocks_per_chunk)

    def place(self, theirs: str) -> Place | None:
        """Where the published tensor `theirs` belongs; None for a constant.

        Raises:
            KeyError: no rule knows this name.
        """
        flat = CHUNK.sub(self._flat, theirs) if self.blocks_per_chunk else theirs
        for rename in self.renames:
            ours = self._translated(flat, rename.theirs, rename.ours)
            if ours is not None:
                return place_of(ours, rename)
        if any(constant.theirs == theirs for constant in self.constants):
            return None
        raise KeyError(theirs)

    def published(self, ours: str) -> list[tuple[str, Place]]:
        """The published tensors that make up our tensor `ours`, in order of their pieces.

        Raises:
            KeyError: no rule knows this name.
        """
        found = []
        for rename in self.renames:
            theirs = self._translated(ours, rename.ours, rename.theirs)
            if theirs is not None:
                theirs = FLAT.sub(self._chunked, theirs) if self.blocks_per_chunk else theirs
                found.append((theirs, place_of(ours, rename)))
        if not found:
            raise KeyError(ours)
        return sorted(found, key=lambda pair: pair[1].piece)

    def export(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Our weights under their published names and shapes, the constants last."""
        for name, tensor in weights:
            for theirs, place in self.published(name):
                piece = tensor.chunk(place.count)[place.piece]
                if place.row is not None:
                    piece = torch.cat((piece.new_zeros(place.row, *piece.shape), piece[None]))
                yield theirs, piece.reshape((1,) * place.leading + tuple(piece.shape))
        for constant in self.constants:
            yield constant.theirs, constant.value()

    def _flat(self, found: re.Match[str]) -> str:
        return f"{found.group(1)}chunked.{int(found.group(2)) * self.blocks_per_chunk + int(found.group(3))}."

    def _chunked(self, found: re.Match[str]) -> str:
        chunk, block = divmod(int(found.group(2)), self.blocks_per_chunk)
        return f"{found.group(1)}block_chunks.{chunk}.module.{block}."

    def _translated(self, name: str, pattern: str, into: str) -> str | None:
        match = compiled(pattern).fullmatch(name)
        if match is None:
            return None
        values = match.groupdict()
        for key, translate in self.number.items():
            if key in values:
                values[key] = str(translate(int(values[key])))
        return PLACEHOLDER.sub(lambda found: values[found.group(1)], into)


def place_of(ours: str, rename: Rename) -> Place:
    return Place(ours, rename.piece, rename.count, rename.leading, rename.zero, rename.row)


_COMPILED: dict[str, re.Pattern[str]] = {}


def compiled(pattern: str) -> re.Pattern[str]:
    """A regular expression of a name with placeholders."""
    if pattern not in _COMPILED:
        parts = PLACEHOLDER.split(pattern)  # text, name, text, name, ..., text
        text = "".join(
            re.escape(part) if index % 2 == 0 else f"(?P<{part}>{r'[0-9]+' if part in NUMBERS else r'weight|bias'})"
            for index, part in enumerate(parts)
        )
        _COMPILED[pattern] = re.compile(text)
    return _COMPILED[pattern]


def fill(target: Tensor, place: Place, tensor: Tensor) -> None:
    """Copies a published tensor into its place.

    Raises:
        ValueError: the shapes differ, or a tensor that must be zero is not.
    """
    piece = target.chunk(place.count)[place.piece]
    if place.row is not None and tensor.shape[0] == place.row + 1:
        tensor = tensor[place.row]
    if tuple(tensor.shape) != (1,) * place.leading + tuple(piece.shape):
        raise ValueError(
            f"{place.name} takes a tensor of shape {(1,) * place.leading + tuple(piece.shape)}, "
            f"the file holds {tuple(tensor.shape)}: is the config that of this checkpoint?"
        )
    if place.zero and bool(tensor.any()):
        raise ValueError(f"a part of {place.name} is zero in every published checkpoint, but not in this file")
    with torch.no_grad():
        piece.copy_(tensor.reshape(piece.shape))
