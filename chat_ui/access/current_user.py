"""Who is asking: set for every request from a browser, read wherever something belongs to somebody.

Chainlit checks this at some of its doors and not at others (votes, picture cards); the store does at all of its own.
"""

from __future__ import annotations

from contextvars import ContextVar

from fastapi import HTTPException

asking: ContextVar[str | None] = ContextVar("asking", default=None)  # a user's identifier; None = the page itself


class NotYoursError(HTTPException):
    """What was asked for belongs to somebody else, or is not there; which of the two is not told."""

    def __init__(self, what: str = "conversation") -> None:
        super().__init__(404, f"there is no such {what}")


def is_allowed(owner: str | None) -> bool:
    """Whether the page itself is asking, or the owner."""
    return asking.get() is None or asking.get() == owner


def check_owner(owner: str | None) -> None:
    """Raises NotYoursError unless the page itself is asking, or the owner."""
    if not is_allowed(owner):
        raise NotYoursError
