"""Ballots: the picture of a reply that a vote is for or against, with the conversation before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vargpt.chat.requests import seen_messages
from vargpt.types import ImagePart, Message

if TYPE_CHECKING:
    from chat_ui.conversation.visitor_conversation import Conversation, Turn


@dataclass(frozen=True)
class Ballot:
    """The conversation up to a question, its reply, and the index of the picture that a vote is about."""

    prompt: tuple[Message, ...]
    reply: Message
    index: int = 0  # among reply.images


def ballot_of(turn: Turn, index: int) -> Ballot | None:
    """The ballot of picture `index` of a turn; None if it has no such picture."""
    if turn.reply is None or not 0 <= index < len(turn.reply.images):
        return None
    return Ballot((*seen_messages(turn.context), turn.prompt), turn.reply, index)


def ballot_below(conversation: Conversation, cards: Sequence[Mapping[str, Any]]) -> tuple[str, Ballot] | None:
    """The turn id and ballot of a thumb on a message: of the picture cards below it, the one that later turns see."""
    for card in sorted(cards, key=lambda card: card.get("role") == "alternative"):
        turn = conversation.turns.get(card.get("turn", ""))
        ballot = ballot_of(turn, card.get("index", 0)) if turn else None
        if turn and ballot:
            return turn.id, ballot
    return None


def picked(ballot: Ballot) -> ImagePart:
    """The picture that a ballot means."""
    return ballot.reply.images[ballot.index]
