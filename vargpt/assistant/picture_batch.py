"""The drawn pictures of a training batch as one value: what the slots hold, what is predicted, what each may see.

Shape legend: N drawn pictures in order of appearance, L tokens of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from vargpt.types import ImageTokens


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureBatch:
    """The pictures that a batch of conversations draws, all of one layout; what `VARGPT.forward` takes as `pictures`.

    Args:
        tokens: fed at the slots; complete.
        targets: what to predict if not `tokens` (bitwise self-correction).
        weights: how much each token counts in the loss; mean one per scale.
        conditions: a `Visibility` per picture (dropout for guidance); default FULL.
        count: what the sum over pictures is divided by; default their number, which gives the mean. A part of a larger
            batch is given the number of the whole, so that the parts' losses add up.
    """

    tokens: ImageTokens
    targets: ImageTokens | None = None
    weights: Float[Tensor, "N L"] | None = None
    conditions: Int[Tensor, " N"] | None = None
    count: Tensor | float | None = None

    def __len__(self) -> int:
        return self.tokens.num_images
