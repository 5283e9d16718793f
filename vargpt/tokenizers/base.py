"""The seam between pixels and image tokens: what every tokenizer offers, whatever its codes are.

Shape legend: N images, H W pixels, h w a grid, d channels of the continuous code of one token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from PIL import Image
from torch import nn

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from vargpt.types import ImageLayout, ImageTokens, TokenSpace


def to_pictures(pixel_values: Float[Tensor, "N 3 H W"]) -> list[Image.Image]:
    """Pixels in [-1, 1] (what lies outside is clipped) as RGB pictures."""
    values = ((pixel_values.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    return [Image.fromarray(image) for image in values.cpu().numpy()]


class ImageTokenizer(nn.Module, ABC):
    """Turns pixels into image tokens and back. A `TokenCodec` for the generators."""

    downsample_factor: int  # pixels per token of the final grid, along one axis

    @property
    @abstractmethod
    def space(self) -> TokenSpace:
        """What one token is."""

    @property
    @abstractmethod
    def code_dim(self) -> int:
        """Channels of the continuous code of one token."""

    @abstractmethod
    def encode(self, pixel_values: Float[Tensor, "N 3 H W"], layout: ImageLayout) -> ImageTokens:
        """The tokens of images in [-1, 1]. Inverse: `decode`."""

    @abstractmethod
    def decode(self, tokens: ImageTokens) -> Float[Tensor, "N 3 H W"]:
        """Images in [-1, 1]. Tokens with fewer grids than scales give a preview at full size."""

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
