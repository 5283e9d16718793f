"""Repairs a conversation that lacks something: pictures whose files are gone, or a turn that a crash cut off.

In: a `Conversation` that was read back, with `LOST_PICTURE` in place of what could not be. Out: one that can go on.
"""

from __future__ import annotations

from chat_ui.conversation.visitor_conversation import Conversation, Turn
from vargpt.pictures.archive import LOST_PICTURE


def mend(talk: Conversation, is_unfinished: bool = False) -> None:
    """Makes a conversation usable, in place, after pictures or its last turn were lost.

    Pictures are known by their number in the reply. A turn in which those have shifted can no longer be gone back to;
    what was said in it stays.
    """
    last = next(reversed(talk.turns.values()), None)
    if is_unfinished and last is not None and last.reply is None:
        talk.finish(last, None)
    talk.turns = {turn_id: turn for turn_id, turn in talk.turns.items() if is_whole(turn)}
    talk.carried = None if talk.carried is LOST_PICTURE else talk.carried
    talk.marked = None if talk.marked is LOST_PICTURE else talk.marked
    tree = talk.tree
    if talk.current is not None and all(version.id != talk.current for version in tree.versions):
        seen = [tree.holding(part) for message in talk.messages for part in message.images]
        talk.current = next((version.id for version in reversed(seen) if version), None)
        talk.carried = talk.marked = None


def is_whole(turn: Turn) -> bool:
    """Whether a turn lacks nothing, or only the one picture that was attached to it."""
    if any(value is LOST_PICTURE for value in (turn.given, turn.region, turn.carried)):
        return False
    said = turn.reply.parts if turn.reply else ()
    has_shifted = bool(turn.prompt.images) and any(part is LOST_PICTURE for part in turn.prompt.parts)
    return not has_shifted and not any(part is LOST_PICTURE for part in said)
