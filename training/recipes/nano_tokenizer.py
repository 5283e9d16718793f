"""The tokenizer of the nano model: 64 px pages of the storybook as 4,160 bits."""

from __future__ import annotations

from training.loop import LoopSettings
from training.tokenizer.reconstruction import ReconstructionWeights
from training.tokenizer.trainer import TokenizerNetwork, TokenizerSettings

NANO_SCALES = ((1, 1), (2, 2), (3, 3), (4, 4), (6, 6), (8, 8))


def nano_tokenizer() -> TokenizerSettings:
    """`python -m training.tokenizer.trainer --recipe nano --run-dir runs/nano_tokenizer`.

    Two CPU cores with bf16 arithmetic.
    """
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
