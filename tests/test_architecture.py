"""The house rules that a machine can check: who may import whom, how long a file may be, where printing is allowed."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("vargpt", "training", "data_recipes", "chat_ui", "benchmarks")
# Low to high, by the names of files and folders; rooms on one rung are siblings and never import one another.
LADDERS: dict[str, tuple[set[str], ...]] = {
    "vargpt": (
        {"types", "cpu"}, {"sampling"}, {"config"}, {"pictures"}, {"tokenizers", "generators"},
        {"assistant", "text_to_image"}, {"loading"}, {"published"}, {"presets", "testing"}, {"chat"}, {"evaluation"},
        {"benchmarks", "serving"}, {"commands"}, {"__main__"},
    ),
    "data_recipes": ({"mixtures"}, {"storybook", "public"}),
    "data_recipes.storybook": (
        {"world"}, {"drawing", "splits"}, {"language"}, {"script_messages"}, {"judging"}, {"samples", "cells"},
    ),
    "data_recipes.public": (
        {"base"}, {"sources", "filters", "caption_conversations", "manifest"}, {"sets", "built_folder"}, {"catalogue"},
        {"shards"}, {"build"},
    ),
    "chat_ui": (
        {"data_folder"}, {"access", "conversation"}, {"history"}, {"showing"}, {"page_session", "answering"},
        {"api"}, {"app", "run"},
    ),
}  # fmt: skip
NEIGHBOURS = {  # package -> what it may import of ours
    "vargpt": {"vargpt"},
    "training": {"training", "vargpt", "data_recipes"},
    "benchmarks": {"benchmarks", "vargpt", "training"},
    "data_recipes": {"data_recipes", "vargpt"},
    "chat_ui": {"chat_ui", "vargpt"},
}
OPTIONAL = {
    "trl", "peft", "bitsandbytes", "chainlit", "datasets", "torchvision", "c2pa", "cryptography", "ray", "httpx2",
}  # fmt: skip
LONGEST_FILE = 500
LONGEST_SHELF = 14
SOURCES = sorted(path for package in (*PACKAGES, "tests", "examples") for path in (ROOT / package).rglob("*.py"))


def is_lazy(node: ast.AST) -> bool:
    """Whether what stands inside runs later than the import of the module, or never (names for type checkers)."""
    typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    return typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every dotted name that a file imports, and whether that happens when the file itself is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {id(node) for scope in ast.walk(tree) if is_lazy(scope) for node in ast.walk(scope)}
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, node.module or "")).strip(".")
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, id(node) not in lazy) for name in names)


def room_of(parts: tuple[str, ...], package: str) -> str | None:
    """The room of a module in this package; None for the package itself, which may be imported from anywhere."""
    depth = len(package.split("."))
    if ".".join(parts[:depth]) != package or len(parts) == depth:
        return None
    room = parts[depth].removesuffix(".py")
    return None if room in ("__init__", "__version__") else room


def points_down(package: str, here: tuple[str, ...], there: tuple[str, ...]) -> bool:
    """Whether an import stays in its room or goes down the ladder of the package; True if it is not within one."""
    ladder = LADDERS[package]
    rung = {room: height for height, rooms in enumerate(ladder) for room in rooms}
    importer, imported = room_of(here, package), room_of(there, package)
    if importer is None or imported is None or importer == imported:
        return True
    # A name of the package itself (vargpt.VARGPT) would pull in every room, so only the highest room may use it.
    return rung.get(imported, len(ladder) - 2) < rung[importer]


def misplaced_imports(path: Path) -> list[str]:
    """The imports of one file that point sideways or up."""
    here = path.relative_to(ROOT).parts
    wrong = []
    for name, at_import in imports(path):
        there = tuple(name.split("."))
        if there[0] not in PACKAGES:
            continue
        allowed = there[0] in NEIGHBOURS[here[0]] or (here[:2] == ("vargpt", "commands") and not at_import)
        if here[0] == "data_recipes" and there[0] == "vargpt":
            allowed = there[:2] == ("vargpt", "types")
        if not (allowed and all(points_down(package, here, there) for package in LADDERS)):
            wrong.append(name)
    return wrong


def prints(path: Path) -> list[int]:
    """Line numbers of print() calls that run in a library: not below `if __name__ == "__main__"`, not in main()."""
    edge = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        is_main = isinstance(node, ast.FunctionDef) and node.name == "main"
        is_guard = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        if is_main or is_guard:
            edge |= {id(child) for child in ast.walk(node)}
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print")
    return [node.lineno for node in calls if id(node) not in edge]


def each_source(*folders: str) -> list:
    names = [path.relative_to(ROOT).as_posix() for path in SOURCES]
    return [pytest.param(ROOT / name, id=name) for name in names if name.split("/")[0] in folders]


@pytest.mark.parametrize("path", each_source(*PACKAGES))
def test_imports_never_point_up_or_sideways(path: Path) -> None:
    assert misplaced_imports(path) == []


@pytest.mark.parametrize("package", LADDERS)
def test_every_room_has_a_rung_on_the_ladder_and_every_rung_a_room(package: str) -> None:
    rooms = {room_of(path.relative_to(ROOT).parts, package) for path in SOURCES}
    assert rooms - {None} == set().union(*LADDERS[package])


def test_an_import_that_points_up_is_found() -> None:
    judging, samples = ("data_recipes", "storybook", "judging", "cases.py"), ("data_recipes", "storybook", "samples")
    assert not points_down("data_recipes.storybook", judging, samples)
    assert points_down("data_recipes.storybook", samples, judging)


def modules(package: str) -> list[Path]:
    return [path for path in SOURCES if path.is_relative_to(ROOT / package) and path.name != "__init__.py"]


def test_no_shelf_is_too_long_to_take_in_at_a_glance() -> None:
    shelves = Counter(path.parent.relative_to(ROOT).as_posix() for package in PACKAGES for path in modules(package))
    assert {shelf: count for shelf, count in shelves.items() if count > LONGEST_SHELF} == {}


def test_a_name_exists_once_in_the_house() -> None:
    """But for `base`, the seam of its room, and a published family, which has a generator and a file of its own."""
    families = {path.stem for path in modules("vargpt") if path.parent.name == "published"}
    names = Counter(path.stem for package in PACKAGES for path in modules(package))
    assert {name for name, count in names.items() if count > 1} - {"base", *families} == set()


@pytest.mark.parametrize("path", each_source(*PACKAGES, "tests", "examples"))
def test_no_file_outgrows_a_reader(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


# The command line is an edge where printing is the work; `python -m` modules print in main() or below their guard.
@pytest.mark.parametrize("path", each_source(*PACKAGES))
def test_the_library_logs_and_never_prints(path: Path) -> None:
    if path.name not in ("cli.py", "__main__.py"):
        assert prints(path) == []


@pytest.mark.parametrize("path", each_source("vargpt", "data_recipes"))
def test_optional_packages_are_imported_only_where_they_are_used(path: Path) -> None:
    assert {name.split(".")[0] for name, at_import in imports(path) if at_import} & OPTIONAL == set()


def test_nothing_outside_the_declared_dependencies_is_imported_when_the_library_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=\[; ]", line)[0].lower() for line in project["dependencies"]}
    declared |= {"pil", "huggingface_hub", *PACKAGES, *sys.stdlib_module_names}  # pillow; a part of transformers
    used = {name.split(".")[0] for path in SOURCES if path.is_relative_to(ROOT / "vargpt")
            for name, at_import in imports(path) if at_import}  # fmt: skip
    serving = {
        "fastapi",
        "prometheus_client",
        "pydantic",
        "starlette",
        "uvicorn",
    }  # the serving room is reached through its own command
    assert {name for name in used if name.lower() not in declared} <= serving
