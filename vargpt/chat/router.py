"""One assistant turn as a state machine on token ids: what a sampled id means, and which ids may not be sampled now.

In: token ids, one at a time. Out: actions. No tensors and no model, so that every rule of a turn can be read and tested
here: control tokens never reach the reader, a picture is opened at most `max_images` times, a turn ends once.

    TEXT --image_start--> IMAGE --image_end--> TEXT --end_of_turn--> DONE
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from vargpt.types import Route


class State(Enum):
    """Where a turn stands. In IMAGE the generator draws and no text token is sampled."""

    TEXT = auto()
    IMAGE = auto()
    DONE = auto()


@dataclass(frozen=True)
class EmitText:
    """Show this token to the reader and feed it."""

    token_id: int


@dataclass(frozen=True)
class OpenImage:
    """Feed `image_start` (whatever was sampled) and let the generator draw."""


@dataclass(frozen=True)
class Finish:
    """The turn is over; feed nothing more."""


@dataclass(frozen=True)
class Drop:
    """Show nothing: the id means nothing in this state."""


Action = EmitText | OpenImage | Finish | Drop


@dataclass(frozen=True)
class RouterIds:
    """The ids that steer a turn; `control` are those that only the processor writes (placeholders, headers)."""

    image_start: int
    image_end: int
    end_of_turn: frozenset[int]
    control: frozenset[int]

    def __post_init__(self) -> None:
        steering = {self.image_start, self.image_end}
        if len(steering) < 2 or steering & self.end_of_turn or not self.end_of_turn:
            raise ValueError(f"image_start, image_end and end_of_turn must be different ids, got {self}")
        if (self.end_of_turn | {self.image_start}) & self.control:
            raise ValueError("an id that the model must be able to sample is listed as a control id")


class Router:
    """Follows one turn.

    `route="text"` forbids pictures. `route="image"` demands one: text may come before it, but where the turn would end
    without a picture, a picture opens instead.
    """

    def __init__(self, ids: RouterIds, route: Route = "auto", max_images: int = 1) -> None:
        self.ids = ids
        self.route = route
        self.max_images = 0 if route == "text" else max_images
        self.state = State.TEXT
        self.num_images = 0

    @property
    def may_open(self) -> bool:
        return self.num_images < self.max_images

    @property
    def must_open(self) -> bool:
        return self.route == "image" and self.num_images == 0 and self.may_open

    @property
    def banned(self) -> frozenset[int]:
        """The ids whose logits must be masked before the next token is sampled."""
        never = self.ids.control | {self.ids.image_end}
        return never if self.may_open else never | {self.ids.image_start}

    def feed(self, token_id: int) -> Action:
        """What to do with the next id of the turn. Any id is allowed in any state."""
        if self.state is State.TEXT:
            return self._feed_text(token_id)
        if self.state is State.IMAGE and token_id == self.ids.image_end:
            self.state = State.TEXT
        return Drop()

    def cut(self) -> Action:
        """What to do when no more text may come: a demanded picture is still drawn, else the turn ends."""
        return Drop() if self.state is not State.TEXT else self._end()

    def _feed_text(self, token_id: int) -> Action:
        if token_id in self.ids.end_of_turn:
            return self._end()
        if token_id == self.ids.image_start:
            return self._open() if self.may_open else Drop()
        if token_id == self.ids.image_end or token_id in self.ids.control:
            return Drop()
        return EmitText(token_id)

    def _open(self) -> Action:
        self.state = State.IMAGE
        self.num_images += 1
        return OpenImage()

    def _end(self) -> Action:
        if self.must_open:
            return self._open()
        self.state = State.DONE
        return Finish()
