"""Our organs with the weights of a case: what several parity tests build."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from tests.parity.cases_on_disk import Case
from vargpt.config import InfinityConfig, InfinityTokenizerConfig
from vargpt.generators import bitwise
from vargpt.generators.infinity import AttentivePool, InfinityGenerator
from vargpt.generators.parts import CrossAttention
from vargpt.loading.weight_map import WeightMap, fill
from vargpt.published.infinity import infinity_layouts
from vargpt.published.infinity_weights import autoencoder_map, transformer_map
from vargpt.sampling import guide
from vargpt.tokenizers.bsq import InfinityTokenizer
from vargpt.types import Bits, ImageLayout, ImageProgress, ImageTokens


def fill_all(module: nn.Module, weight_map: WeightMap, weights: dict[str, Tensor]) -> None:
    """Copies a checkpoint into a module and makes sure that every weight of the module was given."""
    ours, filled = module.state_dict(), set()
    for name, tensor in weights.items():
        place = weight_map.place(name)
        if place is not None:
            fill(ours[place.name], place, tensor)
            filled.add(place.name)
    assert filled == set(ours), sorted(set(ours) - filled)


def build_autoencoder(case: Case, config: dict[str, Any]) -> InfinityTokenizer:
    """The autoencoder; what `config` does not say is read off the recipe of its weights."""
    shapes = {name: entry["shape"] for name, entry in case.meta["weights"]["vae"]["tensors"].items()}
    base = shapes["encoder.conv_in.conv.weight"][0]
    levels = 1 + max(int(name.split(".")[2]) for name in shapes if name.startswith("encoder.down."))
    multipliers = [shapes[f"encoder.down.{i}.block.0.conv1.conv.weight"][0] // base for i in range(levels)]
    num_bits = shapes["encoder.conv_out.conv.weight"][0]
    token_patch = 2 if config.get("apply_spatial_patchify") else 1
    tokenizer = InfinityTokenizer(
        InfinityTokenizerConfig(
            num_bits=num_bits * token_patch**2,
            base_channels=base,
            channel_multipliers=multipliers,
            num_res_blocks=1 + max(int(n.split(".")[4]) for n in shapes if n.startswith("encoder.down.0.block")),
            norm_groups=32,
            token_patch=token_patch,
        )
    )
    fill_all(tokenizer, autoencoder_map(levels, num_bits), case.weights("vae"))
    return tokenizer.eval()


def build_generator(case: Case, num_bits: int) -> InfinityGenerator:
    config = case.config
    generator = InfinityGenerator(
        InfinityConfig(
            hidden_size=config["embed_dim"],
            num_layers=config["depth"],
            num_heads=config["num_heads"],
            mlp_ratio=config["mlp_ratio"],
            code_dim=num_bits,
            num_bits=num_bits,
            memory_size=config["text_channels"],
            null_length=config["text_maxlen"],
        )
    )
    per_chunk = config["depth"] // config["block_chunks"]
    fill_all(generator, transformer_map(per_chunk if config["block_chunks"] > 1 else 0), case.weights("infinity"))
    return generator.eval()


def with_rounded_attention(module: nn.Module) -> nn.Module:
    """What published code does around attention over text, even in float32: to bfloat16 and back, in place."""
    for part in module.modules():
        if isinstance(part, CrossAttention | AttentivePool):
            part.attend = rounded_attention  # type: ignore[method-assign]
    return module


def rounded_attention(*qkv: Tensor, attn_mask: Tensor, scale: float | None = None) -> Tensor:
    q, k, v = (part.to(torch.bfloat16).to(part.dtype) for part in qkv)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, scale=scale)
    return out.to(torch.bfloat16).to(out.dtype)


def layout_of(case: Case, stride: int = 16) -> ImageLayout:
    """The schedule of a case among the published ones, with the grid that its positions are rounded onto."""
    *_, (_, height, width) = case.config["scale_schedule"]
    layout = infinity_layouts()[f"{height * 16}x{width * 16}"]
    assert [list(scale) for scale in layout.scales] == [scale[1:] for scale in case.config["scale_schedule"]]
    return replace(layout, height=height * stride, width=width * stride)


def padded(compact: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Sequences that lie one after the other, as rows and a mask."""
    states = compact.new_zeros(len(lengths), max(lengths), compact.shape[1])
    mask = torch.zeros(states.shape[:2], dtype=torch.bool)
    for row, part in enumerate(compact.split(lengths)):
        states[row, : len(part)], mask[row, : len(part)] = part, True
    return states, mask


