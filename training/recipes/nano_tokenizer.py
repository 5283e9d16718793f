"""The tokenizer of the nano model: 64 px pages of the storybook as 4,160 bits.

python -m training.recipes.nano_tokenizer --run-dir runs/nano_tokenizer [--minutes 10] [--loop.seed 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from training.command_line import UNNAMED, read_command
from training.loop import LoopSettings
from training.tokenizer.reconstruction import ReconstructionWeights
from training.tokenizer.trainer import TokenizerNetwork, TokenizerSettings, train

NANO_SCALES = ((1, 1), (2, 2), (3, 3), (4, 4), (6, 6), (8, 8))


def nano_tokenizer() -> TokenizerSettings:
    """7 minutes on two CPU cores with bf16 arithmetic."""
    return TokenizerSettings(
        height=64,
        width=64,
        scales=NANO_SCALES,
        network=TokenizerNetwork(
            num_bits=32,
            base_channels=64,
            channel_multipliers=(1, 2),
            num_res_blocks=1,
            patch_size=4,
        ),
        weights=ReconstructionWeights(detail=8.0),
        batch_size=24,
        prefix_rate=0.15,
        loop=LoopSettings(
            total_steps=7000,
            learning_rate=2.5e-3,
            warmup_steps=150,
            final_lr_ratio=0.02,
            ema_decay=0.998,
            sample_every=1500,
            save_every_minutes=3.0,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class TokenizerCommand:
    """Train the image tokenizer of nano."""

    run_dir: Path = Path("runs/nano_tokenizer")
    """Where metrics, samples, checkpoints and the tokenizer go."""
    minutes: float | None = None
    """Stop (and save) after this long; the schedule stays in steps."""
    tokenizer: Annotated[TokenizerSettings, UNNAMED] = field(default_factory=nano_tokenizer)


def main(arguments: Sequence[str] | None = None) -> None:
    command = read_command(TokenizerCommand, "python -m training.recipes.nano_tokenizer", arguments)
    loop = replace(command.tokenizer.loop, time_budget_minutes=command.minutes)
    train(replace(command.tokenizer, loop=loop), command.run_dir)


if __name__ == "__main__":
    main()
