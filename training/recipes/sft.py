"""Fine-tunes a model on public data sets: the folders that `python -m data_recipes.public.build` has made.

    python -m training.recipes.sft --data built/llava_instruct built/stylebooth --run-dir runs/sft
    python -m training.recipes.sft --data built/journeydb --model MODEL --learns generator projector_in projector_out
    torchrun --nproc-per-node 8 -m training.recipes.sft --data built/journeydb --model MODEL --sharded

Rows of all folders are mixed in proportion to their numbers, and each comes once before any comes again. The averaged
weights are exported as a model folder. The same command continues a run that was stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from data_recipes.public.built_folder import stream
from training.command_line import UNNAMED, read_command, user_errors
from training.data import BatchSettings
from training.distributed import is_main
from training.loop import LoopSettings
from training.stages import learn_only
from training.supervised import SftSettings, export, train
from vargpt.published.families import load

logger = logging.getLogger(__name__)
PROG = "python -m training.recipes.sft"


def public_sft() -> SftSettings:
    """Fine-tuning of nano on built folders: 1,000 steps of 32 conversations, an epoch of 32,000 rows."""
    return SftSettings(
        loop=LoopSettings(total_steps=1000, learning_rate=2e-4, warmup_steps=50, ema_decay=0.998),
        batches=BatchSettings(pool_size=256, batches_per_pool=8, all_slots_every=4),
    )


@dataclass(frozen=True, kw_only=True)
class SftCommand:
    """Fine-tune a model on the folders that `python -m data_recipes.public.build` has made."""

    data: tuple[Path, ...]
    """Built folders."""
    model: str | None = None
    """Model folder, or an id on the hub, to begin with (default: the shipped nano)."""
    run_dir: Path = Path("runs/sft")
    """Where metrics and checkpoints go."""
    export: Path | None = None
    """Model folder to write (default: model/ in the run dir)."""
    learns: tuple[str, ...] = ()
    """Which modules learn, such as generator or language_model (default: all but the image tokenizer)."""
    minutes: float | None = None
    """Stop (and save) after this long; the schedule stays in steps."""
    sft: Annotated[SftSettings, UNNAMED] = field(default_factory=public_sft)


def main(arguments: Sequence[str] | None = None) -> None:
    command = read_command(SftCommand, PROG, arguments)
    settings = replace(command.sft, loop=replace(command.sft.loop, time_budget_minutes=command.minutes))
    with user_errors(PROG):
        conversations = stream(command.data, seed=settings.batches.seed)
        model, processor = load(command.model, device="cpu", dtype="float32")
        if command.learns:
            learn_only(model, command.learns)
    finished = train(model, processor, conversations, settings, command.run_dir)
    if not finished.done:
        logger.info("stopped at step %d; the same command continues", finished.step)
    if is_main():
        folder = command.export or command.run_dir / "model"
        export(model, processor, finished.ema, folder)
        logger.info("step %d exported to %s", finished.step, folder)


if __name__ == "__main__":
    main()
