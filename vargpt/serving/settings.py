"""What a server is told before it starts: where it listens, which model it has, who may ask for how much.

The two hooks are plain callables, so that checks and signatures are plugged in without this room knowing them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vargpt.serving.trust.safety import SafetyCheck

Sign = Callable[[bytes, dict[str, Any]], bytes]  # a PNG file and how it was made -> the PNG file that is sent
DEFAULT_MODEL = "nano"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one request may ask for. What is beyond is refused with a sentence that names the limit."""

    body_bytes: int = 32 * 2**20
    pixels: int = 25_000_000  # of each picture that is sent
    images: int = 16  # pictures that are sent
    n: int = 10  # choices, or pictures, that are asked for
    tokens: int = 4096  # of text in one reply
    waiting: int = 64  # requests in the queue
    seconds: float = 300.0  # from the question to the last word, the time in the queue included

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"the limit {name} must be positive, got {value}")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Everything about one server.

    Attributes:
        host: "127.0.0.1" is this machine only, "0.0.0.0" everyone who can reach it.
        port: 0 takes any that is free.
        model: model folder or hub id; None is the shipped nano.
        name: what clients call the model; None is the folder's name, or the hub id.
        load: keyword arguments of `ChatEngine.load`. Its adapters are off unless a request names them.
        api_keys: one of them must come with every request below /v1; none = everyone may ask.
        url_hosts: hosts from which pictures given as http(s) addresses are fetched; none = only data URLs are taken.
        origins: web origins whose pages may call the server from a browser.
        keep_seconds: how long drawn pictures are remembered, for their addresses and for exact changes.
        keep_bytes: how much memory they may take together.
        safety: judges every prompt and every picture; None = nothing is judged.
        sign: has the last word on every picture file; None = it carries prompt, seed and settings as PNG text only.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    model: str | None = None
    name: str | None = None
    load: Mapping[str, Any] = field(default_factory=dict)
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    limits: Limits = Limits()
    url_hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    keep_seconds: float = 3600.0
    keep_bytes: int = 256 * 2**20
    safety: SafetyCheck | None = None
    sign: Sign | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"a port lies between 0 and 65535, got {self.port}")
        if any(not key.strip() for key in self.api_keys):
            raise ValueError("an API key is empty; leave keys away altogether to let everyone in")

    @property
    def model_id(self) -> str:
        """What clients call the model."""
        if self.name is not None:
            return self.name
        if self.model is None:
            return DEFAULT_MODEL
        return Path(self.model).resolve().name if Path(self.model).exists() else self.model

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded beside the model.

        Raises:
            FileNotFoundError: one of the folders holds no adapter.
        """
        from vargpt.loading.adapters import read_card  # not for those who only ask the command line for help

        return tuple(read_card(Path(folder)).name for folder in self.load.get("adapters", ()))
