"""The API beside the page: the same process, the same scheduler, so that both doors share one model and one queue.

In: VARGPT_API, set by `vargpt ui --api`. Keys are asked for where VARGPT_API_KEYS names some.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from vargpt.chat.scheduler import Scheduler

SWITCH = "VARGPT_API"
BELOW, EXACTLY = "/v1/", ("/metrics", "/openapi.json")


class Beside:
    """Hands what is meant for the API to it, and everything else to the page.

    Args:
        app: the page.
        api: the server's app.
    """

    def __init__(self, app: ASGIApp, api: ASGIApp) -> None:
        self.app, self.api = app, api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_meant = scope["type"] == "http" and (path.startswith(BELOW) or path in EXACTLY)
        await (self.api if is_meant else self.app)(scope, receive, send)


def install(app: Starlette, scheduler: Scheduler, model: Path | None, load: Mapping[str, Any]) -> None:
    """Puts the API in front of the page's application, if it is wanted; to be called once, before that serves.

    Args:
        app: the page's application.
        scheduler: the page's own; the page closes it.
        model: the folder that the scheduler opens; None is the shipped nano.
        load: how it opens it, for `ChatEngine.load`.
    """
    if not os.environ.get(SWITCH):
        return
    from vargpt.commands.serve import api_keys
    from vargpt.serving.server import make_app
    from vargpt.serving.settings import ServeSettings

    settings = ServeSettings(model=None if model is None else str(model), load=load, api_keys=api_keys(None))
    app.add_middleware(Beside, api=make_app(settings, scheduler))


def check() -> None:
    """Raises ImportError if the API's packages are missing."""
    try:
        import vargpt.serving.server  # noqa: F401
    except ImportError as error:
        raise ImportError(f"--api needs more packages ({error}): pip install 'vargpt[serve]'") from error
