"""The next-scale generator: all tokens of a scale at once, each as bits, coarse to fine.

In: an `ImageContext` (guidance branches, LLM outputs of the slots). Out: two logits per bit of every token, and by
sampling them scale by scale `ImageTokens`. After VAR (arXiv 2404.02905) and the "infinite vocabulary" of Infinity
(arXiv 2412.04431, section 3.2): a token of d bits is predicted by d binary classifiers instead of a 2^d-way one.

Shape legend: G branches, N images, L tokens of all scales, l tokens of one scale, K scales, S memory positions,
C width, D memory width, d bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import initialization as init

from vargpt.config import VargptGeneratorConfig
from vargpt.generators.base import ImageGenerator
from vargpt.generators.blocks import Block, DrawCache, LayerCache, Rotary, rotary_2d
from vargpt.generators.schedules import block_causal_mask, grid_positions, level_ids, positions_2d
from vargpt.sampling import at_scale, guide, sample
from vargpt.types import Branch, ImageContext, ImageLayout, ImageProgress, ImageSampling, ImageTokens, TokenCodec

INPUT_STD = 2.0  # of the weights that embed codes and scales
POSITION_STD = 0.2  # of those that embed positions, whose features have a norm of several


@dataclass(frozen=True)
class Memory:
    """The keys of cross-attention for all branches (folded into rows), and the source grids added to the slots."""

    states: Float[Tensor, "GN S D"]
    mask: Bool[Tensor, "GN 1 1 S"]
    source: Float[Tensor, "GN d h w"] | None


class NextScaleGenerator(ImageGenerator):
    """Block-causal transformer over the scales of an image, cross-attending to the memory of its conversation."""

    def __init__(self, config: VargptGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width, memory_size = config.hidden_size, config.memory_size
        self.start = nn.Parameter(torch.randn(width) * config.initializer_range)
        self.code_embed = nn.Linear(config.code_dim, width)
        self.slot_proj = nn.Linear(memory_size, width)
        self.level_embed = nn.Embedding(config.max_scales, width)
        self.memory_norm = nn.LayerNorm(memory_size, eps=config.norm_eps)
        self.null_memory = nn.Parameter(torch.randn(memory_size) * config.initializer_range)
        self.condition_proj = nn.Linear(memory_size, width)
        self.shared_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(
            Block(width, memory_size, config.num_heads, config.mlp_ratio, config.norm_eps, config.cross_qk_norm)
            for _ in range(config.num_layers)
        )
        self.head_norm = nn.LayerNorm(width, eps=config.norm_eps, elementwise_affine=False)
        self.head_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.head = nn.Linear(width, 2 * config.num_bits)
        if config.absolute_positions:
            self.position_embed = nn.Linear(width // config.num_heads, width)
        if config.source_memory:
            self.source_embed = nn.Linear(config.code_dim, width)
            self.source_memory_embed = nn.Linear(config.code_dim, memory_size)
            self.source_position_embed = nn.Linear(width // config.num_heads, memory_size)

    @torch.no_grad()
    def init_inputs(self) -> None:
        """What has been drawn so far, and on which scale one is, must be heard beside the language model's slots.

        Codes have a norm of about one, not one per channel, so their embeddings take a wider start than other layers.
        """
        wide = [self.level_embed.weight, self.code_embed.weight]
        if self.config.source_memory:
            wide += [self.source_embed.weight, self.source_memory_embed.weight]
        if self.config.absolute_positions:
            init.normal_(self.position_embed.weight, mean=0.0, std=POSITION_STD)
        for weight in wide:
            init.normal_(weight, mean=0.0, std=INPUT_STD)
        init.normal_(self.start, mean=0.0, std=INPUT_STD)

    # -- what the slots are fed with -------------------------------------------------------------------------------

    def slot_inputs(self, tokens: ImageTokens, codec: TokenCodec) -> Float[Tensor, "N L C"]:
        """Start vector for the first scale, then the embedded codes of everything coarser at every finer scale."""
        codes = [rearrange(grid, "N h w d -> N (h w) d") for grid in codec.scale_inputs(tokens)]
        finer = self.code_embed(torch.cat(codes, dim=1).to(self.code_embed.weight.dtype))
        start = self.start.expand(tokens.num_images, tokens.layout.offsets[1], -1)
        return torch.cat((start.to(finer.dtype), finer), dim=1)

    def scale_inputs(self, tokens: ImageTokens, k: int, codec: TokenCodec) -> Float[Tensor, "N l C"]:
        """The slot inputs of scale k; needs the grids of scales 0 .. k-1 only."""
        if k == 0:
            return self.start.expand(tokens.num_images, tokens.layout.offsets[1], -1)
        codes = codec.next_input(tokens, k).to(self.code_embed.weight.dtype)
        return self.code_embed(rearrange(codes, "N h w d -> N (h w) d"))

    # -- the transformer -------------------------------------------------------------------------------------------

    def memory(self, branches: Sequence[Branch], num_images: int) -> Memory:
        """Folds the branches into rows. A row that may attend nothing gets the learned null, any other row does not."""
        longest = max((b.memory.shape[1] for b in branches if b.memory is not None), default=0)
        states, masks, sources = [], [], []
        has_source = any(b.source is not None for b in branches) and self.config.source_memory
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

    def _source_slots(self, memory: Memory, scales: Sequence[tuple[int, int]]) -> Float[Tensor, "GN l C"] | None:
        """The source seen at the resolution of each scale, aligned cell by cell with the slots it is added to."""
        if memory.source is None:
            return None
        grids = [F.interpolate(memory.source.float(), size=scale, mode="area") for scale in scales]
        codes = torch.cat([rearrange(grid, "GN d h w -> GN (h w) d") for grid in grids], dim=1)
        present = memory.source.flatten(1).any(1)[:, None, None]
        return self.source_embed(codes.to(self.source_embed.weight.dtype)) * present

    def _condition(self, first_slot: Tensor | None, memory: Memory) -> Float[Tensor, "GN C"]:
        """AdaLN condition: what the LLM says at the first slot; without an LLM the mean of the memory."""
        if first_slot is None:
            weights = memory.mask[:, 0, 0, :, None].to(memory.states.dtype)
            first_slot = (memory.states * weights).sum(1) / weights.sum(1)
        return self.condition_proj(first_slot)

    def _rotary(self, layout: ImageLayout, device: torch.device) -> Rotary:
        head_dim = self.config.hidden_size // self.config.num_heads
        return rotary_2d(positions_2d(layout, self.config.rope_grid, device), head_dim, self.config.rope_base)

    def _embed(
        self, slots: Tensor | None, inputs: Tensor, levels: Tensor, rotary: Rotary, source: Tensor | None
    ) -> Tensor:
        x = self.level_embed(levels)[None]
        if self.config.absolute_positions:
            x = x + self.position_embed(torch.cat(rotary, dim=-1).to(x.dtype))
        if slots is not None:
            x = x + self.slot_proj(slots)
        if slots is None or self.config.input_residual:
            x = x + inputs
        return x if source is None else x + source

    def _head(self, x: Tensor, condition: Tensor) -> Float[Tensor, "GN l d 2"]:
        scale, shift = self.head_modulation(condition)[:, None].chunk(2, dim=-1)
        logits = self.head(self.head_norm(x) * (1 + scale) + shift)
        return rearrange(logits, "N L (d two) -> N L d two", two=2)

    def logits(self, context: ImageContext, tokens: ImageTokens, codec: TokenCodec) -> Float[Tensor, "GN L d 2"]:
        """All scales at once, teacher-forced; branches folded into rows, branch-major."""
        layout, device = tokens.layout, self.null_memory.device
        memory = self.memory(context.branches, tokens.num_images)
        slots = None if context.slots is None else rearrange(context.slots, "G N L D -> (G N) L D")
        inputs = repeat(self.slot_inputs(tokens, codec), "N L C -> (G N) L C", G=len(context.branches))
        condition = self._condition(None if slots is None else slots[:, 0], memory)
        shared = rearrange(self.shared_modulation(condition), "N (six C) -> N six C", six=6)
        source = self._source_slots(memory, layout.scales)
        rotary, mask = self._rotary(layout, device), block_causal_mask(layout, device)
        x = self._embed(slots, inputs, level_ids(layout, device), rotary, source)
        for block in self.blocks:
            x = block(x, shared, memory.states, memory.mask, rotary, mask)
        return self._head(x, condition)

    # -- learning --------------------------------------------------------------------------------------------------

    def bit_losses(
        self, context: ImageContext, tokens: ImageTokens, codec: TokenCodec, targets: ImageTokens | None = None
    ) -> Float[Tensor, "N L d"]:
        """Cross-entropy of every bit in nats, with one branch."""
        if len(context.branches) != 1:
            raise ValueError(f"losses are computed on one branch, got {len(context.branches)}")
        bits = (targets or tokens).flat()
        logits = self.logits(context, tokens, codec).float()
        # two logits per bit: cross-entropy depends on their difference only
        return F.binary_cross_entropy_with_logits(logits[..., 1] - logits[..., 0], bits.float(), reduction="none")

    def log_probs(
        self, context: ImageContext, tokens: ImageTokens, codec: TokenCodec, targets: ImageTokens | None = None
    ) -> Float[Tensor, "N L"]:
        """Log-probability of every token, summed over its bits, in nats."""
        return -self.bit_losses(context, tokens, codec, targets).sum(-1)

    def loss(
        self,
        context: ImageContext,
        tokens: ImageTokens,
        codec: TokenCodec,
        targets: ImageTokens | None = None,
        weights: Float[Tensor, "N L"] | None = None,
    ) -> Float[Tensor, "N K"]:
        """Mean bit cross-entropy per image and scale, in nats; `weights` (mean one per scale) weigh tokens."""
        per_token = self.bit_losses(context, tokens, codec, targets).mean(-1)
        per_token = per_token if weights is None else per_token * weights
        sizes = [h * w for h, w in tokens.layout.scales]
        return torch.stack([part.mean(1) for part in per_token.split(sizes, dim=1)], dim=1)

    # -- drawing ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        context: ImageContext,
        layout: ImageLayout,
        sampling: ImageSampling,
        rngs: Sequence[torch.Generator],
        codec: TokenCodec,
        given: ImageTokens | None = None,
    ) -> Iterator[ImageProgress]:
        """Draws scale by scale; the random stream of an image depends on its own generator only.

        Raises:
            ValueError: `given` belongs to another layout or another number of images.
        """
        if given is not None and (given.layout != layout or given.num_images != len(rngs)):
            raise ValueError("given scales must have the layout and the number of images that are to be drawn")
        num_branches, device = len(context.branches), self.null_memory.device
        memory = self.memory(context.branches, len(rngs))
        cache = DrawCache([LayerCache() for _ in self.blocks])
        cos, sin = self._rotary(layout, device)
        levels, offsets = level_ids(layout, device), layout.offsets
        condition: Tensor | None = None
        shared: Tensor | None = None
        tokens = ImageTokens(layout, (torch.empty(len(rngs), *layout.scales[0], 0, device=device),))
        grids: tuple[Tensor, ...] = ()
        for k, (h, w) in enumerate(layout.scales):
            span = slice(offsets[k], offsets[k + 1])
            inputs = repeat(self.scale_inputs(tokens, k, codec), "N l C -> G N l C", G=num_branches)
            slots = None if context.step is None else rearrange(context.step(inputs, k), "G N l D -> (G N) l D")
            if condition is None or shared is None:
                condition = self._condition(None if slots is None else slots[:, 0], memory)
                shared = rearrange(self.shared_modulation(condition), "N (six C) -> N six C", six=6)
            source = self._source_slots(memory, [(h, w)])
            x = self._embed(slots, inputs.flatten(0, 1), levels[span], (cos[span], sin[span]), source)
            for block, layer_cache in zip(self.blocks, cache.layers, strict=True):
                x = block(x, shared, memory.states, memory.mask, (cos[span], sin[span]), None, layer_cache)
            if given is not None and k < len(given.grids):
                bits = given.grids[k].to(device)
            else:
                bits = self._sample_bits(self._head(x, condition), num_branches, sampling, rngs, k, (h, w))
            grids += (bits,)
            tokens = ImageTokens(layout, grids)
            yield ImageProgress(tokens, k + 1, layout.num_scales)

    def _sample_bits(
        self,
        logits: Tensor,
        num_branches: int,
        sampling: ImageSampling,
        rngs: Sequence[torch.Generator],
        k: int,
        scale: tuple[int, int],
    ) -> Bool[Tensor, "N h w d"]:
        logits = rearrange(logits.float(), "(G N) l d two -> G N l d two", G=num_branches)
        image_scale = sampling.image_guidance_scale
        image_guidance = 1.0 if image_scale is None else at_scale(image_scale, k)
        logits = guide(logits, at_scale(sampling.guidance_scale, k), image_guidance)
        top_k, top_p = int(at_scale(sampling.top_k, k)), at_scale(sampling.top_p, k)
        choices = sample(logits, at_scale(sampling.temperature, k), rngs, top_k, top_p)
        return rearrange(choices.bool(), "N (h w) d -> N h w d", h=scale[0], w=scale[1])
