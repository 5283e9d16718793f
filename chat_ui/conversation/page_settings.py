"""What the settings panel offers, as data; what the panel sends, checked; and the request that follows from it.

In: the panel's values by id, numbers as text or numbers. Out: `PageSettings`, or one clear sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vargpt.sampling import MAX_SEED
from vargpt.types import ChatRequest, ImageSampling, Message, Route, TextSampling


@dataclass(frozen=True)
class Slider:
    """A number of the panel with its range, both ends included."""

    id: str
    label: str
    tooltip: str
    low: float
    high: float
    step: float


SEED_LABEL = "Seed"
SEED_TOOLTIP = "The same seed, words and settings draw the same picture again. Empty: a new seed each time."
SLIDERS = (
    Slider("guidance", "Guidance", "How strictly a picture follows the words; 1 = no guidance.", 1.0, 8.0, 0.25),
    Slider("temperature", "Temperature of pictures", "How daring the drawing is; 0 = the likeliest.", 0.0, 1.5, 0.05),
    Slider("top_p", "Top-p of pictures", "Leaves out the unlikely; 1 = leaves out nothing.", 0.05, 1.0, 0.05),
    Slider("text_temperature", "Temperature of words", "How daring the words are; 0 = the likeliest.", 0.0, 1.5, 0.05),
    Slider("pictures", "Pictures per reply", "Drawn side by side, each with a seed of its own.", 1, 4, 1),
    Slider("faithfulness", "Faithfulness of changes", "How closely a changed picture keeps to the one it is made from, "
           "beyond what the model does by itself.", 0.0, 1.0, 0.05),
)  # fmt: skip


ADAPTER_LABEL = "Adapter"
ADAPTER_TOOLTIP = "What was learnt from pictures of your own: switched on, or off."
ADAPTER_OFF, ADAPTER_ALL = "off", "all together"


def adapter_choices(names: Sequence[str]) -> list[str]:
    """What the panel offers for these adapters, the one it begins with first."""
    return [*((ADAPTER_ALL,) if len(names) > 1 else ()), *names, ADAPTER_OFF]


SIZE_LABEL = "Size"
SIZE_TOOLTIP = "In pixels, width first. By itself a change keeps the shape of the picture that is changed."
SIZE_AUTO = "by itself"


def sizes_of(config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(height, width) of every size that a model draws, from its config.json; the default first."""
    names = sorted(config.get("scale_schedules") or {}, key=lambda name: name != config.get("default_size"))
    return [(int(height), int(width)) for height, _, width in (name.partition("x") for name in names)]


def size_choices(sizes: Sequence[tuple[int, int]]) -> dict[str, tuple[int, int] | None]:
    """What the panel offers for these sizes: "by itself", then "96 × 64 · wide" and so on; nothing to choose: empty."""
    if len(sizes) < 2:
        return {}
    choices: dict[str, tuple[int, int] | None] = {SIZE_AUTO: None}
    for height, width in sizes:
        shape = "square" if height == width else "wide" if width > height else "tall"
        choices[f"{width} × {height} · {shape}"] = (height, width)
    return choices


def plain(value: float | tuple[float, ...]) -> float:
    """The value of the first scale, where a default differs by scale."""
    return float(value[0] if isinstance(value, tuple) else value)


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """What one visitor has set. `seed=None` takes a new seed for every turn."""

    seed: int | None = None
    guidance: float = 2.0
    temperature: float = 0.5
    top_p: float = 1.0
    text_temperature: float = TextSampling().temperature
    pictures: int = 1
    faithfulness: float = 0.0
    size: tuple[int, int] | None = None  # (height, width)
    adapter: tuple[str, ...] | None = None  # None = all that were loaded

    @classmethod
    def of(cls, sampling: ImageSampling) -> PageSettings:
        """What a visitor begins with, for a model that is drawn with so by default."""
        return cls(
            guidance=plain(sampling.guidance_scale),
            temperature=plain(sampling.temperature),
            top_p=plain(sampling.top_p),
        )

    def changed(self, values: Mapping[str, Any]) -> PageSettings:
        """Settings from what the panel sends; what is missing stays as it is.

        Raises:
            ValueError: a value is no number or out of range; the message names the setting.
        """
        numbers: dict[str, Any] = {
            slider.id: number(values[slider.id], slider) for slider in SLIDERS if slider.id in values
        }
        if "pictures" in numbers:
            numbers["pictures"] = round(numbers["pictures"])
        adapter = adapter_from(values["adapter"]) if "adapter" in values else self.adapter
        size = size_from(values["size"]) if "size" in values else self.size
        return replace(self, seed=seed_from(values.get("seed")), adapter=adapter, size=size, **numbers)

    def changed_to(self, **fields: Any) -> PageSettings:
        """The same with some fields changed, which nobody typed and so need no check."""
        return replace(self, **fields)

    def request(self, messages: tuple[Message, ...], seed: int, route: Route = "auto") -> ChatRequest:
        """The next turn of a conversation that ends with a user message."""
        return ChatRequest(
            messages=messages,
            image_sampling=ImageSampling(guidance_scale=self.guidance, temperature=self.temperature, top_p=self.top_p),
            text_sampling=TextSampling(temperature=self.text_temperature),
            n=self.pictures,
            seed=seed,
            route=route,
            size=self.size,
            faithfulness=self.faithfulness,
            adapter=self.adapter,
        )


def adapter_from(value: object) -> tuple[str, ...] | None:
    """The adapters of one of `adapter_choices`, as a `ChatRequest` has them."""
    if value == ADAPTER_ALL:
        return None
    return () if value == ADAPTER_OFF else (str(value),)


def size_from(value: object) -> tuple[int, int] | None:
    """(height, width) of one of `size_choices`, as a `ChatRequest` has it.

    Raises:
        ValueError: it is none of them.
    """
    if value in (None, SIZE_AUTO):
        return None
    found = re.match(r"(\d+) × (\d+)", str(value))
    if not found:
        raise ValueError(f"The size must be one of the panel's, not “{value}”.")
    return int(found[2]), int(found[1])


def seed_from(value: object) -> int | None:
    """A seed from what was typed; empty, None and negative numbers mean a new one each time."""
    text = "" if value is None else str(value).strip()
    if not text:
        return None
    try:
        seed = float(text)
    except ValueError:
        raise ValueError(f"The seed must be a whole number or empty, not “{text}”.") from None
    if not math.isfinite(seed) or seed != int(seed) or seed > MAX_SEED:
        raise ValueError(f"The seed must be a whole number up to {MAX_SEED:,} or empty, not “{text}”.")
    return int(seed) if seed >= 0 else None


def number(value: object, slider: Slider) -> float:
    """The value of a slider, within its range.

    Raises:
        ValueError: no number, or outside the range.
    """
    try:
        found = float(str(value))
    except ValueError:
        raise ValueError(f"{slider.label} must be a number, not “{value}”.") from None
    if not slider.low <= found <= slider.high:
        raise ValueError(f"{slider.label} must lie between {slider.low:g} and {slider.high:g}, not {found:g}.")
    return found
