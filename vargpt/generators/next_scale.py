"""Our next-scale generator: it reads what the language model says at every token, and edits by repeating the source.

In: an `ImageContext`. Out: bits, scale by scale (`bitwise.py`). The language model's output at the first slot steers
AdaLN; the memory of the conversation and, for an edit, the latents of its source are attended to, and the source is
added to the slots cell by cell.

Shape legend: G branches, N images, L tokens of all scales, l tokens of one scale, S memory positions, C width,
D memory width, d bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from transformers import initialization as init

from vargpt.config import NextScaleConfig
from vargpt.generators.bitwise import INPUT_STD, BitwiseGenerator, Memory, Scales
from vargpt.generators.parts import NormalizedCrossAttention, Rotary, rotary_2d
from vargpt.generators.schedules import grid_positions, positions_2d
from vargpt.generators.source_copy import SourceCopy
from vargpt.types import Branch, EditCodec, ImageLayout

POSITION_STD = 0.2  # of those that embed positions, whose features have a norm of several


class NextScaleGenerator(BitwiseGenerator):
    """What a language model speaks with while it draws."""

    special_settings: ClassVar[frozenset[str]] = frozenset({"image_guidance_scale"})
    config: NextScaleConfig

    def __init__(self, config: NextScaleConfig) -> None:
        super().__init__(config)
        width, head_dim = config.hidden_size, config.hidden_size // config.num_heads
        self.position_embed = nn.Linear(head_dim, width)
        self.source_embed = nn.Linear(config.code_dim, width)
        self.source_memory_embed = nn.Linear(config.code_dim, config.memory_size)
        self.source_position_embed = nn.Linear(head_dim, config.memory_size)
        self.source_copy = SourceCopy(width)

    def make_conditioning(self) -> None:
        width, memory_size = self.config.hidden_size, self.config.memory_size
        self.slot_proj = nn.Linear(memory_size, width)
        self.memory_norm = nn.LayerNorm(memory_size, eps=self.config.norm_eps)
        self.null_memory = nn.Parameter(torch.randn(memory_size) * self.config.initializer_range)
        self.condition_proj = nn.Linear(memory_size, width)

    def make_cross_attention(self) -> NormalizedCrossAttention:
        return NormalizedCrossAttention(self.config.hidden_size, self.config.memory_size, self.config.num_heads)

    @torch.no_grad()
    def init_inputs(self) -> None:
        super().init_inputs()
        init.normal_(self.position_embed.weight, mean=0.0, std=POSITION_STD)
        for layer in (self.source_embed, self.source_memory_embed):
            init.normal_(layer.weight, mean=0.0, std=INPUT_STD)
        self.source_copy.init_gate()

    # -- what an image is drawn from -------------------------------------------------------------------------------

    def memory(self, branches: Sequence[Branch], num_images: int) -> Memory:
        """Folds the branches into rows. A row that may attend nothing gets the learned null, any other row does not."""
        longest = max((b.memory.shape[1] for b in branches if b.memory is not None), default=0)
        states, masks, sources = [], [], []
        has_source = any(b.source is not None for b in branches)
        for branch in branches:
            state, mask = self._padded_memory(branch, num_images, longest)
            if has_source:
                source, source_mask = self._source(branch, branches, num_images)
                state = torch.cat((state, self._source_memory(source)), dim=1)
                cells = source.shape[1] * source.shape[2]
                mask = torch.cat((mask, repeat(source_mask, "N -> N cells", cells=cells)), dim=1)
                sources.append(source * source_mask[:, None, None, None])
            null = self.null_memory.expand(num_images, 1, -1).to(state.dtype)
            states.append(torch.cat((null, state), dim=1))
            masks.append(torch.cat((~mask.any(1, keepdim=True), mask), dim=1))
        mask = torch.cat(masks)[:, None, None]
        source = rearrange(torch.cat(sources), "GN h w d -> GN d h w") if has_source else None
        return Memory(torch.cat(states), mask, source)

    def _padded_memory(self, branch: Branch, num_images: int, longest: int) -> tuple[Tensor, Tensor]:
        weight = self.null_memory
        if branch.memory is None:
            state = weight.new_zeros(num_images, longest, self.config.memory_size)
            return state, torch.zeros(state.shape[:2], dtype=torch.bool, device=weight.device)
        state = self.memory_norm(branch.memory)
        mask = branch.memory_mask
        if mask is None:
            mask = torch.ones(state.shape[:2], dtype=torch.bool, device=state.device)
        pad = longest - state.shape[1]
        return F.pad(state, (0, 0, 0, pad)), F.pad(mask, (0, pad))

    def _source(self, branch: Branch, branches: Sequence[Branch], num_images: int) -> tuple[Tensor, Tensor]:
        device = self.null_memory.device
        if branch.source is not None:
            everyone = torch.ones(num_images, dtype=torch.bool, device=device)
            return branch.source, everyone if branch.source_mask is None else branch.source_mask
        other = next(b.source for b in branches if b.source is not None)
        return torch.zeros_like(other), torch.zeros(num_images, dtype=torch.bool, device=device)

    def _source_memory(self, source_NhwD: Tensor) -> Float[Tensor, "N l D"]:
        height, width = source_NhwD.shape[1:3]
        positions = grid_positions(height, width, self.config.rope_grid, source_NhwD.device)
        cos, sin = rotary_2d(positions, self.config.hidden_size // self.config.num_heads, self.config.rope_base)
        codes = rearrange(source_NhwD, "N h w d -> N (h w) d").to(self.source_memory_embed.weight.dtype)
        angles = torch.cat((cos, sin), dim=-1).to(codes.dtype)
        return self.source_memory_embed(codes) + self.source_position_embed(angles)

    def _source_slots(self, memory: Memory, scales: Scales) -> Float[Tensor, "GN l C"] | None:
        """The source seen at the resolution of each scale, aligned cell by cell with the slots it is added to."""
        if memory.source is None:
            return None
        grids = [F.interpolate(memory.source.float(), size=scale, mode="area") for scale in scales]
        codes = torch.cat([rearrange(grid, "GN d h w -> GN (h w) d") for grid in grids], dim=1)
        present = memory.source.flatten(1).any(1)[:, None, None]
        return self.source_embed(codes.to(self.source_embed.weight.dtype)) * present

    def condition(self, first_slot: Tensor | None, memory: Memory) -> Float[Tensor, "GN C"]:
        """What the language model says at the first slot; without one, the mean of the memory."""
        if first_slot is None:
            weights = memory.mask[:, 0, 0, :, None].to(memory.states.dtype)
            first_slot = (memory.states * weights).sum(1) / weights.sum(1)
        return self.condition_proj(first_slot)

    def rotary(self, layout: ImageLayout) -> Rotary:
        positions = positions_2d(layout, self.config.rope_grid, self.device)
        return rotary_2d(positions, self.config.hidden_size // self.config.num_heads, self.config.rope_base)

    def embed(
        self, slots: Tensor | None, inputs: Tensor, levels: Tensor, rotary: Rotary, memory: Memory, scales: Scales
    ) -> Float[Tensor, "GN l C"]:
        x = self.level_embed(levels)[None]
        x = x + self.position_embed(torch.cat(rotary, dim=-1).to(x.dtype))
        if slots is not None:
            x = x + F.pad(self.slot_proj(slots), (0, 0, 0, inputs.shape[1] - slots.shape[1]))
        x = x + inputs
        source = self._source_slots(memory, scales)
        return x if source is None else x + source

    def repeated(
        self,
        states: Tensor,
        memory: Memory,
        codec: EditCodec,
        layout: ImageLayout,
        grids: tuple[Tensor, ...],
        num_scales: int,
    ) -> Float[Tensor, "GN l d"] | None:
        """What `SourceCopy` makes of what is left of the source before each scale; 0 for images without a source."""
        if memory.source is None:
            return None
        latents = rearrange(memory.source, "GN d h w -> GN h w d")
        parts = []
        for k in range(len(grids) + 1 - num_scales, len(grids) + 1):
            branches = latents.split(len(latents) if k == 0 else len(grids[0]))
            residuals = torch.cat([codec.residual(branch, layout, grids[:k]) for branch in branches])
            parts.append(rearrange(residuals, "GN h w d -> GN (h w) d"))
        residual = torch.cat(parts, dim=1) * memory.source.flatten(1).any(1)[:, None, None]
        return self.source_copy(states, residual)
