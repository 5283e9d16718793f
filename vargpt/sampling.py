"""How a token is chosen from logits: guidance, temperature, top-k, top-p, and one random stream per row.

Pure functions on frozen values (`TextSampling`, `ImageSampling` in types.py). In: logits. Out: indices.

Shape legend: G guidance branches, N rows, V choices.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vargpt.types import GuidanceSchedule, ImageSampling, TextSampling

MAX_SEED = 2**31 - 1


def at_scale(value: float | Sequence[float], k: int) -> float:
    """The value of a per-scale setting at scale k; a shorter sequence repeats its last entry."""
    if isinstance(value, int | float):
        return value
    return value[min(k, len(value) - 1)]


def check_image_sampling(sampling: ImageSampling) -> None:
    """Raises ValueError for settings that no scale could use."""
    for name in ("guidance_scale", "image_guidance_scale", "temperature", "top_k", "top_p"):
        value = getattr(sampling, name)
        if value is None:
            continue
        values = [value] if isinstance(value, int | float) else list(value)
        if not values:
            raise ValueError(f"{name} is an empty list; give a number, or one number per scale")
        if name == "top_p" and not all(0 < item <= 1 for item in values):
            raise ValueError(f"top_p must lie in (0, 1], got {value}")
        if any(not 0 <= item < float("inf") for item in values):
            raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    if sampling.guidance_schedule not in get_args(GuidanceSchedule):
        raise ValueError(
            f"guidance_schedule is one of {list(get_args(GuidanceSchedule))}, got {sampling.guidance_schedule!r}"
        )
    first, last = sampling.guidance_interval
    if not 0 <= first <= last <= 1:
        raise ValueError(f"guidance_interval holds two shares of the steps, 0 <= a <= b <= 1, got {first} and {last}")


def settings_of(sampling: ImageSampling) -> dict[str, Any]:
    """What is written beside a picture of how it was drawn, as JSON has it: what differs from nothing being asked.

    Guidance, temperature, top-k and top-p are always there. Inverse: `ImageSampling(**settings)`.
    """
    default, always = ImageSampling(), ("guidance_scale", "temperature", "top_k", "top_p")
    chosen = {
        name: value for name, value in asdict(sampling).items() if name in always or value != getattr(default, name)
    }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}


def guidance_at(sampling: ImageSampling, step: int, num_steps: int) -> tuple[float, float]:
    """(guidance scale, image guidance scale) at step 0 .. num_steps - 1, by schedule and interval; 1 guides nowhere."""
    progress = step / max(num_steps - 1, 1)
    first, last = sampling.guidance_interval
    scale = at_scale(sampling.guidance_scale, step)
    image_scale = 1.0 if sampling.image_guidance_scale is None else at_scale(sampling.image_guidance_scale, step)
    if not first <= progress <= last:
        return 1.0, 1.0
    if sampling.guidance_schedule == "constant":
        return scale, image_scale
    share = progress if sampling.guidance_schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return 1 + (scale - 1) * share, 1 + (image_scale - 1) * share


def changed_sampling(
    default: ImageSampling, guidance: float | None, temperature: float | None, top_p: float | None
) -> ImageSampling:
    """A model's own settings, with what somebody gave instead.

    Raises:
        ValueError: a setting is out of range.
    """
    given: dict[str, Any] = {"guidance_scale": guidance, "temperature": temperature, "top_p": top_p}
    sampling = replace(default, **{name: value for name, value in given.items() if value is not None})
    check_image_sampling(sampling)
    return sampling


def check_text_sampling(sampling: TextSampling) -> None:
    """Raises ValueError for settings out of range."""
    if not 0 <= sampling.temperature < float("inf"):
        raise ValueError(f"temperature must be a finite number >= 0, got {sampling.temperature}")
    if not 0 < sampling.top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {sampling.top_p}")
    if sampling.top_k < 0 or sampling.max_new_tokens < 1:
        raise ValueError("top_k must be >= 0 and max_new_tokens >= 1")


def guide(logits_GNV: Float[Tensor, "G *rest"], scale: float, image_scale: float = 1.0) -> Float[Tensor, "*rest"]:
    """Classifier-free guidance over the branches [full], [full, null] or [full, image only, null].

    Two branches: null + s (full - null). Three (InstructPix2Pix, arXiv 2211.09800, eq. 3):
    null + s_image (image only - null) + s (full - image only). Scale 1 is the full branch itself.
    """
    if logits_GNV.shape[0] == 1:
        return logits_GNV[0]
    if logits_GNV.shape[0] == 2:
        full, null = logits_GNV
        return null + scale * (full - null)
    full, image_only, null = logits_GNV
    return null + image_scale * (image_only - null) + scale * (full - image_only)


def filter_logits(logits: Float[Tensor, "*rest V"], top_k: int = 0, top_p: float = 1.0) -> Float[Tensor, "*rest V"]:
    """Sets to -inf what top-k (0 = all) or nucleus sampling excludes; the most likely choice always stays."""
    if 0 < top_k < logits.shape[-1]:
        threshold = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, float("-inf"))
    if top_p < 1.0:
        sorted_logits, order = logits.sort(dim=-1, descending=True)
        probabilities = sorted_logits.softmax(-1)
        outside = probabilities.cumsum(-1) - probabilities >= top_p
        logits = logits.masked_fill(outside.scatter(-1, order, outside), float("-inf"))
    return logits


def sample(
    logits: Float[Tensor, "N *rest V"],
    temperature: float,
    rngs: Sequence[torch.Generator] | None,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Int[Tensor, "N *rest"]:
    """Draws one choice per position by inverting the cumulative distribution with row n's own generator.

    `temperature=0` is greedy and needs no generators. One uniform number per position is drawn from `rngs[n]`, whatever
    the other rows are, so a row's choices do not depend on its batch mates.
    """
    if temperature == 0:
        return logits.argmax(-1)
    if rngs is None or len(rngs) != logits.shape[0]:
        raise ValueError(f"sampling {logits.shape[0]} rows needs as many generators, got {rngs and len(rngs)}")
    probabilities = filter_logits(logits.float() / temperature, top_k, top_p).softmax(-1)
    uniform = torch.stack([torch.rand(logits.shape[1:-1], generator=rng, device=rng.device) for rng in rngs])
    cumulative = probabilities.cumsum(-1)
    threshold = uniform.to(logits.device)[..., None] * cumulative[..., -1:]
    return (cumulative <= threshold).sum(-1).clamp(max=logits.shape[-1] - 1)


def seeded(seeds: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator per row; equal seeds give equal streams."""
    return [torch.Generator(device).manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF) for seed in seeds]


def new_seed() -> int:
    """A seed that nobody chose: 0 .. MAX_SEED."""
    return secrets.randbelow(MAX_SEED + 1)


def parse_seed(text: str) -> int:
    """A seed as typed: a whole number from 0 to MAX_SEED.

    Raises:
        ValueError: it is none.
    """
    if not text.isascii() or not text.isdigit() or int(text) > MAX_SEED:
        raise ValueError(f"a seed is a whole number from 0 to {MAX_SEED}, got {text!r}")
    return int(text)
