"""The settings panel of the page, from `settings.py`'s data to Chainlit's widgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import chainlit as cl
from chainlit.input_widget import InputWidget, Select, Slider, TextInput

from chat_ui.conversation.page_settings import (
    ADAPTER_LABEL,
    ADAPTER_TOOLTIP,
    SEED_LABEL,
    SEED_TOOLTIP,
    SIZE_AUTO,
    SIZE_LABEL,
    SIZE_TOOLTIP,
    SLIDERS,
    PageSettings,
    adapter_choices,
    size_choices,
)
from chat_ui.conversation.profiles import shown_adapter


async def show_panel(
    settings: PageSettings, adapters: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Sends the panel with these settings, in place of the one that is there; what it then holds, by id."""
    return await cl.ChatSettings(widgets(settings, adapters, sizes)).send()


def widgets(settings: PageSettings, adapters: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[InputWidget]:
    """One widget per setting; a choice of one is none."""
    # Not NumberInput: it shows an empty value as 0, which is a seed like any other.
    seed = "" if settings.seed is None else str(settings.seed)
    shown: list[InputWidget] = [
        TextInput(id="seed", label=SEED_LABEL, tooltip=SEED_TOOLTIP, initial=seed, placeholder="new each time")
    ]
    if adapters:
        names, on = adapter_choices(adapters), shown_adapter(settings.adapter, adapters)
        shown.append(Select(id="adapter", label=ADAPTER_LABEL, tooltip=ADAPTER_TOOLTIP, values=names, initial_value=on))
    if choices := size_choices(sizes):
        now = next((name for name, size in choices.items() if size == settings.size), SIZE_AUTO)
        shown.append(Select(id="size", label=SIZE_LABEL, tooltip=SIZE_TOOLTIP, values=[*choices], initial_value=now))
    for slider in SLIDERS:
        start = getattr(settings, slider.id)
        shown.append(
            Slider(
                id=slider.id, label=slider.label, tooltip=slider.tooltip, initial=start,
                min=slider.low, max=slider.high, step=slider.step,
            )
        )  # fmt: skip
    return shown
