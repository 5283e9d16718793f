"""What is plugged into a server by name: a safety check, and whoever signs its pictures.

In: names that fit on a command line and travel to other machines. Out: settings that hold the things themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vargpt.serving.settings import ServeSettings
from vargpt.serving.trust.provenance import Signature
from vargpt.serving.trust.safety import Guard


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """Names; nothing is loaded until `into` is called.

    Attributes:
        safety: of a check, as `Guard.named` takes it; None = nothing is judged.
        credentials: files of a certificate chain and its private key; None = pictures are not signed.
    """

    safety: str | None = None
    credentials: tuple[str, str] | None = None

    def into(self, settings: ServeSettings) -> ServeSettings:
        """The same settings with what these names stand for.

        Raises:
            FileNotFoundError: a file is not there.
            ValueError: a file or a factory is not what it should be.
            TypeError: a factory makes something that is no check.
            ImportError: the check's module, or c2pa-python, is not installed.
        """
        changes: dict[str, Any] = {}
        if self.safety is not None:
            changes["safety"] = Guard.named(self.safety)
        if self.credentials is not None:
            changes["sign"] = Signature.from_files(*self.credentials).sign
        return replace(settings, **changes) if changes else settings


def announcements(settings: ServeSettings) -> list[str]:
    """What whoever starts a server should know is on, one line each."""
    lines = [settings.safety.announcement] if isinstance(settings.safety, Guard) else []
    return [*lines, *(["pictures carry signed content credentials"] if settings.sign is not None else [])]
