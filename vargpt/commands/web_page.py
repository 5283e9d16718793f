"""`vargpt ui`: the chat page, for a browser on this machine or others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vargpt.commands import opening
from vargpt.commands.options import (
    AdapterOption,
    CompileOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    OffloadOption,
    QuantizeOption,
)


def ui(
    host: Annotated[str, typer.Option(help="0.0.0.0 lets others in; see --users.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="1 to 65535.")] = 8000,
    model: ModelOption = None,
    headless: Annotated[bool, typer.Option("--headless", help="Open no browser.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder of history, pictures and votes.")] = None,
    database: Annotated[str | None, typer.Option(help="PostgreSQL address of the history.")] = None,
    users: Annotated[Path | None, typer.Option(help="Who may log in: python -m chat_ui.access.users.")] = None,
    api: Annotated[bool, typer.Option("--api", help="Answer OpenAI's clients too; keys: VARGPT_API_KEYS.")] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    offload: OffloadOption = False,
    adapter: AdapterOption = None,
    compiled: CompileOption = False,
) -> None:
    """Open the chat page in a browser."""
    try:
        from chat_ui.run import run
    except ImportError as error:
        raise ImportError(f"the chat page is not installed ({error}): pip install 'vargpt[ui]'") from error
    path = None
    if model is not None:  # a mistake shows here, not in the first visitor's browser
        from vargpt.published.families import resolve_model

        path = str(resolve_model(model).resolve())
    options = opening.loading(device, dtype, quantize, offload, adapter, compiled)
    kept: dict[str, Any] = {"data": data, "database": database, "users": users, "with_api": api}
    run(host=host, port=port, headless=headless, model=path, options=options, **kept)
