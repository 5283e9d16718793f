"""Where every token of a mixed sequence stands and what it may see.

In: token ids with placeholders (vision placeholders of input pictures, slots of drawn ones). Out: M-RoPE positions and
attention masks. A picture that is drawn occupies `<start>` + slots + `<end>`; its slots are transient, so positions
go on after `<start>` as if they were not there, and no later token sees them:

    text <start> s0 s1 .. s129 <end> <vision_start> v v .. v <vision_end> text
    pos   5      6  7  ..  135   6         7        8 ..         (max+1)

Shape legend: B rows, T tokens, I input pictures, Q queries, K keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Visibility(IntEnum):
    """What a drawn image may see of its conversation: the guidance branches, also trained as dropout per image."""

    FULL = 0
    NULL = 1
    IMAGE_ONLY = 2
    TEXT_ONLY = 3


@dataclass(frozen=True)
class PlaceholderIds:
    """Token ids that mark places in a sequence."""

    image: int  # one per merged patch of an input picture
    slot: int  # one per token of a drawn picture
    start: int  # opens a drawn picture


def slot_runs(is_slot: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Index of each slot inside its own run (0, 1, 2 ...); meaningless elsewhere."""
    index = torch.arange(is_slot.shape[1], device=is_slot.device).expand_as(is_slot)
    last_other = torch.where(is_slot, -1, index).cummax(dim=1).values
    return index - last_other - 1


def merged_grids(image_grid_thw: Int[Tensor, "I 3"], merge_size: int) -> list[tuple[int, int, int]]:
    """(t, h, w) of every input picture in merged patches, that is in placeholders."""
    return [(int(t), int(h) // merge_size, int(w) // merge_size) for t, h, w in image_grid_thw.tolist()]


def rope_positions(
    input_ids: Int[Tensor, "B T"],
    attention_mask: Bool[Tensor, "B T"],
    ids: PlaceholderIds,
    grids: list[tuple[int, int, int]],
    first: Int[Tensor, " B"] | None = None,
) -> tuple[Int[Tensor, "3 B T"], Int[Tensor, " B"]]:
    """M-RoPE positions (Qwen2-VL, arXiv 2409.12191, section 2.1) and the next free position of every row.

    Args:
        input_ids: token ids.
        attention_mask: False at padding, which takes no position.
        ids: the placeholder ids.
        grids: merged (t, h, w) of the input pictures in order of appearance, row by row.
        first: position at which each row goes on (a continued conversation); default 0.

    Raises:
        ValueError: the number of placeholders is not what `grids` ask for.
    """
    is_vision, is_slot = input_ids == ids.image, input_ids == ids.slot
    coords, advance_vision = _vision_coordinates(grids, input_ids.device)
    if int(is_vision.sum()) != coords.shape[1]:
        raise ValueError(
            f"{int(is_vision.sum())} picture placeholders stand against {coords.shape[1]} patches of pictures"
        )
    advance = (attention_mask & ~is_slot & ~is_vision).long()
    advance[is_vision] = advance_vision
    counter = advance.cumsum(1) - advance
    if first is not None:
        counter = counter + first[:, None]
    positions = (counter + slot_runs(is_slot) * is_slot).expand(3, -1, -1).clone()
    positions[:, is_vision] += coords
    following = advance.sum(1) + (0 if first is None else first)
    return positions, following


def _vision_coordinates(grids: list[tuple[int, int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """(t, y, x) of every placeholder, and how far positions move on after it (at the last one of a picture)."""
    coords = [torch.zeros(3, 0, dtype=torch.long, device=device)]
    advance = [torch.zeros(0, dtype=torch.long, device=device)]
    for t, h, w in grids:
        axes = [torch.arange(n, device=device) for n in (t, h, w)]
        coords.append(torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1))
        step = torch.zeros(t * h * w, dtype=torch.long, device=device)
        step[-1] = max(t, h, w)
        advance.append(step)
    return torch.cat(coords, dim=1), torch.cat(advance)


def training_mask(
    input_ids: Int[Tensor, "B T"],
    attention_mask: Bool[Tensor, "B T"],
    ids: PlaceholderIds,
    conditions: Int[Tensor, "B T"] | None = None,
) -> Bool[Tensor, "B 1 T T"]:
    """True where a query may attend a key: not later, and no slot, or a slot of the same drawn image.

    `conditions` holds a `Visibility` at every slot and takes the prefix (NULL), the text before it (IMAGE_ONLY) or the
    pictures before it (TEXT_ONLY) out of that slot's sight. Every token sees itself, so that padding stays finite.
    """
    is_slot, is_vision = input_ids == ids.slot, input_ids == ids.image
    owner = (input_ids == ids.start).cumsum(1)
    same_image = owner[:, :, None] == owner[:, None, :]
    slot_key, vision_key = is_slot[:, None, :], is_vision[:, None, :]
    allowed = attention_mask[:, None, :] & (~slot_key | (same_image & is_slot[:, :, None]))
    if conditions is not None:
        condition = torch.where(is_slot, conditions, int(Visibility.FULL))[:, :, None]
        allowed &= (condition != Visibility.NULL) | slot_key
        allowed &= (condition != Visibility.IMAGE_ONLY) | slot_key | vision_key
        allowed &= (condition != Visibility.TEXT_ONLY) | ~vision_key
    length = input_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()
    return ((allowed & causal) | torch.eye(length, dtype=torch.bool, device=input_ids.device))[:, None]


def continued_mask(cached: Bool[Tensor, "B K"], new: Bool[Tensor, "B Q"]) -> Bool[Tensor, "B 1 Q KQ"]:
    """Causal mask of new tokens over a cache whose padding is False in `cached`; every token sees itself."""
    length = new.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=new.device).tril()
    among_new = (causal & new[:, None, :]) | torch.eye(length, dtype=torch.bool, device=new.device)
    before = cached[:, None, :].expand(-1, length, -1)
    return torch.cat((before, among_new), dim=2)[:, None]


def branch_keys(cached: Bool[Tensor, "B K"], vision: Bool[Tensor, "B K"], condition: Visibility) -> Bool[Tensor, "B K"]:
    """Which cached positions a guidance branch may see."""
    if condition == Visibility.NULL:
        return torch.zeros_like(cached)
    if condition == Visibility.IMAGE_ONLY:
        return cached & vision
    if condition == Visibility.TEXT_ONLY:
        return cached & ~vision
    return cached
