"""Which of the scales of a forming picture a client is shown that asked for a few."""

from __future__ import annotations

from vargpt.types import ImagePreview


def is_shown(preview: ImagePreview, count: int) -> bool:
    """Whether a preview is one of the `count` that are spread evenly over the scales before the last one."""
    return preview.step in shown_steps(preview.total, count)


def partial_index(preview: ImagePreview, count: int) -> int:
    """0, 1 ... of a preview that is shown."""
    return shown_steps(preview.total, count).index(preview.step)


def shown_steps(total: int, count: int) -> list[int]:
    """At most `count` steps from 1 to `total` - 1, evenly spread: (8, 3) -> [2, 4, 6]."""
    return sorted({round(total * place / (count + 1)) for place in range(1, count + 1)} - {0, total})
