"""What has been read of a conversation, kept for its next turn: that then reads only what is new.

In: the state of a row whose turn has ended, with the ids and pictures that it holds. Out: that state again, for a
conversation that begins with exactly the same, of the same owner and under the same adapters. The oldest go first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from vargpt.assistant.conversation_state import ConversationState
from vargpt.types import ImagePart

Key = tuple[str, tuple[int, ...], tuple[bytes, ...]]  # owner, ids, pictures


@dataclass
class Prefixes:
    """A store of at most `max_bytes` of keys and values; 0 keeps nothing."""

    max_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        self._kept: OrderedDict[Key, tuple[ConversationState, int]] = OrderedDict()
        self.num_bytes = self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, owner: str, ids: Sequence[int], pictures: Sequence[ImagePart], state: ConversationState) -> None:
        """Keeps a state of one row, which nobody else may use from now on."""
        size = state.num_bytes
        if size > self.max_bytes:
            return
        key = (owner, tuple(ids), tuple(map(fingerprint, pictures)))
        self._drop(key)
        self._kept[key] = (state, size)
        self.num_bytes += size
        while self.num_bytes > self.max_bytes:
            self._drop(next(iter(self._kept)))

    def find(
        self, owner: str, ids: Sequence[int], pictures: Sequence[ImagePart]
    ) -> tuple[int, ConversationState] | None:
        """The longest known beginning: (its number of ids, a copy of its state); None if nothing fits.

        At least one id stays to be read, since its logits are what the reply begins with.
        """
        best: Key | None = None
        marks = tuple(map(fingerprint, pictures)) if any(key[0] == owner for key in self._kept) else ()
        for key in self._kept:
            fits = (
                key[0] == owner
                and len(key[1]) < len(ids)
                and key[2] == marks[: len(key[2])]
                and key[1] == tuple(ids[: len(key[1])])
            )
            if fits and (best is None or len(key[1]) > len(best[1])):
                best = key
        if best is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(best)
        return len(best[1]), self._kept[best][0].select([0])

    def clear(self) -> None:
        self._kept.clear()
        self.num_bytes = 0

    def _drop(self, key: Key) -> None:
        if key in self._kept:
            self.num_bytes -= self._kept.pop(key)[1]


def fingerprint(part: ImagePart) -> bytes:
    """Equal for equal pixels."""
    image = part.image
    return hashlib.blake2b(f"{image.mode}{image.size}".encode() + image.tobytes(), digest_size=16).digest()
