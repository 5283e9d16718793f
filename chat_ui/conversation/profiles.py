"""What the page offers to talk to: the model with its adapters, each alone, and the plain model.

In: names. Out: `Profile`s, and what /lora means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chat_ui.conversation.page_settings import ADAPTER_ALL, ADAPTER_OFF, adapter_choices, adapter_from


@dataclass(frozen=True)
class Profile:
    """One entry of the page's menu; `adapter` as a `ChatRequest` has it."""

    name: str
    adapter: tuple[str, ...] | None
    description: str


def profiles(model: str, adapters: Sequence[str], welcome: str) -> list[Profile]:
    """The menu, what the page begins with first: everything that was loaded."""
    if not adapters:
        return [Profile(model, None, welcome)]
    together = f"{model} + {' + '.join(adapters)}"
    chosen = [Profile(together, None, f"{welcome}\n\nAll adapters are on: {', '.join(adapters)}.")]
    if len(adapters) == 1:
        chosen = []
    chosen += [
        Profile(f"{model} + {name}", (name,), f"{welcome}\n\nThe adapter **{name}** is on: {model} and what it learnt.")
        for name in adapters
    ]
    return [*chosen, Profile(model, (), f"{welcome}\n\nWithout adapters.")]


def profile_named(found: Sequence[Profile], name: str | None) -> Profile:
    """The profile of this name; the first if there is none, as when the page was restarted with other adapters."""
    return next((profile for profile in found if profile.name == name), found[0])


def profile_of(found: Sequence[Profile], adapter: tuple[str, ...] | None) -> Profile:
    """The profile that has these adapters; the first if there is none."""
    return next((profile for profile in found if profile.adapter == adapter), found[0])


def switched(words: str, adapters: Sequence[str]) -> tuple[str, ...] | None:
    """The adapters that "/lora words" switches on.

    Raises:
        ValueError: there are no adapters, or none of this name; the message lists them.
    """
    if not adapters:
        raise ValueError("No adapter is loaded: start the page with one, as in `vargpt ui --adapter FOLDER`.")
    choices = {choice.lower(): choice for choice in adapter_choices(adapters)} | {"all": ADAPTER_ALL}
    if words.lower() not in choices:
        offered = ", ".join(f"`/lora {choice}`" for choice in adapter_choices(adapters))
        raise ValueError(f"There is no adapter “{words}”: type {offered}.")
    return adapter_from(choices[words.lower()])


def shown_adapter(adapter: tuple[str, ...] | None, adapters: Sequence[str]) -> str:
    """The choice of the panel that stands for these adapters: the inverse of `adapter_from`."""
    if adapter is None:
        return ADAPTER_ALL if len(adapters) > 1 else next(iter(adapters), ADAPTER_OFF)
    return adapter[0] if adapter else ADAPTER_OFF


def adapter_line(adapter: tuple[str, ...] | None, adapters: Sequence[str]) -> str:
    """Which adapters are on and which there are, in one line."""
    on = ", ".join(adapters if adapter is None else adapter) or "none"
    offered = ", ".join(f"`/lora {choice}`" for choice in adapter_choices(adapters))
    return f"Adapters that are on in this conversation: **{on}**. To switch: {offered}."
