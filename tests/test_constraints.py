"""constraints.txt: what pip is told belongs to what the project asks for, and holds on every platform."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
COMPILED = (
    "torch",
    "torchvision",
    "triton",
    "numpy",
    "tokenizers",
    "safetensors",
    "sentencepiece",
    "ray",
    "bitsandbytes",
)


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def requirements() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lines in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from map(Requirement, lines)


def test_every_pin_of_a_direct_dependency_is_in_the_range_that_the_project_states() -> None:
    pinned = pins()
    checked = [item for item in requirements() if canonicalize_name(item.name) in pinned]
    assert {"transformers", "chainlit", "trl", "sse-starlette", "tyro"} <= {item.name for item in checked}
    for item in checked:
        assert item.specifier.contains(pinned[canonicalize_name(item.name)]), item


def test_what_is_built_for_one_platform_is_not_pinned() -> None:
    pinned = pins()
    assert len(pinned) > 100
    assert not pinned.keys() & set(COMPILED)
    assert not [name for name in pinned if name.startswith(("nvidia-", "cuda-"))]
    assert not [name for name, version in pinned.items() if version.local]
