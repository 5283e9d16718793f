"""Bitwise self-correction: what a generator must do after earlier scales went wrong.

At inference a generator sees its own, partly wrong, bits. In training the tokenizer therefore flips a random share of
the bits of every scale and quantises the rest of the image again: later scales repair what the flips spoilt. In goes a
strength and a random generator, out come flip masks; the quantiser turns them into `CorrectedTokens`.

Source: Infinity (arXiv 2412.04431), section 3.4. Shape legend: N images, h w a grid, d bits of one token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from vargpt.types import ImageLayout, ImageTokens


@dataclass(frozen=True)
class BitFlip:
    """How many bits go wrong. Each scale of each image gets its own share, uniform in [0, strength].

    `strength` is a number in [0, 1] for all images or one per image ("N"); 0 leaves an image alone. Equal `generator`
    states give equal flips; None draws from the global one.
    """

    strength: float | Float[Tensor, " N"]
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        strength = torch.as_tensor(self.strength)
        if strength.ndim > 1 or bool((strength < 0).any()) or bool((strength > 1).any()):
            raise ValueError(f"flip strength is a share of the bits in [0, 1], alone or one per image; got {strength}")


@dataclass(frozen=True)
class CorrectedTokens:
    """Tokens to teach with. `inputs` (bits flipped) is what the generator sees, `targets` what it must answer.

    Both are complete tokens of one layout. A target bit is the right decision after the flipped scales before it, so
    that predicting all targets of the last scale repairs the picture as far as its bits can.
    """

    inputs: ImageTokens
    targets: ImageTokens


def draw_flips(
    layout: ImageLayout, num_images: int, num_bits: int, flip: BitFlip, device: torch.device | str = "cpu"
) -> tuple[Bool[Tensor, "N h w d"], ...]:
    """One mask per scale, True where a bit is flipped. The last scale is never flipped: it is nobody's input.

    Draws on the CPU unless the generator lives elsewhere, so that one seed gives the same flips on every device.

    Raises:
        ValueError: when `flip.strength` holds one number per image, but of another number of images.
    """
    source = flip.generator.device if flip.generator is not None else torch.device("cpu")
    strength_N = torch.as_tensor(flip.strength, dtype=torch.float32, device=source)
    if strength_N.ndim == 1 and len(strength_N) != num_images:
        raise ValueError(
            f"{len(strength_N)} flip strengths do not fit {num_images} images; give one number or one each"
        )
    masks = []
    for k, (height, width) in enumerate(layout.scales):
        shape = (num_images, height, width, num_bits)
        # The share is drawn per image, the published code draws one (in steps of 0.01) for the whole batch.
        share_N = torch.rand(num_images, generator=flip.generator, device=source) * strength_N
        if k == layout.num_scales - 1:
            mask = torch.zeros(shape, dtype=torch.bool, device=source)
        else:
            mask = torch.rand(shape, generator=flip.generator, device=source) < share_N[:, None, None, None]
        masks.append(mask.to(device))
    return tuple(masks)
