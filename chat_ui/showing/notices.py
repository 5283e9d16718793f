"""What the page says when something goes wrong or takes time: one sentence, with what to do. Pure functions."""

from __future__ import annotations

from vargpt.chat.scheduler import QueueFullError

OUT_OF_MEMORY = (
    "The machine ran out of memory for this. Ask for fewer pictures per reply or a smaller size (the gear next to the "
    "clip), or start a new conversation with the pencil at the top left."
)
TOO_BUSY = "Too many people are being answered at this moment. Your question was not sent; ask again in a minute."


def explanation(error: BaseException) -> str:
    """What a visitor is told when a turn failed with `error`."""
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    if isinstance(error, QueueFullError):
        return TOO_BUSY
    if isinstance(error, FileNotFoundError):
        return f"The model could not be loaded: {error}"
    if isinstance(error, ValueError | OSError | RuntimeError):
        return f"This could not be answered: {error}"
    return f"Something went wrong that should not have ({type(error).__name__}: {error}). Ask once more."


def waiting(is_loaded: bool, position: int) -> str:
    """The line that stands in for a reply that has not begun; empty if it is about to.

    Args:
        is_loaded: whether the model is in memory.
        position: of the request: 0 = being answered, 1 = next, and so on.
    """
    if position > 1:
        return f"Others are being answered first: {position - 1} before you …"
    if not is_loaded:
        return "The model is being loaded …"
    return "You are next …" if position else ""


def set_aside(count: int) -> str:
    """That the oldest pictures had to go; empty for none."""
    if not count:
        return ""
    pictures = "The oldest picture was" if count == 1 else f"The {count} oldest pictures were"
    return f"{pictures} set aside: the conversation had grown longer than the model can read."
