"""What all bitwise next-scale generators share: teacher forcing, scoring and drawing, scale by scale.

In: an `ImageContext` (guidance branches, LLM outputs of the slots). Out: two logits per bit of every token, and by
sampling them scale by scale `ImageTokens`. After VAR (arXiv 2404.02905) and the "infinite vocabulary" of Infinity
(arXiv 2412.04431, section 3.2): a token of d bits is predicted by d binary classifiers instead of a 2^d-way one.

Shape legend: G branches, N images, L tokens of all scales, l tokens of one scale, K scales, S memory positions,
C width, D memory width, d bits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import initialization as init

from vargpt.config import InfinityConfig, NextScaleConfig
from vargpt.generators.base import SlotGenerator, TokenScores
from vargpt.generators.constraints import FixedCells, SourceBias
from vargpt.generators.parts import Block, CrossAttention, DrawCache, LayerCache, Rotary
from vargpt.generators.schedules import block_causal_mask, level_ids
from vargpt.sampling import at_scale, guidance_at, guide, sample
from vargpt.types import Branch, EditCodec, ImageContext, ImageLayout, ImageProgress, ImageSampling, ImageTokens

INPUT_STD = 2.0  # of the weights that embed codes and scales
Scales = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Memory:
    """What cross-attention sees of all branches, folded into rows; and what else the generator made of the branches."""

    states: Float[Tensor, "GN S D"]
    mask: Bool[Tensor, "GN 1 1 S"]
    source: Float[Tensor, "GN d h w"] | None = None  # latents of the source of an edit
    condition: Float[Tensor, "GN C"] | None = None  # of AdaLN, where it follows from the memory


class BitwiseGenerator(SlotGenerator[EditCodec]):
    """Block-causal transformer over the scales of an image, cross-attending to the memory of its branches.

    A subclass says what the memory and the condition are made of, what is added up at the input, and where tokens are.
    """

    def __init__(self, config: NextScaleConfig | InfinityConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.start = nn.Parameter(torch.randn(width) * config.initializer_range)
        self.code_embed = nn.Linear(config.code_dim, width)
        self.level_embed = nn.Embedding(config.max_scales, width)
        self.make_conditioning()
        self.shared_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, config.mlp_size, self.make_cross_attention(), config.norm_eps)
            for _ in range(config.num_layers)
        )
        self.head_norm = nn.LayerNorm(width, eps=config.norm_eps, elementwise_affine=False)
        self.head_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.head = nn.Linear(width, 2 * config.num_bits)

    @property
    def device(self) -> torch.device:
        return self.start.device

    @property
    def dtype(self) -> torch.dtype:
        return self.start.dtype

    @torch.no_grad()
    def init_inputs(self) -> None:
        """What has been drawn so far, and on which scale one is, must count beside the language model's slots.

        Codes have a norm of about one, not one per channel, so their embeddings take a wider start than other layers.
        """
        for parameter in (self.level_embed.weight, self.code_embed.weight, self.start):
            init.normal_(parameter, mean=0.0, std=INPUT_STD)

    def check_sampling(self, sampling: ImageSampling) -> None:
        """See `ImageGenerator.check_sampling`; `guidance_layer` names one of the layers."""
        super().check_sampling(sampling)
        deepest = 1 - len(self.blocks)
        if not deepest <= sampling.guidance_layer <= 0:
            raise ValueError(
                f"guidance_layer is 0 (the logits) or {deepest} to -1 (a layer, counted from the last), "
                f"got {sampling.guidance_layer}"
            )

    # -- what a subclass says --------------------------------------------------------------------------------------

    @abstractmethod
    def make_conditioning(self) -> None:
        """The layers between what an image is drawn from and the blocks."""

    @abstractmethod
    def make_cross_attention(self) -> CrossAttention:
        """The cross-attention of one block."""

    @abstractmethod
    def memory(self, branches: Sequence[Branch], num_images: int) -> Memory:
        """Folds the branches into rows. A row that may attend nothing gets the learned null."""

    @abstractmethod
    def condition(self, first_slot: Tensor | None, memory: Memory) -> Float[Tensor, "GN C"]:
        """The AdaLN condition."""

    @abstractmethod
    def rotary(self, layout: ImageLayout) -> Rotary:
        """The rotary positions of all tokens."""

    @abstractmethod
    def embed(
        self,
        slots: Float[Tensor, "GN s D"] | None,
        inputs: Float[Tensor, "GN l C"],
        levels: Tensor,
        rotary: Rotary,
        memory: Memory,
        scales: Scales,
    ) -> Float[Tensor, "GN l C"]:
        """What enters the first block: the slots (in training perhaps the first alone), codes, level and positions."""

    def repeated(
        self,
        states: Float[Tensor, "GN l C"],
        memory: Memory,
        codec: EditCodec,
        layout: ImageLayout,
        grids: tuple[Tensor, ...],
        num_scales: int,
    ) -> Float[Tensor, "GN l d"] | None:
        """What is added to the log-odds of every bit so that an edit repeats its source; None = nothing.

        Of so many scales, the last one after `grids`.
        """
        return None

    def start_rows(self, memory: Memory, num_rows: int, num_tokens: int) -> Float[Tensor, "GN l C"]:
        """What the first scale is fed with."""
        start = self.start if memory.condition is None else self.start + memory.condition[:, None]
        return start.expand(num_rows, num_tokens, -1)

    # -- the transformer -------------------------------------------------------------------------------------------

    def slot_inputs(self, tokens: ImageTokens, codec: EditCodec, known: Branch) -> Float[Tensor, "N L C"]:
        """The start for the first scale, then the embedded codes of everything coarser at every finer scale."""
        start = self.start.expand(tokens.num_images, tokens.layout.offsets[1], -1)
        return self.with_codes(start, tokens, codec)

    def with_codes(
        self, start: Float[Tensor, "N s C"], tokens: ImageTokens, codec: EditCodec
    ) -> Float[Tensor, "N L C"]:
        """The inputs of all scales but the first, behind what that is fed with."""
        codes = [rearrange(grid, "N h w d -> N (h w) d") for grid in codec.scale_inputs(tokens)]
        finer = self.code_embed(torch.cat(codes, dim=1).to(self.code_embed.weight.dtype))
        return torch.cat((start.to(finer.dtype), finer), dim=1)

    def scale_inputs(self, tokens: ImageTokens, k: int, codec: EditCodec) -> Float[Tensor, "N l C"]:
        """The slot inputs of scale k; needs the grids of scales 0 .. k-1 only."""
        if k == 0:
            return self.start.expand(tokens.num_images, tokens.layout.offsets[1], -1)
        codes = codec.next_input(tokens, k).to(self.code_embed.weight.dtype)
        return self.code_embed(rearrange(codes, "N h w d -> N (h w) d"))

    def head_states(self, x: Tensor, condition: Tensor) -> Float[Tensor, "GN l C"]:
        """What the bits are read off: normalised, and modulated by the condition."""
        scale, shift = self.head_modulation(condition)[:, None].chunk(2, dim=-1)
        return self.head_norm(x) * (1 + scale) + shift

    def bit_logits(self, states: Tensor, repeating: Tensor | None) -> Float[Tensor, "GN l d 2"]:
        """Two logits per bit; `repeating` is added to those of 1."""
        logits = rearrange(self.head(states), "N L (d two) -> N L d two", two=2)
        return logits if repeating is None else torch.stack((logits[..., 0], logits[..., 1] + repeating), dim=-1)

    def logits(self, context: ImageContext, tokens: ImageTokens, codec: EditCodec) -> Float[Tensor, "GN L d 2"]:
        """All scales at once, teacher-forced; branches folded into rows, branch-major."""
        layout, device = tokens.layout, self.device
        memory = self.memory(context.branches, tokens.num_images)
        slots = None if context.slots is None else rearrange(context.slots, "G N L D -> (G N) L D")
        start = self.start_rows(memory, len(context.branches) * tokens.num_images, layout.offsets[1])
        if context.slot_inputs is None:
            finer = self.with_codes(self.start.expand(tokens.num_images, 0, -1), tokens, codec)
        else:
            finer = context.slot_inputs[:, layout.offsets[1] :]
        finer = repeat(finer, "N L C -> (G N) L C", G=len(context.branches))
        inputs = torch.cat((start.to(finer.dtype), finer), dim=1)
        condition = self.condition(None if slots is None else slots[:, 0], memory)
        shared = rearrange(self.shared_modulation(condition), "N (six C) -> N six C", six=6)
        rotary, mask = self.rotary(layout), block_causal_mask(layout, device)
        x = self.embed(slots, inputs, level_ids(layout, device), rotary, memory, layout.scales)
        for block in self.blocks:
            x = block(x, shared, memory.states, memory.mask, rotary, mask)
        states = self.head_states(x, condition)
        return self.bit_logits(
            states, self.repeated(states, memory, codec, layout, tokens.grids[:-1], layout.num_scales)
        )

    # -- learning --------------------------------------------------------------------------------------------------

    def bit_losses(
        self, context: ImageContext, tokens: ImageTokens, codec: EditCodec, targets: ImageTokens | None = None
    ) -> Float[Tensor, "N L d"]:
        """Cross-entropy of every bit in nats, with one branch."""
        if len(context.branches) != 1:
            raise ValueError(f"losses are computed on one branch, got {len(context.branches)}")
        bits = (targets or tokens).flat()
        logits = self.logits(context, tokens, codec).float()
        # two logits per bit: cross-entropy depends on their difference only
        return F.binary_cross_entropy_with_logits(logits[..., 1] - logits[..., 0], bits.float(), reduction="none")

    def log_probs(
        self, context: ImageContext, tokens: ImageTokens, codec: EditCodec, targets: ImageTokens | None = None
    ) -> Float[Tensor, "N L"]:
        """Log-probability of every token, summed over its bits, in nats."""
        return -self.bit_losses(context, tokens, codec, targets).sum(-1)

    def scores(
        self,
        context: ImageContext,
        tokens: ImageTokens,
        codec: EditCodec,
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
        codec: EditCodec,
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
        codec: EditCodec,
        given: ImageTokens | None = None,
        fixed: FixedCells | None = None,
        bias: SourceBias | None = None,
    ) -> Iterator[ImageProgress]:
        """Draws scale by scale; the random stream of an image depends on its own generator only.

        Raises:
            ValueError: `given` or `fixed` belong to another layout or another number of images.
        """
        if given is not None and (given.layout != layout or given.num_images != len(rngs)):
            raise ValueError("given scales must have the layout and the number of images that are to be drawn")
        if fixed is not None:
            fixed.check(layout, len(rngs))
        num_branches, device = len(context.branches), self.device
        memory = self.memory(context.branches, len(rngs))
        cache = DrawCache([LayerCache(layout.num_tokens) for _ in self.blocks])
        cos, sin = self.rotary(layout)
        levels, offsets = level_ids(layout, device), layout.offsets
        guided_layer = len(self.blocks) + sampling.guidance_layer if sampling.guidance_layer < 0 else None
        condition: Tensor | None = None
        shared: Tensor | None = None
        tokens = ImageTokens(layout, (torch.empty(len(rngs), *layout.scales[0], 0, device=device),))
        grids: tuple[Tensor, ...] = ()
        for k, scale in enumerate(layout.scales):
            span = slice(offsets[k], offsets[k + 1])
            scales = guidance_at(sampling, k, layout.num_scales)
            if k == 0:
                rows = self.start_rows(memory, num_branches * len(rngs), offsets[1])
                inputs = rearrange(rows, "(G N) l C -> G N l C", G=num_branches)
            else:
                inputs = repeat(self.scale_inputs(tokens, k, codec), "N l C -> G N l C", G=num_branches)
            slots = None if context.step is None else rearrange(context.step(inputs, k), "G N l D -> (G N) l D")
            if condition is None or shared is None:
                condition = self.condition(None if slots is None else slots[:, 0], memory)
                shared = rearrange(self.shared_modulation(condition), "N (six C) -> N six C", six=6)
            rotary = (cos[span], sin[span])
            x = self.embed(slots, inputs.flatten(0, 1), levels[span], rotary, memory, [scale])
            for number, (block, layer_cache) in enumerate(zip(self.blocks, cache.layers, strict=True)):
                x = block(x, shared, memory.states, memory.mask, rotary, None, layer_cache)
                if number == guided_layer:
                    guided = guide(x.unflatten(0, (num_branches, -1)), *scales)
                    x = repeat(guided, "N l C -> (G N) l C", G=num_branches)
            if given is not None and k < len(given.grids):
                bits = given.grids[k].to(device)
            else:
                states = self.head_states(x, condition)
                logits = self.bit_logits(states, self.repeated(states, memory, codec, layout, grids, 1)).float()
                logits = logits.unflatten(0, (num_branches, -1))
                logits = logits[0] if guided_layer is not None else guide(logits, *scales)
                if bias is not None:
                    lean = bias.log_odds(codec, layout, grids)
                    logits = torch.stack((logits[..., 0], logits[..., 1] + lean), dim=-1)
                bits = sample_bits(logits, sampling, rngs, k, scale)
            grids += (bits if fixed is None else fixed.over(bits, k),)
            tokens = ImageTokens(layout, grids)
            yield ImageProgress(tokens, k + 1, layout.num_scales)


def sample_bits(
    logits: Float[Tensor, "N l d 2"],
    sampling: ImageSampling,
    rngs: Sequence[torch.Generator],
    k: int,
    scale: tuple[int, int],
) -> Bool[Tensor, "N h w d"]:
    """The bits of scale k, of so many rows and columns."""
    top_k, top_p = int(at_scale(sampling.top_k, k)), at_scale(sampling.top_p, k)
    choices = sample(logits, at_scale(sampling.temperature, k), rngs, top_k, top_p)
    return rearrange(choices.bool(), "N (h w) d -> N h w d", h=scale[0])
