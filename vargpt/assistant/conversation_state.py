"""What a model remembers of B conversations at once: the cache of its language model, and what drawing needs.

Shape legend: B rows, T tokens so far, D width, V vocabulary, h w a grid, d channels of a latent.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel

# What the argument of a forward with the keys and values so far is called: the old name goes with transformers 5.40.
CACHE = "cache" if "cache" in inspect.signature(Qwen2VLTextModel.forward).parameters else "past_key_values"


@dataclass
class ConversationState:
    """All that is remembered of B conversations. `logits` are those after each row's last real token."""

    cache: DynamicCache
    mask: Bool[Tensor, "B T"]  # False at padding
    vision: Bool[Tensor, "B T"]  # True at picture placeholders
    hidden: Float[Tensor, "B T D"]
    position: Int[Tensor, " B"]  # the next free position
    logits: Float[Tensor, "B V"]
    source: Float[Tensor, "B h w d"] | None = None  # latents of the last picture of each row
    source_mask: Bool[Tensor, " B"] | None = None  # which rows have one

    @property
    def length(self) -> int:
        return self.mask.shape[1]

    def select(self, rows: Sequence[int]) -> ConversationState:
        """A copy with these rows, in this order; a row may be repeated."""
        index = torch.tensor(list(rows), device=self.mask.device)
        return ConversationState(
            cache=select_cache(self.cache, index),
            mask=self.mask[index],
            vision=self.vision[index],
            hidden=self.hidden[index],
            position=self.position[index],
            logits=self.logits[index],
            source=None if self.source is None else self.source[index],
            source_mask=None if self.source_mask is None else self.source_mask[index],
        )

    @property
    def num_bytes(self) -> int:
        """What it takes in memory."""
        tensors = [tensor for layer in self.cache.layers for tensor in (layer.keys, layer.values)]
        tensors += [self.mask, self.vision, self.hidden, self.logits]
        return sum(tensor.nbytes for tensor in tensors) + (0 if self.source is None else self.source.nbytes)

    def without_padding(self) -> ConversationState:
        """The same without the places that are padding in every row."""
        used = self.mask.any(0)
        if bool(used.all()):
            return self
        places = used.nonzero().flatten()
        cache = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            cache.update(layer.keys[:, :, places], layer.values[:, :, places], number)
        mask, vision, hidden = self.mask[:, places], self.vision[:, places], self.hidden[:, places]
        return replace(self, cache=cache, mask=mask, vision=vision, hidden=hidden)

    def rewind(self) -> None:
        """Takes back what an `extend` that failed half-way has left in the cache."""
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, : self.length], layer.values[:, :, : self.length]


def join_states(states: Sequence[ConversationState]) -> ConversationState:
    """The rows of all states in one, the shorter ones padded on the left; the states must not be used again."""
    if len(states) == 1:
        return states[0]
    length = max(state.length for state in states)
    gaps = [length - state.length for state in states]
    cache = DynamicCache()
    for number in range(len(states[0].cache.layers)):
        layers = [state.cache.layers[number] for state in states]
        keys, values = (
            torch.cat([F.pad(getattr(layer, name), (0, 0, gap, 0)) for layer, gap in zip(layers, gaps, strict=True)])
            for name in ("keys", "values")
        )
        cache.update(keys, values, number)

    def joined(name: str) -> Tensor:
        return torch.cat([F.pad(getattr(state, name), (gap, 0)) for state, gap in zip(states, gaps, strict=True)])

    source, source_mask = join_sources(states)
    hidden = torch.cat([F.pad(state.hidden, (0, 0, gap, 0)) for state, gap in zip(states, gaps, strict=True)])
    return ConversationState(
        cache=cache,
        mask=joined("mask"),
        vision=joined("vision"),
        hidden=hidden,
        position=torch.cat([state.position for state in states]),
        logits=torch.cat([state.logits for state in states]),
        source=source,
        source_mask=source_mask,
    )


def join_sources(states: Sequence[ConversationState]) -> tuple[Tensor | None, Tensor | None]:
    """Sources of all rows; zeros, masked, where a state has none."""
    known = next((state.source for state in states if state.source is not None), None)
    if known is None:
        return None, None
    sources, masks = [], []
    for state in states:
        rows = len(state.mask)
        if state.source is None or state.source_mask is None:
            sources.append(known.new_zeros(rows, *known.shape[1:]))
            masks.append(torch.zeros(rows, dtype=torch.bool, device=known.device))
        else:
            sources.append(state.source)
            masks.append(state.source_mask)
    return torch.cat(sources), torch.cat(masks)


def select_cache(cache: DynamicCache, index: Int[Tensor, " R"]) -> DynamicCache:
    """A new cache with these rows; the old one stays as it is."""
    selected = DynamicCache()
    for number, layer in enumerate(cache.layers):
        selected.update(layer.keys[index], layer.values[index], number)
    return selected
