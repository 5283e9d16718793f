"""One visitor's conversation: what the model has been told, what may be asked again, what is set aside when it is full.

In: words and uploaded files. Out: the messages of the next request. No Chainlit and no model in here.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from chat_ui.settings import MAX_SEED, PageSettings
from vargpt.chat.pictures import open_picture
from vargpt.chat.requests import choose_picture
from vargpt.types import ChatRequest, ImagePart, Message, Route

NEW_SEEDS = 1_000_000  # short enough to be read aloud
FORGOTTEN = "This picture belongs to a conversation that has ended; ask for it once more."
WORDLESS = "what is in the picture?"  # what is asked when pictures come without a word


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

    @property
    def request(self) -> ChatRequest:
        return self.settings.request((*self.context, self.prompt), self.seed, self.route)

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
    """What has been said so far (`messages`), and every turn by the id of the page's message that asked for it."""

    messages: tuple[Message, ...] = ()
    settings: PageSettings = PageSettings()
    turns: dict[str, Turn] = field(default_factory=dict)
    cancel: threading.Event | None = None  # of the turn that is running

    @property
    def is_busy(self) -> bool:
        return self.cancel is not None

    def ask(self, turn_id: str, prompt: Message, route: Route = "auto") -> Turn:
        """A new turn; an id that is known already is an edited question, and all that came after it is forgotten."""
        if turn_id in self.turns:
            self.messages = self.turns[turn_id].base
            ids = list(self.turns)
            for later in ids[ids.index(turn_id) :]:
                del self.turns[later]
        return self._add(Turn(turn_id, prompt, self.messages, self.messages, self._new_seed(), self.settings, route))

    def again(self, turn_id: str, new_id: str) -> Turn:
        """The same question with the next seed. It takes the place of the last reply; an older question is asked anew.

        Raises:
            ValueError: no such turn in this conversation.
        """
        if turn_id not in self.turns:
            raise ValueError(FORGOTTEN)
        old = self.turns[turn_id]
        tries = [turn for turn in self.turns.values() if turn.prompt is old.prompt]
        is_last = tries[-1] is list(self.turns.values())[-1]
        base = old.base if is_last else self.messages
        seed = (tries[-1].seed + old.settings.pictures) % (MAX_SEED + 1)
        return self._add(replace(old, id=new_id, base=base, seed=seed, reply=None, is_again=True))

    def finish(self, turn: Turn, reply: Message | None) -> None:
        """Keeps question and reply; a turn that said nothing leaves no trace in what the model reads next."""
        turn.reply = reply
        if turn.is_again and (reply is None or not reply.images):
            return  # another try that was stopped does not cost the picture that is there
        if reply is not None:
            self.messages = (*turn.base, turn.prompt, reply)

    def choose(self, turn_id: str, index: int) -> Message:
        """Of several pictures drawn for one wish, number `index` is from now on the one that the model sees.

        Raises:
            ValueError: no such turn, or no such picture.
        """
        old = self.turns[turn_id].reply if turn_id in self.turns else None
        if old is None:
            raise ValueError(FORGOTTEN)
        chosen = choose_picture(old, index)
        self.turns[turn_id].reply = chosen
        self.messages = _exchanged(self.messages, old, chosen)
        for turn in self.turns.values():
            turn.base, turn.context = _exchanged(turn.base, old, chosen), _exchanged(turn.context, old, chosen)
        return chosen

    def _add(self, turn: Turn) -> Turn:
        self.turns[turn.id] = turn
        return turn

    def _new_seed(self) -> int:
        return secrets.randbelow(NEW_SEEDS) if self.settings.seed is None else self.settings.seed


def _exchanged(messages: tuple[Message, ...], old: Message, new: Message) -> tuple[Message, ...]:
    return tuple(new if message is old else message for message in messages)


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
