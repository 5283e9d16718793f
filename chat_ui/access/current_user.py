"""The user of the current request: set for every request from a browser, read wherever data belongs to a user.

Chainlit checks the owner in some of its routes and not in others (votes, picture cards); the store checks it always.
"""

from __future__ import annotations

from contextvars import ContextVar

from fastapi import HTTPException

asking: ContextVar[str | None] = ContextVar("asking", default=None)  # a user's identifier; None = the page itself


class NotYoursError(HTTPException):
    """What was asked for is not there or belongs to another user; the message does not tell which."""

    def __init__(self, what: str = "conversation") -> None:
        super().__init__(404, f"there is no such {what}")


def is_allowed(owner: str | None) -> bool:
    """Whether the request comes from the owner, or from the page itself (no user)."""
    return asking.get() is None or asking.get() == owner


def check_owner(owner: str | None) -> None:
    """Raises NotYoursError unless `is_allowed`."""
    if not is_allowed(owner):
        raise NotYoursError
