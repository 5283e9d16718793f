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
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import initialization as init

from vargpt.config import VargptGeneratorConfig
from vargpt.generators.attentive_pool import AttentivePool
from vargpt.generators.base import ImageGenerator, TokenScores
from vargpt.generators.constraints import Faithful, Kept
from vargpt.generators.parts import Block, DrawCache, LayerCache, Rotary, rotary_2d
from vargpt.generators.schedules import (
    block_causal_mask,
    corner_positions_2d,
    grid_positions,
    level_ids,
    positions_2d,
)
from vargpt.generators.source_copy import SourceCopy
from vargpt.packing import pack_linears
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
    condition: Float[Tensor, "GN C"] | None = None  # where it follows from the memory


class NextScaleGenerator(ImageGenerator):
    """Block-causal transformer over the scales of an image, cross-attending to the memory of its conversation."""

    def __init__(self, config: VargptGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width, memory_size = config.hidden_size, config.memory_size
        self.start = nn.Parameter(torch.randn(width) * config.initializer_range)
        self.code_embed = nn.Linear(config.code_dim, width)
        self.level_embed = nn.Embedding(config.max_scales, width)
        key_size = self._make_conditioning(config)
        self.shared_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(config, key_size) for _ in range(config.num_layers))
        self.head_norm = nn.LayerNorm(width, eps=config.norm_eps, elementwise_affine=False)
        self.head_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.head = nn.Linear(width, 2 * config.num_bits)
        if config.absolute_positions:
            self.position_embed = nn.Linear(width // config.num_heads, width)
        if config.source_memory:
            self.source_embed = nn.Linear(config.code_dim, width)
            self.source_memory_embed = nn.Linear(config.code_dim, memory_size)
            self.source_position_embed = nn.Linear(width // config.num_heads, memory_size)
        if config.source_copy:
            self.source_copy = SourceCopy(width)

    def _make_conditioning(self, config: VargptGeneratorConfig) -> int:
        """The layers between what an image is drawn from and the blocks; returns the width of the memory they see."""
        width, memory_size = config.hidden_size, config.memory_size
        self.slot_proj = nn.Linear(memory_size, width)
        self.memory_norm = nn.LayerNorm(memory_size, eps=config.norm_eps)
        self.null_memory = nn.Parameter(torch.randn(memory_size) * config.initializer_range)
        self.condition_proj = nn.Linear(memory_size, width)
        return memory_size

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
        if self.config.source_copy:
            self.source_copy.init_gate()
        init.normal_(self.start, mean=0.0, std=INPUT_STD)

    # -- what the slots are fed with -------------------------------------------------------------------------------

    def slot_inputs(
        self, tokens: ImageTokens, codec: TokenCodec, condition: Float[Tensor, "N C"] | None = None
    ) -> Float[Tensor, "N L C"]:
        """Start vector for the first scale, then the embedded codes of everything coarser at every finer scale.

        `condition` joins the start where it is known before the language model has spoken.
        """
        codes = [rearrange(grid, "N h w d -> N (h w) d") for grid in codec.scale_inputs(tokens)]
        finer = self.code_embed(torch.cat(codes, dim=1).to(self.code_embed.weight.dtype))
        start = self.start if condition is None else self.start + condition[:, None]
        start = start.expand(tokens.num_images, tokens.layout.offsets[1], -1)
        return torch.cat((start.to(finer.dtype), finer), dim=1)

    def scale_inputs(self, tokens: ImageTokens, k: int, codec: TokenCodec) -> Float[Tensor, "N l C"]:
        """The slot inputs of scale k; needs the grids of scales 0 .. k-1 only."""
        if k == 0:
            return self.start.expand(tokens.num_images, tokens.layout.offsets[1], -1)
        codes = codec.next_input(tokens, k).to(self.code_embed.weight.dtype)
        return self.code_embed(rearrange(codes, "N h w d -> N (h w) d"))

    def _start(self, memory: Memory, num_rows: int, num_tokens: int) -> Float[Tensor, "GN l C"]:
        """What the first scale is fed with."""
        start = self.start if memory.condition is None else self.start + memory.condition[:, None]
        return start.expand(num_rows, num_tokens, -1)

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
        if memory.condition is not None:
            return memory.condition
        if first_slot is None:
            weights = memory.mask[:, 0, 0, :, None].to(memory.states.dtype)
            first_slot = (memory.states * weights).sum(1) / weights.sum(1)
        return self.condition_proj(first_slot)

    def _rotary(self, layout: ImageLayout, device: torch.device) -> Rotary:
        head_dim = self.config.hidden_size // self.config.num_heads
        if self.config.corner_positions:
            positions = corner_positions_2d(layout, device)
        else:
            positions = positions_2d(layout, self.config.rope_grid, device)
        return rotary_2d(positions, head_dim, self.config.rope_base)

    def _embed(
        self, slots: Tensor | None, inputs: Tensor, levels: Tensor, rotary: Rotary, source: Tensor | None
    ) -> Tensor:
        x = self.level_embed(levels)[None]
        if self.config.absolute_positions:
            x = x + self.position_embed(torch.cat(rotary, dim=-1).to(x.dtype))
        if slots is not None:
            slots = self.slot_proj(slots) if self.config.slot_projection else slots
            x = x + F.pad(slots, (0, 0, 0, inputs.shape[1] - slots.shape[1]))  # in training, perhaps the first alone
        if slots is None or self.config.input_residual:
            x = x + inputs
        return x if source is None else x + source

    def _head(self, x: Tensor, condition: Tensor, rest: Tensor | None) -> Float[Tensor, "GN l d 2"]:
        scale, shift = self.head_modulation(condition)[:, None].chunk(2, dim=-1)
        states = self.head_norm(x) * (1 + scale) + shift
        logits = rearrange(self.head(states), "N L (d two) -> N L d two", two=2)
        if rest is None:
            return logits
        repeating = self.source_copy(states, rest)
        return torch.stack((logits[..., 0], logits[..., 1] + repeating), dim=-1)

    def _source_rest(
        self, memory: Memory, codec: TokenCodec, layout: ImageLayout, grids: tuple[Tensor, ...], num_scales: int
    ) -> Float[Tensor, "GN l d"] | None:
        """What is left of the source before each of so many scales, the last one after `grids`; 0 without a source."""
        if memory.source is None or not self.config.source_copy:
            return None
        latents = rearrange(memory.source, "GN d h w -> GN h w d")
        parts = []
        for k in range(len(grids) + 1 - num_scales, len(grids) + 1):
            branches = latents.split(len(latents) if k == 0 else len(grids[0]))
            rests = torch.cat([codec.rest(branch, layout, grids[:k]) for branch in branches])
            parts.append(rearrange(rests, "GN h w d -> GN (h w) d"))
        return torch.cat(parts, dim=1) * memory.source.flatten(1).any(1)[:, None, None]

    def logits(self, context: ImageContext, tokens: ImageTokens, codec: TokenCodec) -> Float[Tensor, "GN L d 2"]:
        """All scales at once, teacher-forced; branches folded into rows, branch-major."""
        layout, device = tokens.layout, self.null_memory.device
        memory = self.memory(context.branches, tokens.num_images)
        slots = None if context.slots is None else rearrange(context.slots, "G N L D -> (G N) L D")
        inputs = repeat(self.slot_inputs(tokens, codec), "N L C -> (G N) L C", G=len(context.branches))
        first = layout.offsets[1]
        inputs = torch.cat((self._start(memory, len(inputs), first).to(inputs.dtype), inputs[:, first:]), dim=1)
        condition = self._condition(None if slots is None else slots[:, 0], memory)
        shared = rearrange(self.shared_modulation(condition), "N (six C) -> N six C", six=6)
        source = self._source_slots(memory, layout.scales)
        rotary, mask = self._rotary(layout, device), block_causal_mask(layout, device)
        x = self._embed(slots, inputs, level_ids(layout, device), rotary, source)
        for block in self.blocks:
            x = block(x, shared, memory.states, memory.mask, rotary, mask)
        rest = self._source_rest(memory, codec, layout, tokens.grids[:-1], layout.num_scales)
        return self._head(x, condition, rest)

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

    def scores(
        self,
        context: ImageContext,
        tokens: ImageTokens,
        codec: TokenCodec,
        temperature: float | Sequence[float] = 1.0,
    ) -> TokenScores:
        """Log-probability and entropy of every token, summed over its bits, in nats, with one branch.

        Raises:
            ValueError: more than one branch, or a temperature of 0, at which nothing is left to chance.
        """
        if len(context.branches) != 1:
            raise ValueError(f"tokens are scored on one branch, got {len(context.branches)}")
        scales = tokens.layout.scales
        per_token = [at_scale(temperature, k) for k, (h, w) in enumerate(scales) for _ in range(h * w)]
        if min(per_token) <= 0:
            raise ValueError(f"log-probabilities need a temperature above 0, got {temperature}")
        logits = self.logits(context, tokens, codec).float()
        for_one = (logits[..., 1] - logits[..., 0]) / logits.new_tensor(per_token)[:, None]
        losses = F.binary_cross_entropy_with_logits(for_one, tokens.flat().float(), reduction="none")
        entropies = F.softplus(for_one) - for_one * for_one.sigmoid()
        return TokenScores(-losses.sum(-1), entropies.sum(-1))

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

    def pack(self, dtype: torch.dtype = torch.float32) -> None:
        """Lays the weights of the blocks out for this CPU, in place; the generator can then draw, but no longer learn.

        In bfloat16 the factors of matrix products are rounded; the residual stream, norms, attention and the head,
        on which the signs of the bits depend, stay in float32.
        """
        for name in ("blocks", "memory_proj", "slot_proj"):
            if hasattr(self, name):
                setattr(self, name, pack_linears(getattr(self, name), dtype, torch.float32))

    @torch.no_grad()
    def generate(
        self,
        context: ImageContext,
        layout: ImageLayout,
        sampling: ImageSampling,
        rngs: Sequence[torch.Generator],
        codec: TokenCodec,
        given: ImageTokens | None = None,
        kept: Kept | None = None,
        faithful: Faithful | None = None,
    ) -> Iterator[ImageProgress]:
        """Draws scale by scale; the random stream of an image depends on its own generator only.

        Raises:
            ValueError: `given` or `kept` belong to another layout or another number of images.
        """
        if given is not None and (given.layout != layout or given.num_images != len(rngs)):
            raise ValueError("given scales must have the layout and the number of images that are to be drawn")
        if kept is not None:
            kept.check(layout, len(rngs))
        num_branches, device = len(context.branches), self.null_memory.device
        memory = self.memory(context.branches, len(rngs))
        cache = DrawCache([LayerCache(layout.num_tokens) for _ in self.blocks])
        cos, sin = self._rotary(layout, device)
        levels, offsets = level_ids(layout, device), layout.offsets
        guided_layer = len(self.blocks) + sampling.guidance_layer if sampling.guidance_layer < 0 else None
        condition: Tensor | None = None
        shared: Tensor | None = None
        tokens = ImageTokens(layout, (torch.empty(len(rngs), *layout.scales[0], 0, device=device),))
        grids: tuple[Tensor, ...] = ()
        for k, (h, w) in enumerate(layout.scales):
            span = slice(offsets[k], offsets[k + 1])
            if k == 0:
                rows = self._start(memory, num_branches * len(rngs), offsets[1])
                inputs = rearrange(rows, "(G N) l C -> G N l C", G=num_branches)
            else:
                inputs = repeat(self.scale_inputs(tokens, k, codec), "N l C -> G N l C", G=num_branches)
            slots = None if context.step is None else rearrange(context.step(inputs, k), "G N l D -> (G N) l D")
            if condition is None or shared is None:
                condition = self._condition(None if slots is None else slots[:, 0], memory)
                shared = rearrange(self.shared_modulation(condition), "N (six C) -> N six C", six=6)
            source = self._source_slots(memory, [(h, w)])
            x = self._embed(slots, inputs.flatten(0, 1), levels[span], (cos[span], sin[span]), source)
            for number, (block, layer_cache) in enumerate(zip(self.blocks, cache.layers, strict=True)):
                x = block(x, shared, memory.states, memory.mask, (cos[span], sin[span]), None, layer_cache)
                if number == guided_layer:
                    x = repeat(guide_states(x, num_branches, sampling, k), "N l C -> (G N) l C", G=num_branches)
            if given is not None and k < len(given.grids):
                bits = given.grids[k].to(device)
            else:
                rest = self._source_rest(memory, codec, layout, grids, 1)
                logits = self._head(x, condition, rest)
                lean = None if faithful is None else faithful.log_odds(codec, layout, grids)
                bits = self._sample_bits(logits, num_branches, sampling, rngs, k, (h, w), lean)
            grids += (bits if kept is None else kept.over(bits, k),)
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
        lean: Float[Tensor, "N l d"] | None = None,
    ) -> Bool[Tensor, "N h w d"]:
        logits = logits.float()
        logits = logits[: len(rngs)] if sampling.guidance_layer else guide_states(logits, num_branches, sampling, k)
        logits = logits if lean is None else torch.stack((logits[..., 0], logits[..., 1] + lean), dim=-1)
        top_k, top_p = int(at_scale(sampling.top_k, k)), at_scale(sampling.top_p, k)
        choices = sample(logits, at_scale(sampling.temperature, k), rngs, top_k, top_p)
        return rearrange(choices.bool(), "N (h w) d -> N h w d", h=scale[0], w=scale[1])


def guide_states(states: Float[Tensor, "GN *rest"], num_branches: int, sampling: ImageSampling, k: int) -> Tensor:
    """Classifier-free guidance of rows in which the branches are folded: logits, or the output of a layer."""
    image_scale = sampling.image_guidance_scale
    image_guidance = 1.0 if image_scale is None else at_scale(image_scale, k)
    unfolded = states.unflatten(0, (num_branches, -1))
    return guide(unfolded, at_scale(sampling.guidance_scale, k), image_guidance)


class PooledNextScaleGenerator(NextScaleGenerator):
    """The published way of conditioning: Infinity's, and VARGPT-v1.1's decoder.

    Memory is normalised and projected to the generator's width; AdaLN and the start follow from an attentive pool over
    it, or over what `Branch.pooled` holds. The null is a sequence: as many of its states as the memory has stand in for
    it, all of them at most (published code fails beyond).
    """

    def _make_conditioning(self, config: VargptGeneratorConfig) -> int:
        width, memory_size = config.hidden_size, config.memory_size
        if config.slot_projection:
            self.slot_proj = nn.Linear(memory_size, width)
        self.memory_norm = nn.RMSNorm(memory_size, eps=config.norm_eps)
        self.memory_proj = nn.Sequential(nn.Linear(memory_size, width), nn.GELU("tanh"), nn.Linear(width, width))
        self.pool = AttentivePool(memory_size, width, config.cross_attention_rounded)
        self.null_memory = nn.Parameter(torch.randn(config.null_length, memory_size) * config.initializer_range)
        return width

    def pooled_condition(
        self, states: Float[Tensor, "N P D"], mask: Bool[Tensor, "N P"] | None = None
    ) -> Float[Tensor, "N C"]:
        """The AdaLN condition, and what joins the start."""
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if mask is None else mask
        return self.pool(self.memory_norm(states), mask)

    def memory(self, branches: Sequence[Branch], num_images: int) -> Memory:
        longest = max((b.memory.shape[1] for b in branches if b.memory is not None), default=self.config.null_length)
        lengths = self._lengths(branches, num_images)
        states, masks, conditions = [], [], []
        for branch in branches:
            state, mask = self._states(branch.memory, branch.memory_mask, lengths)
            pooled: Tensor = state
            pooled_mask: Tensor | None = mask
            if branch.memory is None and any(other.pooled is not None for other in branches):
                pooled, pooled_mask = state[:, :1], mask[:, :1]
            elif branch.pooled is not None:
                pooled, pooled_mask = branch.pooled, None
            conditions.append(self.pooled_condition(pooled, pooled_mask))
            pad = longest - state.shape[1]
            states.append(F.pad(state, (0, 0, 0, pad)))
            masks.append(F.pad(mask, (0, pad)))
        keys = torch.cat(states)
        if self.config.memory_projection:
            keys = self.memory_proj(self.memory_norm(keys))
        return Memory(keys, torch.cat(masks)[:, None, None], None, torch.cat(conditions))

    def _lengths(self, branches: Sequence[Branch], num_images: int) -> Int[Tensor, " N"]:
        """How many states of the null each image gets: as many as its conditional memory has."""
        first = next((b for b in branches if b.memory is not None), None)
        if first is None or first.memory is None:
            return torch.full((num_images,), self.config.null_length, device=self.null_memory.device)
        if first.null_lengths is not None:
            return first.null_lengths
        if first.memory_mask is None:
            return torch.full((num_images,), first.memory.shape[1], device=self.null_memory.device)
        return first.memory_mask.sum(1)

    def _states(
        self, states: Tensor | None, mask: Tensor | None, lengths: Int[Tensor, " N"]
    ) -> tuple[Float[Tensor, "N S D"], Bool[Tensor, "N S"]]:
        """A branch's own states; the null for a branch without, and for rows that may attend nothing."""
        length = int(lengths.clamp(max=self.config.null_length).max())
        null = self.null_memory[:length].expand(len(lengths), -1, -1)
        null_mask = torch.arange(length, device=null.device) < lengths[:, None]
        if states is None:
            return null, null_mask
        if mask is None:
            return states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        empty = ~mask.any(1)
        if not bool(empty.any()):
            return states, mask
        size = max(length, states.shape[1])
        null, null_mask = F.pad(null, (0, 0, 0, size - length)), F.pad(null_mask, (0, size - length))
        null_mask[:, :1] = True
        states, mask = F.pad(states, (0, 0, 0, size - states.shape[1])), F.pad(mask, (0, size - mask.shape[1]))
        return torch.where(empty[:, None, None], null.to(states.dtype), states), torch.where(
            empty[:, None], null_mask, mask
        )


def make_generator(config: VargptGeneratorConfig) -> NextScaleGenerator:
    """The generator that `config.conditioning` asks for."""
    return PooledNextScaleGenerator(config) if config.conditioning == "pooled" else NextScaleGenerator(config)
