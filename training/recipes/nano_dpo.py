r"""Nano learns which of its pictures are better: DPO on the rows that `vargpt prefer` made.

    vargpt prefer --storybook 2000 --n 8 --reward storybook --out runs/preferences
    python -m training.recipes.nano_dpo --model vargpt/checkpoints/nano --preferences runs/preferences \
        --out runs/nano_dpo

The learnt model is written to `--out`/model, adapters (`--lora 16`) also to `--out`/adapter. Run the command again
after an interruption.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from training.adapters import lora_of_rank
from training.dpo import DpoSettings, train
from training.feedback import StepSettings, leave_model
from training.overrides import apply_overrides
from vargpt.loading import load
from vargpt.preferences import PreferenceFolder

logger = logging.getLogger(__name__)


def nano_dpo() -> DpoSettings:
    """Two CPU cores with bf16 arithmetic.

    Not measured yet: no number to expect can be given. At a rate of 1e-4, three steps on four pairs already brought a
    margin of 7, which is far too quick.
    """
    return DpoSettings(
        steps=StepSettings(total_steps=300, learning_rate=5e-6, batch_size=8, accumulation=2, warmup_steps=20),
        beta=400.0,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.recipes.nano_dpo", description="DPO on pictures.")
    parser.add_argument("--model", type=Path, help="model folder to begin with (default: the shipped nano)")
    parser.add_argument("--preferences", type=Path, required=True, help="folder that `vargpt prefer` made")
    parser.add_argument("--out", type=Path, default=Path("runs/nano_dpo"), help="where checkpoints and the model go")
    parser.add_argument("--lora", type=int, metavar="RANK", help="learn adapters of this rank beside the same organs")
    parser.add_argument("--minutes", type=float, help="stop (and save) after this long; the schedule stays in steps")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        settings = apply_overrides(nano_dpo(), chosen.set)
        lora = lora_of_rank(chosen.lora, settings.steps.organs)
        rows = PreferenceFolder.existing(chosen.preferences)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    model, processor = load(chosen.model, device=settings.steps.device, dtype="float32")
    done = train(model, processor, rows, settings, chosen.out, chosen.minutes, lora)
    leave_model(model, processor, chosen.out, lora, chosen.model)
    how = "finished" if done else "stopped before the end; the same command continues"
    logger.info("%s; the model is in %s", how, chosen.out / "model")


if __name__ == "__main__":
    main()
