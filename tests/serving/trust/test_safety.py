"""Safety checks: what a list of words refuses, and that a broken check lets nothing through."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vargpt.serving.trust.safety import Guard, SafetyCheckError, WordList


class NoSquares:
    """A check of one's own, loaded by name in a test."""

    def check_prompt(self, text: str) -> str | None:
        if "crash" in text:
            raise KeyError("weights")
        return "say please" if "please" not in text else None

    def check_image(self, image: Image.Image) -> str | None:
        return "no squares here" if image.width == image.height else None


class Absent:
    """Answers something that is neither a reason nor None."""

    def check_prompt(self, text: str) -> bool:
        return False

    def check_image(self, image: Image.Image) -> str:
        return ""


@pytest.mark.parametrize(
    "text",
    ["A Gore scene", "g\u200bo\u200bre!", "ＧＯＲＥ", "\u202egore", "severed\n  HEAD on a plate", "gore", "x,gore,y"],
)
def test_words_are_found_however_they_are_dressed_up(text: str) -> None:
    assert WordList(["gore", "severed head"]).check_prompt(text)


@pytest.mark.parametrize("text", ["Gregor the fox", "a head, severed ties", "gore-tex"[5:], "", "nothing", "\ud800"])
def test_other_words_pass(text: str) -> None:
    words = WordList(["gore", "severed head"])
    assert words.check_prompt(text) is None
    assert words.check_image(Image.new("RGB", (4, 4))) is None


def test_words_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# not here\n\ngore\nÉtat\n", encoding="utf-8")
    guard = Guard.named(str(path))
    assert guard.name == "words in words.txt"
    assert guard.check_prompt("l'e\u0301tat, c'est moi") and guard.check_prompt("# not here") is None
    path.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no word"):
        Guard.named(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        Guard.named(str(path))


def test_a_check_of_ones_own_is_loaded_by_name() -> None:
    guard = Guard.named(f"{__name__}:NoSquares")
    assert guard.check_prompt("draw a fox") == "say please"
    assert guard.check_prompt("please draw a fox") is None
    assert guard.check_image(Image.new("RGB", (4, 4))) == "no squares here"
    assert guard.check_image(Image.new("RGB", (4, 5))) is None
    assert guard.name in guard.announcement


def test_names_that_lead_nowhere_say_so() -> None:
    with pytest.raises(FileNotFoundError, match="no/such/words"):
        Guard.named("no/such/words.txt")
    with pytest.raises(ImportError, match="no_such_package"):
        Guard.named("no_such_package.module:factory")
    with pytest.raises(ValueError, match="no_such_factory"):
        Guard.named(f"{__name__}:no_such_factory")
    with pytest.raises(TypeError, match="check_prompt"):
        Guard.named("collections:OrderedDict")


def test_a_broken_check_lets_nothing_through(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard(NoSquares(), "mine")
    with pytest.raises(SafetyCheckError, match="broken"):
        guard.check_prompt("please crash")
    assert "weights" in caplog.text  # the cause is for the log, not for the client
    odd = Guard(Absent(), "odd")
    with pytest.raises(SafetyCheckError):
        odd.check_prompt("a fox")
    with pytest.raises(SafetyCheckError):
        odd.check_image(Image.new("RGB", (4, 4)))
