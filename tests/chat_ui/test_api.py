"""The API beside the page: requests reach the right one of the two, and both share one model."""

from __future__ import annotations

import asyncio
import base64
import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from starlette.types import ASGIApp

from chat_ui import api
from tests.chat_ui.visitor import clean_environment, free_port, wait_for_health

START = """
import sys; from pathlib import Path; from chat_ui.run import run
run(port=int(sys.argv[1]), headless=True, model=sys.argv[2], data=Path(sys.argv[3]), with_api=True)
"""


def app_that_notes(name: str, met: list[tuple[str, str]]) -> ASGIApp:
    async def app(scope, receive, send) -> None:
        met.append((name, scope.get("path", scope["type"])))

    return app


def test_requests_reach_the_one_they_are_meant_for() -> None:
    met: list[tuple[str, str]] = []
    both = api.Beside(app_that_notes("page", met), app_that_notes("api", met))
    sent = [("http", path) for path in ("/", "/health", "/v1/models", "/v1", "/metrics", "/project/thread")]
    for kind, path in [*sent, ("websocket", "/v1/ws"), ("lifespan", None)]:
        scope = {"type": kind} | ({} if path is None else {"path": path})
        asyncio.run(both(scope, None, None))
    assert [path for name, path in met if name == "api"] == ["/v1/models", "/metrics"]
    assert len(met) == 8


def test_without_the_switch_there_is_no_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(api.SWITCH, raising=False)
    api.install(None, None, None, {})  # touches none of them


@pytest.mark.slow
def test_openais_client_talks_to_the_page_with_its_key(tmp_path: Path) -> None:
    import openai

    from vargpt.loading.models import save
    from vargpt.testing import tiny_model, tiny_processor

    save(tiny_model(), tiny_processor(), tmp_path / "model")
    port, log = free_port(), tmp_path / "log.txt"
    command = [sys.executable, "-c", START, str(port), str(tmp_path / "model"), str(tmp_path / "data")]
    with open(log, "w") as written:
        environment = clean_environment(tmp_path) | {"VARGPT_API_KEYS": "one"}
        page = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=written, stderr=written)
    try:
        wait_for_health(f"http://127.0.0.1:{port}/health", page, log)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="one", max_retries=0)
        assert [model.id for model in client.models.list()] == ["model"]
        drawn = client.images.generate(prompt="a fox", n=2, response_format="b64_json").data
        assert len(drawn) == 2 and Image.open(io.BytesIO(base64.b64decode(drawn[0].b64_json))).format == "PNG"
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="two").models.list()
    finally:
        page.terminate()
        page.wait(timeout=30)
