"""Opens what a command needs: a model with the settings that were typed, and a console to write on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from vargpt.chat.engine import ChatEngine
    from vargpt.chat.painter import Order
    from vargpt.types import Artist


def loading(
    device: str,
    dtype: str,
    quantize: str | None,
    offload: bool,
    adapters: list[Path] | None = None,
    compiled: bool = False,
) -> dict[str, Any]:
    """Keyword arguments of `ChatEngine.load`, checked before the model is read. Whole weights on a CPU are packed."""
    import torch

    from vargpt.loading.adapters import read_card
    from vargpt.loading.devices import resolve_device, resolve_dtype
    from vargpt.loading.quantization import check_quantization

    where = resolve_device(device)
    exact = resolve_dtype(dtype, where) == torch.float32 and where.type == "cpu"
    check_quantization(quantize, offload)
    folders = [str(folder.resolve()) for folder in adapters or ()]
    for folder in folders:
        read_card(Path(folder))
    partly = bool(quantize or offload or folders)
    if compiled and partly:
        raise ValueError("--compile takes whole weights: leave out --quantize, --offload and --adapter")
    return {
        "device": device, "dtype": dtype, "quantization": quantize, "offload": offload, "adapters": folders,
        "packed": exact and not partly and not compiled,
        **({"compiled": True} if compiled else {}),
    }  # fmt: skip


def console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def open_engine(model: str | None, options: dict[str, Any]) -> ChatEngine:
    from vargpt.chat.engine import ChatEngine

    quiet_transformers()
    return ChatEngine.load(model, **options)


def open_artist(order: Order, options: dict[str, Any]) -> Artist:
    """The model that an order names: a painter for a model that only draws, else a chat engine."""
    quiet_transformers()
    return open_engine(order.model, options) if order.published is None else order.painter(**options)


def quiet_transformers() -> None:
    """Keeps the log lines and progress bars of transformers out of the terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
