"""`vargpt serve` from the outside: its mistakes in one line, and a process that serves and stops."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from tests.serving.running import PATIENCE, eventually
from vargpt.commands.cli import app
from vargpt.commands.serve import KEYS_VARIABLE, api_keys, listen
from vargpt.serving.settings import Limits, ServeSettings


def test_a_port_that_is_taken_is_said_with_what_to_do() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}.*--port {port + 1}"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "no/such/folder/here"], "no/such/folder/here"),
        (["--adapter", "nowhere"], "no adapter"),
        (["--port", "99999"], "between 0 and 65535"),
        (["--max-n", "0"], "limit n must be positive"),
    ],
)
def test_mistakes_are_one_line(options: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["serve", *options])
    assert result.exit_code == 2 and words in result.output and len(result.output.splitlines()) == 1


def test_keys_come_from_the_command_line_or_else_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, "one, two,")
    assert api_keys(None) == ("one", "two") and api_keys(["three"]) == ("three",)
    monkeypatch.delenv(KEYS_VARIABLE)
    assert api_keys(None) == ()


def test_settings_that_cannot_be_are_refused_and_keys_are_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="API key is empty"):
        ServeSettings(api_keys=(" ",))
    with pytest.raises(ValueError, match="seconds must be positive"):
        Limits(seconds=0)
    assert "secret" not in repr(ServeSettings(api_keys=("secret",)))
    assert ServeSettings().model_id == "nano" and ServeSettings(model=str(tmp_path)).model_id == tmp_path.name
    assert ServeSettings(model="somebody/something").model_id == "somebody/something"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_the_command_serves_until_it_is_interrupted() -> None:
    environment = os.environ | {KEYS_VARIABLE: "secret"}
    command = [sys.executable, "-m", "vargpt", "serve", "--port", "0", "--name", "small"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = process.stdout.readline()
            url = re.fullmatch(r"small answers at (http://127\.0\.0\.1:\d+)/v1\n", line)[1]
            eventually(lambda: httpx2.get(f"{url}/health", timeout=PATIENCE).json()["status"] == "ready")
            assert httpx2.get(f"{url}/v1/models", timeout=PATIENCE).status_code == 401
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
        finally:
            process.kill()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=5):
        pass
