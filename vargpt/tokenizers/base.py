"""The seam between pixels and image tokens: what every tokenizer offers, whatever its codes are.

Shape legend: N images, H W pixels, h w a grid, d channels of the continuous code of one token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, overload

from PIL import Image
from torch import nn

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from vargpt.tokenizers.bit_correction import BitFlip, CorrectedTokens
    from vargpt.types import ImageLayout, ImageTokens


def to_pictures(pixel_values: Float[Tensor, "N 3 H W"]) -> list[Image.Image]:
    """Pixels in [-1, 1] (what lies outside is clipped) as RGB pictures."""
    values = ((pixel_values.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    return [Image.fromarray(image) for image in values.cpu().numpy()]


class ImageTokenizer(nn.Module, ABC):
    """Turns pixels into image tokens and back. A `TokenCodec` for the generators."""

    downsample_factor: int  # pixels per cell of the final grid, along one axis

    @property
    @abstractmethod
    def code_dim(self) -> int:
        """Channels of the continuous code of one token."""

    @property
    @abstractmethod
    def num_bits(self) -> int:
        """Bits of one token."""

    @overload
    def encode(self, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout, flip: None = None) -> ImageTokens: ...

    @overload
    def encode(self, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout, flip: BitFlip) -> CorrectedTokens: ...

    @abstractmethod
    def encode(
        self, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout, flip: BitFlip | None = None
    ) -> ImageTokens | CorrectedTokens:
        """The tokens of images in [-1, 1]; with `flip`, flipped inputs and corrected targets. Inverse: `decode`."""

    @abstractmethod
    def decode(self, tokens: ImageTokens) -> Float[Tensor, "N 3 H W"]:
        """Images in [-1, 1]. Tokens with fewer grids than scales give a preview at full size."""

    @abstractmethod
    def latents(self, tokens: ImageTokens) -> Float[Tensor, "N h w d"]:
        """What the decoder sees: the codes of all given grids, summed at the final scale."""

    @abstractmethod
    def next_input(self, tokens: ImageTokens, k: int) -> Float[Tensor, "N h_k w_k d"]:
        """What a generator knows before scale k >= 1, at that scale: a function of the grids before k only."""

    def scale_inputs(self, tokens: ImageTokens) -> tuple[Float[Tensor, "N h_k w_k d"], ...]:
        """`next_input` of every scale from 1 to the last one, in one go (training)."""
        return tuple(self.next_input(tokens, k) for k in range(1, tokens.layout.num_scales))

    def check_layout(self, layout: ImageLayout) -> None:
        """Whether this tokenizer can have such tokens.

        Raises:
            ValueError: when the final grid times the downsample factor is not the pixel size.
        """
        height, width = (side * self.downsample_factor for side in layout.final_scale)
        if (layout.height, layout.width) != (height, width):
            raise ValueError(
                f"a final grid of {layout.final_scale} is {height}x{width} pixels with this tokenizer "
                f"(factor {self.downsample_factor}), but the layout says {layout.height}x{layout.width}"
            )
