"""One visitor's conversation: what the model has been told, what may be asked again, what is set aside when it is full.

In: words and uploaded files. Out: the messages of the next request. No Chainlit and no model in here.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from PIL import Image

from chat_ui.conversation.page_settings import PageSettings
from chat_ui.conversation.version_tree import UNKNOWN, How, Tree, Version, tree_of, version_id
from vargpt.chat.requests import choose_picture
from vargpt.pictures.files import open_picture
from vargpt.sampling import MAX_SEED
from vargpt.types import ChatRequest, ImagePart, Message, Route

NEW_SEEDS = 1_000_000  # short enough to be read aloud
NUM_VARIATIONS = 3
WORDLESS = "what is in the picture?"  # what is asked when pictures come without a word
NOTHING_AT_ALL = "There is nothing to undo: nothing has been drawn or attached yet."
NOTHING_BEFORE = "There is nothing to undo: the conversation began with this picture."
NOT_DRAWN = "Only a picture that was drawn here, scale by scale, can keep some of its scales."


class Stoppable(Protocol):
    """What the conversation needs of the turn that runs."""

    def cancel(self) -> None:
        """Ends it soon; from any thread."""


@dataclass
class Turn:
    """One question and what it was asked with. `context` is what the model reads; the reply is added to `base`."""

    id: str
    prompt: Message
    base: tuple[Message, ...]
    context: tuple[Message, ...]
    seed: int
    settings: PageSettings
    route: Route = "auto"
    reply: Message | None = None
    is_again: bool = False
    how: How = "drawn"
    made_from: str | None = None  # id of the picture that a picture of the reply is made from
    before: str | None = None  # id of the picture that was the current one when this was asked
    given: ImagePart | None = None  # keep its first `keep_scales` scales
    keep_scales: int = 0
    region: Image.Image | None = None  # what may change (white) of the picture it is made from
    carried: ImagePart | None = None  # an attached picture of an earlier question that was attached once more
    num_pictures: int | None = None  # None = as in the settings

    @property
    def n(self) -> int:
        return self.settings.pictures if self.num_pictures is None else self.num_pictures

    @property
    def request(self) -> ChatRequest:
        asked = self.settings.request((*self.context, self.prompt), self.seed, self.route)
        keeps_its_size = self.given is not None or self.region is not None
        return replace(
            asked,
            n=self.n,
            size=None if keeps_its_size else asked.size,
            given=self.given,
            keep_scales=self.keep_scales,
            region=self.region,
        )

    def set_aside_a_picture(self) -> bool:
        """Drops the oldest picture of the context; False when there is none left."""
        shorter = without_oldest_picture(self.context)
        if shorter is None:
            return False
        if self.base == self.context:
            self.base = shorter
        self.context = shorter
        return True


@dataclass
class Conversation:
    """What has been said so far (`messages`), and every turn by the id of the page's message that asked for it.

    `current` is the id of the picture that the next change starts from: the last one that the model sees.
    """

    messages: tuple[Message, ...] = ()
    settings: PageSettings = PageSettings()
    turns: dict[str, Turn] = field(default_factory=dict)
    current: str | None = None
    carried: ImagePart | None = None  # goes with the next question: an attached picture that was gone back to
    marked: Image.Image | None = None  # the part of the current picture that alone the next question may change
    running: Stoppable | None = None

    @property
    def is_busy(self) -> bool:
        return self.running is not None

    @property
    def tree(self) -> Tree:
        """Every picture of the conversation, attached or drawn."""
        return tree_of(version for turn in self.turns.values() for version in self._versions(turn))

    def ask(self, turn_id: str, prompt: Message, route: Route = "auto", is_new: bool = False) -> Turn:
        """A new turn; an id that is known already is an edited question, and all that came after it is forgotten.

        Args:
            turn_id: of the page's message.
            prompt: what was said, and the pictures attached to it.
            route: what the reply is to be.
            is_new: a picture is asked for that is made from no other, unless something is attached, marked or leant on.
        """
        if turn_id in self.turns:
            self._forget_from(turn_id)
        before, made_from, carried, region = self.current, self.current, None, self.marked
        if prompt.images:  # they are what this is about, whatever was marked before
            made_from, region = version_id(turn_id, len(prompt.images) - 1, is_attached=True), None
        elif self.carried is not None:
            carried = self.carried
            prompt = Message.of("user", carried, *prompt.parts)
        if is_new and not (prompt.images or region or self.settings.faithfulness):
            made_from = None
        self.carried = self.marked = None
        return self._add(
            Turn(
                turn_id, prompt, self.messages, self.messages, self._new_seed(), self.settings, route,
                made_from=made_from, before=before, region=region, carried=carried,
            )
        )  # fmt: skip

    def again(self, turn_id: str, new_id: str) -> Turn:
        """The same question with the next seed. The conversation goes on from its reply, at the question's own place.

        Raises:
            ValueError: no such turn in this conversation.
        """
        old = self._turn(turn_id)
        how: How = "again" if old.how == "drawn" else old.how
        return self._add(
            replace(old, id=new_id, seed=self._next_seed(old), reply=None, is_again=True, before=self.current, how=how)
        )

    def refine(self, version: str, keep_scales: int, new_id: str) -> Turn:
        """The first scales of a drawn picture are kept and the finer ones drawn anew.

        Raises:
            ValueError: no such picture, one that was not drawn here, or one that has not so many scales.
        """
        found = self.tree.find(version)
        num_scales = scales_of(found.part)
        if not num_scales:
            raise ValueError(NOT_DRAWN)
        if not 1 <= keep_scales < num_scales:
            raise ValueError(f"Of {num_scales} scales 1 to {num_scales - 1} can be kept, not {keep_scales}.")
        return self._from_scales(found, keep_scales, new_id, "refined", 1)

    def vary(self, version: str, new_id: str) -> Turn:
        """Several pictures that share the coarser half of a drawn picture's scales.

        Raises:
            ValueError: no such picture, or one that was not drawn here.
        """
        found = self.tree.find(version)
        if scales_of(found.part) < 2:
            raise ValueError(NOT_DRAWN)
        return self._from_scales(found, scales_of(found.part) // 2, new_id, "variation", NUM_VARIATIONS)

    def mark(self, version: str, region: Image.Image) -> None:
        """The next question changes only this part (white) of this picture.

        Raises:
            ValueError: no such picture.
        """
        if version != self.current:
            self.go_to(version)
        self.marked = region

    def unmark(self) -> None:
        """The next question may change the whole picture again."""
        self.marked = None

    def finish(self, turn: Turn, reply: Message | None) -> None:
        """Keeps question and reply; a turn that said nothing leaves no trace in what the model reads next."""
        turn.reply = reply
        if turn.is_again and (reply is None or not reply.images):
            return  # another try that was stopped does not cost the picture that is there
        if reply is None:
            if turn.made_from == self.current:  # nothing is used up by a question that was not answered
                self.carried, self.marked = turn.carried, turn.region
            return
        self.messages = (*turn.base, turn.prompt, reply)
        seen = [index for index, part in enumerate(reply.images) if not part.settings.get("alternative", 0)]
        if seen:
            self.current = version_id(turn.id, seen[-1])
        elif turn.prompt.images:
            self.current = turn.made_from

    def choose(self, turn_id: str, index: int) -> Message:
        """The conversation goes on from picture `index` of this turn's reply, whatever was said since; the reply then.

        Raises:
            ValueError: no such turn, or no such picture.
        """
        turn = self._turn(turn_id)
        if turn.reply is None:
            raise ValueError(UNKNOWN)
        turn.reply = choose_picture(turn.reply, index)
        self.messages = (*turn.base, turn.prompt, turn.reply)
        self.current, self.carried, self.marked = version_id(turn_id, index), None, None
        return turn.reply

    def go_to(self, version: str) -> Version:
        """The conversation goes on from this picture, as if nothing had been said since it came.

        Raises:
            ValueError: no such picture.
        """
        found = self.tree.find(version)
        if found.how == "attached":
            self.messages, self.carried = self._turn(found.turn).base, found.part
            self.current, self.marked = version, None
        else:
            self.choose(found.turn, found.index)
        return found

    def undo(self) -> Version:
        """Goes back to the picture that was the current one before the last was made.

        Raises:
            ValueError: there was none.
        """
        if self.current is None:
            raise ValueError(NOTHING_AT_ALL)
        if self.undone is None:
            raise ValueError(NOTHING_BEFORE)
        return self.go_to(self.undone)

    @property
    def undone(self) -> str | None:
        """Id of the picture that `undo` goes back to."""
        if self.current is None:
            return None
        tree = self.tree
        now = tree.find(self.current)
        earlier = [version.id for version in tree.versions[: tree.number(now.id) - 1]]
        before = self._turn(now.turn).before
        return before if before in earlier else now.parent

    def _versions(self, turn: Turn) -> Iterator[Version]:
        attached = () if turn.is_again or turn.carried else turn.prompt.images
        for index, part in enumerate(attached):
            yield Version(turn.id, index, part, None, "attached", turn.prompt.text)
        for index, part in enumerate(turn.reply.images if turn.reply else ()):
            yield Version(turn.id, index, part, turn.made_from, turn.how, turn.prompt.text)

    def _from_scales(self, version: Version, keep_scales: int, new_id: str, how: How, count: int) -> Turn:
        old = self._turn(version.turn)
        return self._add(
            replace(
                old, id=new_id, seed=self._next_seed(old), settings=self.settings, reply=None, is_again=True, how=how,
                given=version.part, keep_scales=keep_scales, num_pictures=count, made_from=version.id,
                region=None, before=self.current,
            )
        )  # fmt: skip

    def _forget_from(self, turn_id: str) -> None:
        first = self.turns[turn_id]
        self.messages, self.current, self.carried, self.marked = first.base, first.before, first.carried, first.region
        ids = list(self.turns)
        for later in ids[ids.index(turn_id) :]:
            del self.turns[later]

    def _turn(self, turn_id: str) -> Turn:
        if turn_id not in self.turns:
            raise ValueError(UNKNOWN)
        return self.turns[turn_id]

    def _next_seed(self, old: Turn) -> int:
        """The first seed that no try of this question has used."""
        last = [turn for turn in self.turns.values() if turn.prompt is old.prompt][-1]
        return (last.seed + last.n) % (MAX_SEED + 1)

    def _add(self, turn: Turn) -> Turn:
        self.turns[turn.id] = turn
        return turn

    def _new_seed(self) -> int:
        return secrets.randbelow(NEW_SEEDS) if self.settings.seed is None else self.settings.seed


def scales_of(part: ImagePart) -> int:
    """Of how many scales a picture was drawn; 0 if it was not drawn here."""
    return 0 if part.tokens is None else part.tokens.layout.num_scales


def without_oldest_picture(messages: tuple[Message, ...]) -> tuple[Message, ...] | None:
    """The same messages without their first picture, or None if there is none.

    A message that was nothing but this picture would be empty, so its whole exchange (question and answer) goes.
    """
    for index, message in enumerate(messages):
        if not message.images:
            continue
        first = message.images[0]
        parts = tuple(part for part in message.parts if part is not first)
        if parts:
            return (*messages[:index], Message(message.role, parts), *messages[index + 1 :])
        start = next((i for i in range(index, -1, -1) if messages[i].role == "user"), index)
        end = next((i for i in range(index + 1, len(messages)) if messages[i].role == "user"), len(messages))
        return (*messages[:start], *messages[end:])
    return None


def question(words: str, files: Iterable[tuple[str, bytes]] = ()) -> Message:
    """A user message from what was typed and attached (name and bytes of each file); pictures come before words.

    Raises:
        ValueError: nothing was said, or a file is no picture; the message names the file.
    """
    pictures = []
    for name, data in files:
        try:
            pictures.append(ImagePart(open_picture(data)))
        except ValueError as error:
            raise ValueError(f"“{name}” could not be used: {error}.") from error
    words = words.strip() or (WORDLESS if pictures else "")
    if not words:
        raise ValueError("There was nothing to answer: type some words or attach a picture.")
    return Message.of("user", *pictures, words)
