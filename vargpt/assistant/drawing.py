"""Inference over one growing conversation: read more tokens, or draw a picture at its end.

In: token ids (and patches of pictures). Out: next-token logits in a `ConversationState`, and `ImageProgress` while a
picture forms. Several rows go together; padding may stand anywhere, since every position has its own mask. The slots of
a drawn picture never enter the state: they live in a cache of their own that is dropped when the picture is finished.

Shape legend: B rows, T tokens so far, t new tokens, l slots of one scale, G guidance branches, D widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from vargpt.assistant.conversation_state import CACHE, ConversationState, select_cache
from vargpt.assistant.sequence import (
    PlaceholderIds,
    Visibility,
    branch_keys,
    continued_mask,
    merged_grids,
    rope_positions,
)
from vargpt.generators.constraints import FixedCells, SourceBias
from vargpt.types import Branch, ImageContext, ImageLayout, ImageProgress, ImageSampling, ImageTokens


class DrawingMixin:
    """The inference half of `VARGPT`, which has these organs."""

    vision: Any
    language_model: Any
    lm_head: Any
    projector_in: Any
    projector_out: Any
    generator: Any
    image_tokenizer: Any
    config: Any
    placeholders: PlaceholderIds
    known_branch: Callable[..., Branch]
    embed: Callable[..., Tensor]

    @torch.no_grad()
    def extend(
        self,
        state: ConversationState | None,
        input_ids: Int[Tensor, "B t"],
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        image_latents: Float[Tensor, "I h w d"] | None = None,
    ) -> ConversationState:
        """Feeds tokens to the conversation (a new one if `state` is None) and returns the state after them.

        A row whose new tokens are all padding keeps its logits. `state` itself must not be used again: its cache grows.

        Raises:
            ValueError: slots are fed (pictures are drawn by `draw`), or placeholders and pictures do not fit.
        """
        device = input_ids.device
        if bool((input_ids == self.placeholders.slot).any()):
            raise ValueError("image slots cannot be read as text; draw pictures with `draw`")
        valid = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        rows = input_ids.shape[0]
        cached = torch.zeros(rows, 0, dtype=torch.bool, device=device) if state is None else state.mask
        grids = [] if image_grid_thw is None else merged_grids(image_grid_thw, self.vision.spatial_merge_size)
        first = None if state is None else state.position
        positions, following = rope_positions(input_ids, valid, self.placeholders, grids, first)
        cache = DynamicCache() if state is None else state.cache
        hidden = self.language_model(
            inputs_embeds=self.embed(input_ids, pixel_values, image_grid_thw),
            attention_mask={"full_attention": continued_mask(cached, valid)},
            position_ids=positions,
            **{CACHE: cache},
            use_cache=True,
        ).last_hidden_state
        last = torch.where(valid, torch.arange(valid.shape[1], device=device), -1).amax(1)
        logits = self.lm_head(hidden[torch.arange(rows, device=device), last.clamp(min=0)]).float()
        if state is not None:
            logits = torch.where((last >= 0)[:, None], logits, state.logits)
        vision = input_ids == self.placeholders.image
        source, source_mask = self._last_source(state, vision, grids, image_latents)
        return ConversationState(
            cache=cache,
            mask=torch.cat((cached, valid), dim=1),
            vision=vision if state is None else torch.cat((state.vision, vision), dim=1),
            hidden=hidden if state is None else torch.cat((state.hidden, hidden), dim=1),
            position=following,
            logits=logits,
            source=source,
            source_mask=source_mask,
        )

    def _last_source(
        self,
        state: ConversationState | None,
        vision: Bool[Tensor, "B t"],
        grids: list[tuple[int, int, int]],
        image_latents: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The latents of the last picture of each row: a new one, or the one remembered."""
        old = (None, None) if state is None else (state.source, state.source_mask)
        if image_latents is None or not grids:
            return old
        counts, remaining = [], list(grids)  # pictures per row, from the number of placeholders
        for placeholders in vision.sum(1).tolist():
            count = 0
            while placeholders > 0:
                t, h, w = remaining.pop(0)
                placeholders -= t * h * w
                count += 1
            counts.append(count)
        source = image_latents.new_zeros(len(counts), *image_latents.shape[1:])
        mask = torch.zeros(len(counts), dtype=torch.bool, device=vision.device)
        if old[0] is not None and old[1] is not None and old[0].shape[1:] == source.shape[1:]:
            source, mask = old[0].clone(), old[1].clone()
        total = 0
        for row, count in enumerate(counts):
            total += count
            if count:
                source[row], mask[row] = image_latents[total - 1], True
        return source, mask

    @torch.no_grad()
    def edit_sources(self, pixel_values: Float[Tensor, "I 3 H W"]) -> Float[Tensor, "I h w d"] | None:
        """What an edit repeats of input pictures of the default size in [-1, 1]; None = this model repeats nothing."""
        layout = self.config.layout()
        return torch.cat([self.image_tokenizer.unrounded(one[None], layout) for one in pixel_values])

    def branches(self, state: ConversationState, sampling: ImageSampling) -> list[Visibility]:
        """Full alone without guidance; full and null; with a source and its own scale, image only between them."""
        scales = sampling.guidance_scale
        unguided = scales == 1 if isinstance(scales, int | float) else all(scale == 1 for scale in scales)
        if sampling.image_guidance_scale is not None and bool(state.vision.any()):
            return [Visibility.FULL, Visibility.IMAGE_ONLY, Visibility.NULL]
        return [Visibility.FULL] if unguided else [Visibility.FULL, Visibility.NULL]

    @torch.no_grad()
    def draw(
        self,
        state: ConversationState,
        layout: ImageLayout,
        sampling: ImageSampling,
        rngs: Sequence[torch.Generator],
        given: ImageTokens | None = None,
        fixed: FixedCells | None = None,
        bias: SourceBias | None = None,
    ) -> Iterator[ImageProgress]:
        """Draws one picture per row of `state`, whose rows all end with `<|image_gen_start|>`; `state` stays as it is.

        Args:
            state: the conversations, each right after its image start token.
            layout: size and scales, from `config.layout`.
            sampling: guidance, temperature and so on.
            rngs: one generator per row.
            given: coarse scales to keep, for all rows.
            fixed: cells of any scale that keep their bits, row by row.
            bias: sources whose bits are leant towards, row by row.

        Raises:
            ValueError: as many generators as rows are needed; sampling settings out of range; tokens to be kept have
                another layout.
        """
        self.generator.check_sampling(sampling)
        if len(rngs) != state.mask.shape[0]:
            raise ValueError(f"{state.mask.shape[0]} pictures need as many random generators, got {len(rngs)}")
        conditions = self.branches(state, sampling)
        states = self.projector_out(state.hidden)
        before_start = state.mask.clone()
        last = torch.where(state.mask, torch.arange(state.length, device=state.mask.device), -1).amax(1)
        before_start[torch.arange(len(rngs)), last] = False
        branches = tuple(self._branch(state, states, before_start, condition) for condition in conditions)
        keys = torch.cat([branch_keys(state.mask, state.vision, condition) for condition in conditions])
        context = ImageContext(branches, step=self._slot_step(state, keys, len(conditions)))
        yield from self.generator.generate(context, layout, sampling, rngs, self.image_tokenizer, given, fixed, bias)

    def _branch(self, state: ConversationState, states: Tensor, before_start: Tensor, condition: Visibility) -> Branch:
        mask = branch_keys(before_start, state.vision, condition)
        has_source = condition in (Visibility.FULL, Visibility.IMAGE_ONLY) and state.source is not None
        source, source_mask = (state.source, state.source_mask) if has_source else (None, None)
        memory = None if condition == Visibility.NULL else states
        mask = None if memory is None else mask
        conditions = torch.full((len(states),), int(condition), device=states.device)
        known = Branch(None) if memory is None else self.known_branch(conditions)
        return replace(
            known, memory=memory, memory_mask=mask, source=source, source_mask=source_mask,
            label=condition.name.lower(),
        )  # fmt: skip

    def slot_position(self, state: ConversationState) -> Int[Tensor, " B"]:
        """Where the first slot of a picture that is opened now stands."""
        return state.position

    def forgetful(self, keys: Bool[Tensor, "R T"]) -> Bool[Tensor, " R"]:
        """Which rows (branches and conversations) see nothing but their own scale in the language model: none."""
        return torch.zeros_like(keys[:, 0])

    def _slot_step(
        self, state: ConversationState, keys: Bool[Tensor, "GB T"], num_branches: int
    ) -> Callable[[Tensor, int], Tensor]:
        """One scale through the language model: causal among slots, over what each branch may see of the prefix."""
        rows = state.mask.shape[0]
        index = torch.arange(rows, device=state.mask.device).repeat(num_branches)
        cache, position = select_cache(state.cache, index), self.slot_position(state)[index]
        forgets = self.forgetful(keys)
        done = 0

        def step(inputs_GNlC: Tensor, k: int) -> Tensor:
            nonlocal done
            inputs = self.projector_in(inputs_GNlC.flatten(0, 1))
            length = inputs.shape[1]
            new = torch.ones(len(index), length, dtype=torch.bool, device=inputs.device)
            earlier = (~forgets)[:, None].expand(-1, done)
            mask = continued_mask(torch.cat((keys, earlier), dim=1), new)
            first = torch.where(forgets, 0, position + done)
            positions = first[:, None] + torch.arange(length, device=inputs.device)
            hidden = self.language_model(
                inputs_embeds=inputs,
                attention_mask={"full_attention": mask},
                position_ids=positions.expand(3, -1, -1),
                **{CACHE: cache},
                use_cache=True,
            ).last_hidden_state
            done += length
            return rearrange(self.projector_out(hidden), "(G N) l M -> G N l M", G=num_branches)

        return step
