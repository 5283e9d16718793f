"""A server in a process of its own on this machine: started, waited for, asked about its memory, ended.

In: the arguments of `vargpt serve`. Out: an address that answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Child:
    """A running server: its address, its process, and the file with what it said."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """Ends it at once, as a power cut would."""
        self.process.kill()
        self.process.wait(timeout=60)

    def stop(self, seconds: float = 60) -> int:
        """Asks it to end, and makes sure; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode


@contextlib.contextmanager
def serving(
    arguments: Sequence[str] = (), seconds: float = 300, environment: Mapping[str, str] | None = None, port: int = 0
) -> Iterator[Child]:
    """`vargpt serve` with these arguments on a free port (or the one given); ended when the block is left.

    Raises:
        RuntimeError: it ended, or did not answer in time; the message holds the end of what it said.
    """
    port = port or free_port()
    command = [
        sys.executable,
        "-m",
        "vargpt",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        *arguments,
    ]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                command, stdout=said, stderr=subprocess.STDOUT, env=os.environ | dict(environment or {})
            )
        child = Child(f"http://127.0.0.1:{port}", process, log)
        try:
            wait_until_ready(child, seconds)
            yield child
        finally:
            child.stop()


def wait_until_ready(child: Child, seconds: float) -> None:
    """Returns when `/health` says that the model is there.

    Raises:
        RuntimeError: the process ended, or the time is over.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child.process.poll() is not None:
            raise RuntimeError(f"the server ended with {child.process.returncode}:\n{last_lines(child.log)}")
        with contextlib.suppress(OSError, ValueError):
            with urllib.request.urlopen(f"{child.url}/health", timeout=10) as response:
                if json.load(response).get("status") == "ready":
                    return
        time.sleep(0.2)
    raise RuntimeError(f"the server did not answer within {seconds:g} s:\n{last_lines(child.log)}")


def free_port() -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def last_lines(log: Path, count: int = 20) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def resident_bytes(pid: int) -> int | None:
    """Main memory that a process of this machine holds; None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), None)
