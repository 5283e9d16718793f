"""What the documents promise exists: commands and their options, make targets, linked files, the Python example."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
USAGE_ERROR = typer.BadParameter.__mro__[1]  # click's UsageError, wherever this typer keeps its click
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[str]:
    """The command lines of `program` in fenced blocks of all documents, and in `code spans` of the README."""
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    blocks = [block for text in texts for language, block in FENCE.findall(text) if language != "python"]
    lines = [line for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", README))
    found = (line.split("&&")[-1].strip() for line in [*lines, *spans])
    return sorted({line for line in found if line.startswith(f"{program} ")})


def command_tree() -> Any:
    from vargpt.commands.cli import app

    return typer.main.get_command(app)


def parse(command: Any, name: str, arguments: list[str], parent: Any = None) -> None:
    """Parses as the program would, without running; raises USAGE_ERROR for what it does not understand."""
    context = command.make_context(name, list(arguments), parent=parent, resilient_parsing="--help" in arguments)
    if hasattr(command, "resolve_command") and "--help" not in arguments:
        rest = [*context._protected_args, *context.args]
        child_name, child, rest = command.resolve_command(context, rest)
        parse(child, child_name, rest, context)


@pytest.mark.parametrize("line", commands("vargpt"))
def test_every_command_of_the_documents_is_understood(line: str, home: Path) -> None:
    for name in ("fox.png", "photo.jpg", "wishes.txt"):
        (home / name).touch()
    parse(command_tree(), "vargpt", shlex.split(line, comments=True)[1:])


def test_a_command_that_does_not_exist_is_noticed() -> None:
    for line in ("paint fox.png", "draw fox --no-such-option"):
        with pytest.raises(USAGE_ERROR):
            parse(command_tree(), "vargpt", shlex.split(line))


@pytest.mark.parametrize("line", commands("make"))
def test_every_make_target_of_the_documents_exists(line: str) -> None:
    target = next(word for word in shlex.split(line)[1:] if "=" not in word)
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("line", commands("pip"))
def test_every_extra_of_the_documents_exists(line: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"\[([\w,]+)\]", line):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("document", [pytest.param(path, id=path.name) for path in DOCUMENTS])
def test_every_linked_file_exists(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", FENCE.sub("", document.read_text(encoding="utf-8")))
    missing = [name for name in targets if "://" not in name and not (document.parent / name).exists()]
    assert missing == []


@pytest.mark.parametrize("document", [pytest.param(path, id=path.name) for path in DOCUMENTS])
def test_every_file_named_in_a_document_exists(document: Path) -> None:
    named = re.findall(r"`((?:vargpt|training|data_recipes|chat_ui|tests|docs)/[\w./-]*)`", document.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_python_example_runs_and_leaves_its_picture(tmp_path: Path) -> None:
    (example,) = (block for language, block in FENCE.findall(README) if language == "python")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, env=environment, check=True, timeout=120)
    assert (tmp_path / "fox.png").stat().st_size > 0
