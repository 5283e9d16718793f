"""The program of VARGPT-v1.1 at full size (7B + 2B), stage by stage, and what each would take.

    python -m training.recipes.full_size [--gpus 8] [--rows 1]

This is a dry run: the model is built without memory, and a table says which organs learn, how many tokens are read,
and how much memory one GPU needs when everything is sharded. Figures are those of the paper (arXiv 2504.02949)
as far as it states them; `Stage.ours` names the others. The same stages run at nano size in `training/recipes/nano.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import AutoModel

from training.command_line import read_command
from training.stages import Plan, Stage, plan, table
from vargpt.loading.checkpoint_files import empty_weights
from vargpt.presets import vargpt_v1_1

DRAWER = ("generator", "projector_in", "projector_out", "start_state")
TALKER = ("vision", "language_model", "lm_head")
EVERYTHING = (*TALKER, *DRAWER)
PICTURES = {"laion_coco_aesthetic": 4.2, "journeydb": 4.1}  # millions of rows: drawn from life, and synthetic
UNDERSTANDING = {"llava_instruct": 0.665, "llava_onevision": 0.508, "journeydb": 0.05}
LEARNING_RATE = 5e-5


def full_size() -> tuple[Stage, ...]:
    """Alignment, understanding, then drawing: SFT at 256 px, DPO, SFT at 512 px, DPO, editing with all organs."""
    return (
        Stage(
            name="1 projector alignment", loss="sft", learns=("projector_in", "projector_out"), data=PICTURES,
            size=(256, 256), steps=10_000, batch_size=256, learning_rate=LEARNING_RATE,
            ours=("data", "size", "steps", "batch_size", "learning_rate"),
        ),
        Stage(
            name="2 understanding", loss="sft", learns=TALKER, data=UNDERSTANDING, size=None, steps=9_600,
            batch_size=128, learning_rate=1e-5, text_tokens=1024,
            ours=("steps", "batch_size", "learning_rate", "text_tokens"),
        ),
        Stage(
            name="3a drawing at 256", loss="sft", learns=DRAWER, data=PICTURES, size=(256, 256), steps=40_000,
            batch_size=256, learning_rate=LEARNING_RATE, ours=("batch_size",),
        ),
        Stage(
            name="3b preferences at 256", loss="dpo", learns=DRAWER, data={"midjourney_prompts": 1.0},
            size=(256, 256), steps=1_560, batch_size=64, learning_rate=1e-6, text_tokens=64,
            ours=("steps", "batch_size", "learning_rate"),
        ),
        Stage(
            name="3c drawing at 512", loss="sft", learns=DRAWER, data=PICTURES, size=(512, 512), steps=30_000,
            batch_size=256, learning_rate=LEARNING_RATE, ours=("batch_size",),
        ),
        Stage(
            name="3d preferences at 512", loss="dpo", learns=DRAWER, data={"midjourney_prompts": 1.0},
            size=(512, 512), steps=1_560, batch_size=64, learning_rate=1e-6, text_tokens=64,
            ours=("steps", "batch_size", "learning_rate"),
        ),
        Stage(
            name="3e editing", loss="sft", learns=EVERYTHING, data={"stylebooth": 1.0}, size=(512, 512), steps=1_060,
            batch_size=32, learning_rate=LEARNING_RATE, text_tokens=512, ours=("steps", "batch_size", "text_tokens"),
        ),
    )  # fmt: skip


def dry_run(num_gpus: int, rows_per_gpu: int = 1) -> list[Plan]:
    """The plan of every stage."""
    config = vargpt_v1_1()
    with empty_weights():
        model = AutoModel.from_config(config)
    return [plan(model, config, stage, num_gpus, rows_per_gpu) for stage in full_size()]


@dataclass(frozen=True, kw_only=True)
class FullSizeCommand:
    """What each stage of the full-size training program takes."""

    gpus: int = 8
    """Over how many GPUs everything is sharded."""
    rows: int = 1
    """Conversations at once on each of them."""

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.rows < 1:
            raise ValueError(f"--gpus and --rows are 1 or more, got {self.gpus} and {self.rows}")


def main(arguments: Sequence[str] | None = None) -> None:
    command = read_command(FullSizeCommand, "python -m training.recipes.full_size", arguments)
    sys.stdout.write(table(dry_run(command.gpus, command.rows), command.gpus) + "\n")


if __name__ == "__main__":
    main()
