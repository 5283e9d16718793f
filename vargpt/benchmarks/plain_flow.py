"""The published way of drawing a picture, written down plainly: what a speed is compared with.

In: a `Subject`. Out: bits per scale, and the logits that decided them. As in the code published with Infinity (arXiv
2412.04431) and VARGPT-v1.1 (arXiv 2504.02949): the language model runs twice per scale, one branch after the other; the
branches of the transformer are not batched; keys and values of its memory are computed again at every scale and layer;
rotary tables and masks are rebuilt, caches grow by concatenation; the decoder runs in one piece, in float32 and in the
layout that PyTorch has by default. The language model's head is left out, since nobody asks it while a picture forms.

Shape legend: N one image, L tokens of a scale, H heads, E channels per head, S memory positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import DynamicCache

from vargpt.assistant.conversation_state import CACHE, select_cache
from vargpt.assistant.sequence import continued_mask
from vargpt.benchmarks.architectures import GREEDY, Subject
from vargpt.generators.bitwise import Memory
from vargpt.generators.parts import Block, CrossAttention, Rotary, SelfAttention
from vargpt.generators.schedules import level_ids
from vargpt.sampling import guide
from vargpt.tokenizers.convnet import Decoder
from vargpt.types import ImageTokens

KeysAndValues = dict[int, tuple[Tensor, Tensor]]  # of each layer


@dataclass(frozen=True)
class PlainScale:
    """One finished scale: all tokens so far, and the guided logits of its own ("1 L d 2")."""

    tokens: ImageTokens
    logits: Float[Tensor, "1 L d 2"]


@dataclass
class PlainBranch:
    """One guidance branch on its own: its memory and what its layers have seen."""

    memory: Memory
    caches: KeysAndValues = field(default_factory=dict)
    text_cache: DynamicCache | None = None  # None = starts anew at every scale


@torch.no_grad()
def plain_draw(subject: Subject) -> Iterator[PlainScale]:
    """Draws greedily, scale by scale. Only architectures that pool their condition, as published ones do."""
    generator, layout = subject.generator, subject.layout
    memory = generator.memory(subject.branches, 1)
    branches = [PlainBranch(one_row(memory, row)) for row in range(2)]
    if subject.state is not None:
        branches[0].text_cache = select_cache(subject.state.cache, torch.tensor([0]))
    grids: tuple[Tensor, ...] = ()
    for k, (h, w) in enumerate(layout.scales):
        outputs = torch.stack([branch_logits(subject, branch, grids, k) for branch in branches])
        logits = guide(outputs.float(), float(GREEDY.guidance_scale))  # type: ignore[arg-type]
        grids += (rearrange(logits.argmax(-1).bool(), "N (h w) d -> N h w d", h=h, w=w),)
        yield PlainScale(ImageTokens(layout, grids), logits)


def one_row(memory: Memory, row: int) -> Memory:
    assert memory.condition is not None, "the plain flow knows pooled conditions only"
    rows = slice(row, row + 1)
    return Memory(memory.states[rows], memory.mask[rows], None, memory.condition[rows])


def branch_logits(subject: Subject, branch: PlainBranch, grids: tuple[Tensor, ...], k: int) -> Float[Tensor, "N L d 2"]:
    """One scale of one branch through the language model, if there is one, and the transformer."""
    generator, layout = subject.generator, subject.layout
    condition = branch.memory.condition
    assert condition is not None
    shared = rearrange(generator.shared_modulation(condition), "N (six C) -> N six C", six=6)
    if k == 0:
        inputs = (generator.start + condition[:, None]).expand(1, layout.offsets[1], -1)
    else:
        inputs = generator.scale_inputs(ImageTokens(layout, grids), k, subject.image_tokenizer)
    slots = None if subject.model is None else plain_slots(subject, branch, inputs, k)
    span = slice(layout.offsets[k], layout.offsets[k + 1])
    cos, sin = generator.rotary(layout)
    rotary, levels = (cos[span], sin[span]), level_ids(layout, inputs.device)[span]
    x = generator.embed(slots, inputs, levels, rotary, branch.memory, [layout.scales[k]])
    for number, block in enumerate(generator.blocks):
        x = plain_block(block, x, shared, branch.memory, rotary, branch.caches, number)
    return generator.bit_logits(generator.head_states(x, condition), None)


def plain_slots(subject: Subject, branch: PlainBranch, inputs: Float[Tensor, "N L C"], k: int) -> Tensor:
    """What the language model says at the slots; the unconditional branch forgets everything but this scale."""
    model, state = subject.model, subject.state
    assert model is not None and state is not None
    length = inputs.shape[1]
    cache = DynamicCache() if branch.text_cache is None else branch.text_cache
    known = cache.get_seq_length()
    seen = torch.ones(1, known, dtype=torch.bool, device=inputs.device)
    hidden = model.language_model(
        inputs_embeds=model.projector_in(inputs),
        attention_mask={"full_attention": continued_mask(seen, torch.ones_like(inputs[..., 0], dtype=torch.bool))},
        position_ids=(known + torch.arange(length, device=inputs.device)).expand(3, 1, -1),
        **{CACHE: cache},
        use_cache=True,
    ).last_hidden_state
    return model.projector_out(hidden)


def plain_block(
    block: Block,
    x: Float[Tensor, "N L D"],
    shared: Float[Tensor, "N 6 D"],
    memory: Memory,
    rotary: Rotary,
    caches: KeysAndValues,
    number: int,
) -> Float[Tensor, "N L D"]:
    modulation = shared + block.modulation
    gate1, gate2, scale1, scale2, shift1, shift2 = (part[:, None] for part in modulation.unbind(1))
    attended = plain_self_attention(block.attention, block.norm1(x) * (1 + scale1) + shift1, rotary, caches, number)
    x = x + gate1 * attended
    x = x + plain_cross_attention(block.cross_attention, block.norm_cross(x), memory.states, memory.mask)
    return x + gate2 * block.mlp(block.norm2(x) * (1 + scale2) + shift2)


def plain_self_attention(
    attention: SelfAttention, x: Float[Tensor, "N L D"], rotary: Rotary, caches: KeysAndValues, number: int
) -> Float[Tensor, "N L D"]:
    q, k, v = rearrange(attention.qkv(x), "N L (three H E) -> three N H L E", three=3, H=attention.num_heads)
    scale = attention.log_scale.clamp(max=SelfAttention.MAX_LOG_SCALE).exp()
    q, k = plain_rotate(F.normalize(q, dim=-1) * scale, rotary), plain_rotate(F.normalize(k, dim=-1), rotary)
    if number in caches:
        k, v = torch.cat((caches[number][0], k), dim=2), torch.cat((caches[number][1], v), dim=2)
    caches[number] = (k, v)
    out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return attention.proj(rearrange(out, "N H L E -> N L (H E)"))


def plain_rotate(x_NHLE: Float[Tensor, "N H L E"], rotary: Rotary) -> Float[Tensor, "N H L E"]:
    cos, sin = rotary
    even, odd = x_NHLE[..., 0::2], x_NHLE[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def plain_cross_attention(
    attention: CrossAttention, x: Float[Tensor, "N L D"], memory: Float[Tensor, "N S M"], mask: Bool[Tensor, "N 1 1 S"]
) -> Float[Tensor, "N L D"]:
    q = rearrange(attention.query(x), "N L (H E) -> N H L E", H=attention.num_heads)
    k, v = rearrange(attention.key_value(memory), "N S (two H E) -> two N H S E", two=2, H=attention.num_heads)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attention.proj(rearrange(out, "N H L E -> N L (H E)"))


def plain_decoder(decoder: Decoder) -> Decoder:
    """A copy in float32 and in PyTorch's default layout."""
    return deepcopy(decoder).float().to(memory_format=torch.contiguous_format)


def plain_decode(decoder: Decoder, latents_NhwD: Float[Tensor, "N h w d"]) -> Float[Tensor, "N 3 H W"]:
    """The picture in [-1, 1] from `plain_decoder`, layer by layer and in one piece."""
    codes = rearrange(latents_NhwD, "N h w d -> N d h w").contiguous()
    with torch.enable_grad():  # no weight asks for one: nothing is recorded, and no layer takes a shortcut
        return decoder(codes).clamp(-1, 1).detach()
