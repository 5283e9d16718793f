"""What every test may rely on: one thread, fixed seeds, a home of its own, and no network."""

from __future__ import annotations

import functools
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Read when the libraries are imported, so before any test module is; subprocesses of tests inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CHAINLIT_APP_ROOT", tempfile.mkdtemp(prefix="vargpt-tests-"))

LOOPBACK = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "::", ""}


CASES_ELSEWHERE = "cases_elsewhere"  # an option, so that the workers of a distributed run are told, too


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """`pytest tests/parity --fixtures DIR` runs the parity tests on the cases below DIR.

    pytest has a flag of that name (it lists fixtures and ends), so a directory of cases after it is what tells the two
    apart, before pytest has looked at its flag.
    """
    if not config.option.showfixtures:
        return
    for argument in list(config.args):
        path = Path(argument)
        if path.is_dir() and not any(path.rglob("test_*.py")) and any(path.rglob("*.safetensors")):
            config.args.remove(argument)
            setattr(config.option, CASES_ELSEWHERE, str(path.resolve()))
            config.option.showfixtures = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plain-cpu", action="store_true", help="as on a CPU without packed kernels and quick bfloat16")


def pytest_configure(config: pytest.Config) -> None:
    """Turns the hub off, unless the run was asked for the tests that need it."""
    if not wants_hub(config):
        os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    if config.getoption("plain_cpu"):
        pretend_plain_cpu(config)


def pretend_plain_cpu(config: pytest.Config) -> None:
    """`vargpt.cpu` says no in this process, before a test module can ask; subprocesses know nothing of it."""
    from vargpt import cpu

    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setattr(cpu, "has_packed_kernels", functools.wraps(cpu.has_packed_kernels)(lambda dtype: False))
    patch.setattr(cpu, "gain_over_float32", functools.wraps(cpu.gain_over_float32)(lambda dtype: 0.02))


def wants_hub(config: pytest.Config) -> bool:
    expression = config.getoption("markexpr", "")
    return "hub" in expression and "not hub" not in expression


def is_local(address: object) -> bool:
    """Whether a socket address stays on this machine: a Unix path, or (host, port, ...) with a loopback host."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    return host in LOOPBACK or host.startswith("127.")


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that reaches for another machine fails at once and says where it was going."""
    if request.node.get_closest_marker("hub"):
        yield
        return
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse(address: object) -> None:
        raise OSError(f"tests run offline, but this one tried to reach {address}; mark it with pytest.mark.hub")

    def guarded_connect(self: socket.socket, address: object) -> None:
        return connect(self, address) if is_local(address) else refuse(address)

    def guarded_connect_ex(self: socket.socket, address: object) -> int:
        return connect_ex(self, address) if is_local(address) else refuse(address)

    def guarded_getaddrinfo(host: str | bytes | None, *args: object, **kwargs: object) -> list:
        name = host.decode() if isinstance(host, bytes) else (host or "")
        return getaddrinfo(host, *args, **kwargs) if is_local((name,)) else refuse(name)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
    yield


@pytest.fixture(autouse=True)
def same_dice() -> None:
    """Every test starts from the same seeds, whatever ran before it on this worker."""
    import numpy
    import torch

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors are faster on one thread, and parallel workers then do not fight for cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is home, cache and working directory for one test."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "USERPROFILE", "CHAINLIT_APP_ROOT"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path