def published_sample(
    logits: Tensor, temperature: float, rngs: Sequence[torch.Generator], top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """Sampling in the published order of draws: all rows from one generator, `torch.multinomial` with replacement.

    Of two values of a bit, the one whose probability is at most 1 - top_p is left out.
    """
    ascending, order = (logits / temperature).sort(dim=-1)
    outside = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    outside[..., -1] = False
    kept = ascending.masked_fill(outside, float("-inf"))
    probabilities = torch.zeros_like(kept).scatter(-1, order, kept.softmax(-1))
    chosen = torch.multinomial(probabilities.flatten(0, -2), 1, replacement=True, generator=rngs[0])
    return chosen.view(logits.shape[:-1])


def published_flips(
    scales: Sequence[tuple[int, int]], num_images: int, num_bits: int, strength: float, seed: int
) -> tuple[Tensor, ...]:
    """Which bits the published self-correction turns over: numpy draws a share per scale, torch then every bit."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    flips = []
    for height, width in scales:
        share = np.random.randint(0, int(100 * strength) + 1) * 0.01
        flips.append(torch.rand(num_images, 1, height, width, num_bits)[:, 0] < share)
    return tuple(flips)


def call_of(case: Case) -> dict[str, float]:
    """Guidance and temperature of the calls of a case that only draws."""
    text = case.meta["calls"]["greedy"]
    found = {name: re.search(rf"{name}_list=\[([0-9.]+)\]", text) for name in ("cfg", "tau")}
    assert all(found.values()), text
    return {name: float(match.group(1)) for name, match in found.items() if match}


def check_picture(case: Case, codec: InfinityTokenizer, tokens: ImageTokens, name: str) -> None:
    """Recorded bytes, blue first, within one; some cases keep every second or fourth pixel only.

    Published code happens to hand its decoder channels-last data, for which torch's own group norm is imprecise on a
    CPU (`GroupNorm`): in a large picture the recorded bytes are off by three. So they are compared with what our
    decoder makes with that kernel, step by step; and what it really makes, with the same steps and an exact norm.
    """
    expected = case.output(name) if case.output(name).ndim == 4 else case.output(name)[None]
    plain = copy.deepcopy(codec).requires_grad_(False)
    with torch.enable_grad():  # no shortcuts
        exact = plain.decode(tokens)
        for module in plain.modules():
            if isinstance(module, nn.GroupNorm):
                module.__class__ = nn.GroupNorm
        picture = ((plain.decode(tokens) + 1) / 2 * 255).to(torch.uint8).permute(0, 2, 3, 1).flip(-1)
    step = picture.shape[1] // expected.shape[1]
    assert int((picture[:, ::step, ::step].int() - expected.int()).abs().max()) <= 1, name
    with torch.no_grad():
        assert_close(codec.decode(tokens), exact, atol=1e-3, rtol=0, msg=lambda text: f"{name}: {text}")


Draw = Callable[[ImageTokens | None], Iterator[ImageProgress]]  # draws on from what is given


def bits_differ(case: Case, grid: Tensor, name: str) -> Tensor:
    """Where the bits of a scale ("N h w d") are not the recorded ones, as "N hwd"."""
    return grid.flatten(1) != case.output(name).bool()


def check_bits(case: Case, progress: Iterable[ImageProgress], name: str) -> None:
    """Every recorded bit of every scale, exactly."""
    *_, last = progress
    for k, grid in enumerate(last.tokens.grids):
        assert not bits_differ(case, grid, f"{name}.{k}").any(), f"{name}, scale {k}"


def check_sampled_bits(case: Case, draw: Callable[[int], Iterable[ImageProgress]], name: str, call: str) -> int:
    """The same for a seed that is recorded, or else for one that people like to take; returns it."""
    for seed in case.seeds(call):
        for k, step in enumerate(draw(seed)):
            if bits_differ(case, step.tokens.grids[k], f"{name}.{k}").any():
                break
        else:
            return seed
    raise AssertionError(f"{name} is drawn with none of the seeds {list(case.seeds(call))}")


def check_rounded_bits(case: Case, draw: Draw, layout: ImageLayout, name: str, monkeypatch: Any) -> int:
    """Recorded bits where values are rounded to bfloat16 on purpose; returns how many are not ours.

    An error in the last digit of float32 becomes one of the third when it crosses an edge of bfloat16, so a bit whose
    two guided logits are closer than the stated tolerance belongs to nobody. Each scale follows the recorded ones.
    """
    differing, given = 0, None
    grids: tuple[Tensor, ...] = ()
    for k, (height, width) in enumerate(layout.scales):
        with monkeypatch.context() as patch:
            logits = recorded_guidance(patch)
            step = next(islice(draw(given), k, None))
        wrong = bits_differ(case, step.tokens.grids[k], f"{name}.{k}")
        margins = (logits[-1][..., 1] - logits[-1][..., 0]).abs().flatten(1)
        atol = case.rounded_tolerance["atol"]
        assert bool((margins[wrong] < atol).all()), f"{name}, scale {k}: margins of {margins[wrong].tolist()}"
        differing += int(wrong.sum())
        grids += (case.output(f"{name}.{k}").bool().reshape(len(wrong), height, width, -1),)
        given = ImageTokens(layout, grids)
    return differing


def recorded_guidance(monkeypatch: Any) -> list[Tensor]:
    """Will hold what guidance makes of the two branches, call by call."""
    found: list[Tensor] = []

    def recording(states: Tensor, *arguments: Any) -> Tensor:
        found.append(guide(states, *arguments))
        return found[-1]

    monkeypatch.setattr(bitwise, "guide", recording)
    return found


@dataclass
class GivenInputs:
    """A codec that hands out the inputs that a case recorded instead of computing them."""

    inputs: Tensor  # "N L-1 d"
    layout: ImageLayout

    @property
    def code_dim(self) -> int:
        return self.inputs.shape[-1]

    @property
    def space(self) -> Bits:
        return Bits(self.code_dim)

    def next_input(self, tokens: ImageTokens, k: int) -> Tensor:
        return self.scale_inputs(tokens)[k - 1]

    def scale_inputs(self, tokens: ImageTokens) -> tuple[Tensor, ...]:
        sizes = [h * w for h, w in self.layout.scales[1:]]
        parts = zip(self.inputs.split(sizes, dim=1), self.layout.scales[1:], strict=True)
        return tuple(part.reshape(part.shape[0], h, w, -1) for part, (h, w) in parts)

    def residual(self, latents: Tensor, layout: ImageLayout, grids: tuple[Tensor, ...]) -> Tensor:
        raise AssertionError("published generators repeat no source")
