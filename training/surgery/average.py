"""Averages two models of one shape, weight by weight: between a model and what it became by further training.

    python -m training.surgery.average BEFORE AFTER --share 0.7 --out MODEL

A model that was trained further on one thing has often lost some of another; on the straight line between the two lie
models that have most of both (arXiv 2109.01903). In and out: model folders.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from training.command_line import Positional, read_command, user_errors
from vargpt.assistant.model import VARGPT
from vargpt.loading.models import save
from vargpt.published.families import load

logger = logging.getLogger(__name__)
PROG = "python -m training.surgery.average"


@torch.no_grad()
def move_towards(model: VARGPT, other: VARGPT, share: float) -> VARGPT:
    """`model`, in place, moved by `share` of the way towards `other`: 0 leaves it as it is, 1 makes it the other.

    Raises:
        ValueError: the share lies outside 0 to 1, or the models have not the same weights.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of the second model lies between 0 and 1, got {share}")
    ours, theirs = model.state_dict(), other.state_dict()
    different = [name for name in ours.keys() | theirs.keys() if shape_of(ours, name) != shape_of(theirs, name)]
    if different:
        raise ValueError(f"models of different shape cannot be averaged: {', '.join(sorted(different)[:3])} ...")
    moved: set[int] = set()
    for name, weight in ours.items():
        if weight.is_floating_point() and weight.data_ptr() not in moved:  # tied weights have two names
            weight.lerp_(theirs[name].to(weight), share)
            moved.add(weight.data_ptr())
    return model


def shape_of(weights: dict[str, torch.Tensor], name: str) -> torch.Size | None:
    return weights[name].shape if name in weights else None


@dataclass(frozen=True, kw_only=True)
class AverageCommand:
    """Average two models of one shape, weight by weight."""

    before: Positional[Path]
    """Model folder."""
    after: Positional[Path]
    """Model folder of the same shape; its processor is kept."""
    out: Path
    """Model folder to write."""
    share: float = 0.5
    """How much of the second model, 0 to 1."""


def main(arguments: Sequence[str] | None = None) -> None:
    command = read_command(AverageCommand, PROG, arguments)
    with user_errors(PROG):
        before, _ = load(command.before, device="cpu", dtype="float32")
        after, processor = load(command.after, device="cpu", dtype="float32")
        save(move_towards(before, after, command.share), processor, command.out)
    logger.info("%s: %g of the way from %s to %s", command.out, command.share, command.before, command.after)


if __name__ == "__main__":
    main()
