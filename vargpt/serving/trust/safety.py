"""What a server refuses to hear and to show: a seam for checks of one's own, and a list of words. Off by default.

In: the text of a request, a picture. Out: a reason to refuse, or None. A check that breaks refuses everything
(`SafetyCheckError`): nothing passes unchecked. A list of words is no protection against somebody who means harm; where
that matters, plug in a classifier.
"""

from __future__ import annotations

import importlib
import logging
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)


class SafetyCheckError(RuntimeError):
    """The check itself broke; what it should have judged is refused."""


@runtime_checkable
class SafetyCheck(Protocol):
    """Judges requests and pictures; called from several threads."""

    def check_prompt(self, text: str) -> str | None:
        """Why this text is not answered, as a sentence for the person who wrote it; None = it may be."""

    def check_image(self, image: Image) -> str | None:
        """Why this RGB picture, given or drawn, is not used or shown; None = it may be."""


class WordList:
    """Refuses texts that contain one of a list of words or phrases; pictures all pass.

    Whole words count, whatever their case, width, accents' encoding, or invisible characters between letters.
    """

    def __init__(self, words: list[str]) -> None:
        cleaned = [_plain(word) for word in words]
        if not cleaned or not all(cleaned):
            raise ValueError("a list of words needs at least one word, and no empty ones")
        pattern = "|".join(r"\s+".join(map(re.escape, word.split())) for word in sorted(cleaned, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)")

    @classmethod
    def from_file(cls, path: str | Path) -> WordList:
        """One word or phrase per line; empty lines and lines that begin with # are skipped.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no UTF-8 text, or holds no word.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not a UTF-8 text file; write one word or phrase per line") from None
        words = [line for line in lines if line and not line.startswith("#")]
        if not words:
            raise ValueError(f"{path} holds no word; write one word or phrase per line")
        return cls(words)

    def check_prompt(self, text: str) -> str | None:
        return "the request contains words that are not answered here" if self._pattern.search(_plain(text)) else None

    def check_image(self, image: Image) -> str | None:
        return None


class Guard:
    """A check that cannot fail open: what it does not clearly allow raises.

    Args:
        check: the check, of which every exception and every odd answer counts as broken.
        name: how `/health`, `/v1/models` and the line at the start call it.
    """

    def __init__(self, check: SafetyCheck, name: str) -> None:
        if not isinstance(check, SafetyCheck):
            raise TypeError(f"{name} made a {type(check).__name__} without check_prompt(text) and check_image(image)")
        self.name = name
        self._check = check

    @classmethod
    def named(cls, name: str) -> Guard:
        """The check of that name: "package.module:factory" (called without arguments), or a file with words.

        Raises:
            FileNotFoundError: neither; or the file is not there.
            ImportError: there is no such module.
            ValueError: the module has no such factory; or the file holds no words.
            TypeError: what the factory made is no `SafetyCheck`.
        """
        module, colon, factory = name.partition(":")
        if not colon or Path(name).is_file() or not all(part.isidentifier() for part in module.split(".")):
            return cls(WordList.from_file(name), f"words in {Path(name).name}")
        try:
            made = getattr(importlib.import_module(module), factory)
        except ModuleNotFoundError as error:
            raise ImportError(f"the safety check {name} cannot be loaded: {error}") from error
        except AttributeError:
            raise ValueError(f"the module {module} has no {factory!r}; name a function that makes the check") from None
        return cls(made(), name)

    @property
    def announcement(self) -> str:
        """One line for the start of a server."""
        return f"safety check on: {self.name}; what it refuses, and everything while it is broken, gets no answer"

    def check_prompt(self, text: str) -> str | None:
        """As the check says.

        Raises:
            SafetyCheckError: it raised, or answered neither None nor a reason.
        """
        try:
            answer = self._check.check_prompt(text)
        except Exception as error:  # noqa: BLE001  somebody else's code: whatever it raises, the answer is no
            raise self._broken(error) from error
        return self._reason(answer)

    def check_image(self, image: Image) -> str | None:
        """As the check says.

        Raises:
            SafetyCheckError: it raised, or answered neither None nor a reason.
        """
        try:
            answer = self._check.check_image(image)
        except Exception as error:  # noqa: BLE001
            raise self._broken(error) from error
        return self._reason(answer)

    def _reason(self, answer: object) -> str | None:
        if answer is None or (isinstance(answer, str) and answer.strip()):
            return answer
        raise self._broken(TypeError(f"it answered {answer!r}, neither None nor a reason"))

    def _broken(self, error: Exception) -> SafetyCheckError:
        logger.error("the safety check %s broke: %s", self.name, error, exc_info=error)
        return SafetyCheckError("the safety check of this server is broken, so nothing is answered; tell who runs it")


def _plain(text: str) -> str:
    """Compatibility forms folded, accents composed, case and invisible characters gone."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(character for character in folded if unicodedata.category(character) != "Cf").strip()
