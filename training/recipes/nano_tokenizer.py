"""The tokenizer of the nano model: 64 px pages of the storybook as 2,080 bits."""

from __future__ import annotations

from training.loop import LoopSettings
from training.losses import ReconstructionWeights
from training.tokenizer import TokenizerNetwork, TokenizerSettings

NANO_SCALES = ((1, 1), (2, 2), (3, 3), (4, 4), (6, 6), (8, 8))


def nano_tokenizer() -> TokenizerSettings:
    """`python -m training.tokenizer --recipe nano --run-dir runs/nano_tokenizer`.

    Two CPU cores with bf16 arithmetic.
    """
    return TokenizerSettings(
        height=64,
        width=64,
        scales=NANO_SCALES,
        network=TokenizerNetwork(num_bits=16, base_channels=16, channel_multipliers=(1, 2, 4, 8), num_res_blocks=1),
        weights=ReconstructionWeights(),
        batch_size=32,
        prefix_rate=0.15,
        loop=LoopSettings(
            total_steps=3600,
            learning_rate=2e-3,
            warmup_steps=150,
            final_lr_ratio=0.02,
            ema_decay=0.998,
            sample_every=300,
            save_every_minutes=2.0,
        ),
    )
