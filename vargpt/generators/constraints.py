"""Drawing that is held to a picture that exists already: bits that stay, and bits that are leant towards.

In: tokens with the cells that keep them (`FixedCells`), or latents of a source with how much each image leans on them
(`SourceBias`). Out: what a generator does with them at each scale. Nothing here is learnt, so it serves any
weights.

Shape legend: N images, h w the grid of a scale, l tokens of one scale, d bits of a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from vargpt.types import EditCodec, ImageLayout, ImageTokens

GAIN = 3.0  # nats that a clear bit of the source weighs at a faithfulness of one half
CERTAIN = 1e6  # nats that no network says


@dataclass(frozen=True, eq=False)  # what dataclasses generate asks whole tensors for their truth
class FixedCells:
    """Cells that take their bits from `tokens`, scale by scale; scales beyond the last of `cells` are drawn freely.

    Whatever is kept, an image takes as many random numbers as without: keeping the first scales of a picture and
    drawing again with its own seed gives the same picture.
    """

    tokens: ImageTokens
    cells: tuple[Bool[Tensor, "N _h _w"], ...]  # True = this cell is kept

    def __post_init__(self) -> None:
        if len(self.cells) > len(self.tokens.grids):
            raise ValueError(f"cells of {len(self.cells)} scales are kept of tokens with {len(self.tokens.grids)}")
        for cells, grid in zip(self.cells, self.tokens.grids, strict=False):
            if cells.shape != grid.shape[:3]:
                raise ValueError(f"kept cells {tuple(cells.shape)} do not fit a grid of {tuple(grid.shape[:3])}")

    def check(self, layout: ImageLayout, num_images: int) -> None:
        """Raises ValueError where other images are to be drawn than these."""
        if self.tokens.layout != layout or self.tokens.num_images != num_images:
            raise ValueError("kept tokens must have the layout and the number of images that are to be drawn")

    def over(self, drawn_Nhwd: Bool[Tensor, "N h w d"], k: int) -> Bool[Tensor, "N h w d"]:
        """The bits of scale k: kept ones where they are kept, else those that were drawn."""
        if k >= len(self.cells):
            return drawn_Nhwd
        cells_Nhw, bits_Nhwd = (part.to(drawn_Nhwd.device) for part in (self.cells[k], self.tokens.grids[k]))
        return torch.where(cells_Nhw[..., None], bits_Nhwd, drawn_Nhwd)


@dataclass(frozen=True, eq=False)
class SourceBias:
    """A leaning of each image towards the bits that would best rebuild its source after what was drawn so far.

    `amounts` lie in [0, 1]: 0 changes nothing, not even a rounding; 1 leaves no choice but the source's own bits.
    Between them, a clear bit of the source weighs `GAIN * amount / (1 - amount)` nats.
    """

    tokens: ImageTokens  # of the sources, in the layout that is drawn; anything where the amount is 0
    latents: Float[Tensor, "N _h _w d"]  # of the sources: unrounded, or the codes of `tokens` summed
    amounts: Float[Tensor, " N"]

    def __post_init__(self) -> None:
        assert len(self.latents) == len(self.amounts), "every image leans by an amount of its own"
        if not bool(((self.amounts >= 0) & (self.amounts <= 1)).all()):
            raise ValueError(f"faithfulness lies between 0 and 1, got {self.amounts.tolist()}")

    def log_odds(
        self, codec: EditCodec, layout: ImageLayout, grids: tuple[Bool[Tensor, "N _h _w d"], ...]
    ) -> Float[Tensor, "N l d"]:
        """What is added to the log-odds of every bit of the scale after `grids`, in nats.

        As long as an image is its source, bit for bit, the best bits are the source's; then, the signs of what is left
        of it. Bits whose rest is near zero are told weakly, as in `SourceCopy`: the slightest change turns them.
        """
        rest_Nhwd = codec.residual(self.latents, layout, grids)
        same = torch.ones(len(rest_Nhwd), dtype=torch.bool, device=rest_Nhwd.device)
        for drawn_Nhwd, source_Nhwd in zip(grids, self.tokens.grids, strict=False):
            same = same & (drawn_Nhwd == source_Nhwd).flatten(1).all(1)
        best_Nhwd = torch.where(same[:, None, None, None], self.tokens.grids[len(grids)], rest_Nhwd > 0)
        usual = rest_Nhwd.abs().mean(-1, keepdim=True).clamp(min=1e-6)
        amounts = self.amounts.to(rest_Nhwd)[:, None, None, None]
        weight = GAIN * amounts / (1 - amounts).clamp(min=1e-6) * (2 * rest_Nhwd.abs() / usual).clamp(max=1)
        weight = torch.where(amounts < 1, weight, CERTAIN)
        return rearrange(torch.where(best_Nhwd, weight, -weight), "N h w d -> N (h w) d")
