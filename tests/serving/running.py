"""Servers that really run: uvicorn in a thread on a port of its own, with a tiny engine that follows a script."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import uvicorn
from fastapi import FastAPI
from PIL import Image

from tests.chat.scripted import drawing_engine
from vargpt.chat.engine import ChatEngine
from vargpt.chat.scheduler import Scheduler, Ticket
from vargpt.commands.serve import listen
from vargpt.serving.server import make_app
from vargpt.serving.service import Service
from vargpt.serving.settings import ServeSettings
from vargpt.types import ChatRequest

PATIENCE = 300.0  # seconds; machines may be busy


class Watched(Scheduler):
    """A scheduler that keeps the tickets it gave out."""

    def __init__(self, *args: Any) -> None:
        self.tickets: list[Ticket] = []
        super().__init__(*args)

    def submit(self, *args: Any, **options: Any) -> Ticket:
        self.tickets.append(super().submit(*args, **options))
        return self.tickets[-1]


class Running:
    """One server and its clients."""

    def __init__(self, app: FastAPI, scheduler: Watched, port: int) -> None:
        self.service: Service = app.state.service
        self.scheduler, self.url = scheduler, f"http://127.0.0.1:{port}"

    @property
    def asked(self) -> ChatRequest:
        """What reached the model last."""
        return self.scheduler.tickets[-1].request

    def client(self, key: str = "any", **options: Any) -> openai.OpenAI:
        options = {"max_retries": 0, "timeout": PATIENCE} | options
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, **options)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return httpx2.get(f"{self.url}{path}", timeout=PATIENCE, **options)

    def post(self, path: str, **options: Any) -> httpx2.Response:
        return httpx2.post(f"{self.url}{path}", timeout=PATIENCE, **options)

    def metric(self, line: str) -> float:
        """The value of one line of /metrics, 0 where it is not there."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(text.split()[-1]) for text in lines if text.startswith(f"{line} "))


@contextmanager
def serving(
    settings: ServeSettings | None = None, load: Callable[[], ChatEngine] = drawing_engine, max_waiting: int = 64
) -> Iterator[Running]:
    """A server until the block is left; the model is loaded when it is first asked."""
    scheduler, listening = Watched(load, max_waiting), listen("127.0.0.1", 0)
    app = make_app(settings or ServeSettings(), scheduler)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield Running(app, scheduler, listening.getsockname()[1])
    finally:
        server.should_exit = True
        scheduler.close()
        thread.join(PATIENCE)


def eventually(condition: Callable[[], Any]) -> None:
    """Waits until it is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.01)


def picture_of(encoded: str) -> Image.Image:
    """A picture from base64 or a data URL."""
    return Image.open(io.BytesIO(base64.b64decode(encoded.split(",")[-1])))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def data_url(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
