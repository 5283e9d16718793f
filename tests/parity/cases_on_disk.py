"""Cases that the published code was run on: tiny random weights by recipe, inputs, outputs, tolerances.

A case is `<system>/<name>.json` beside `<name>.safetensors`. Those in `cases/` are the project's own; `--fixtures DIR`
runs every case of the same form that is found below DIR instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from tests.parity import parity_weights

OWN = Path(__file__).parent / "cases"
TOLERANCE = re.compile(r"atol (\S+?)[ ;,]* rtol (\S+?)(?:[ ;(,]|$)")
ROUNDED_TOLERANCE = re.compile(r"ca_bf16:? atol ([0-9.e-]+)")
ITEM = re.compile(r"\.[0-9]+$")  # of a list that was flattened
SEED = re.compile(r"(?:g_seed=|seed_all\(|\)=)([0-9]+)")
LIKELY_SEEDS = 64


@dataclass(frozen=True)
class Case:
    """One run of published code."""

    path: Path
    read: set[str] = field(default_factory=set, compare=False)  # the outputs that somebody has asked for

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.path.with_suffix(".safetensors"))

    @property
    def config(self) -> dict[str, Any]:
        return self.meta["config"]

    def input(self, name: str) -> Tensor:
        return self.tensors[f"inputs/{name}"]

    def output(self, name: str) -> Tensor:
        self.read.add(ITEM.sub("", name))
        return self.tensors[f"outputs/{name}"]

    def number(self, name: str) -> int:
        """An output that is a single number, written into the description."""
        self.read.add(name)
        return int(self.meta["outputs"][name])

    def outputs(self, name: str) -> list[Tensor]:
        """A list that was flattened as `name.0`, `name.1` ..."""
        found = []
        while f"outputs/{name}.{len(found)}" in self.tensors:
            found.append(self.output(f"{name}.{len(found)}"))
        return found

    @cached_property
    def recorded(self) -> tuple[str, ...]:
        """The names of all outputs; a list counts once."""
        tensors = {ITEM.sub("", key.removeprefix("outputs/")) for key in self.tensors if key.startswith("outputs/")}
        numbers = {key for key, value in self.meta["outputs"].items() if isinstance(value, int)}
        return tuple(sorted(tensors | numbers))

    def names(self, pattern: str) -> list[str]:
        """The recorded outputs of this name; `*` stands for anything."""
        return [name for name in self.recorded if fnmatch(name, pattern)]

    def has(self, name: str) -> bool:
        """Whether an output, or a list of outputs, of this name was recorded."""
        return bool(self.names(name))

    def seeds(self, name: str) -> Iterator[int]:
        """The seed that a call is said to have had; where none is said, those that people like to take."""
        found = SEED.search(str(self.meta.get("calls", {}).get(name, "")))
        yield from [int(found.group(1))] if found else range(LIKELY_SEEDS)

    def weights(self, model: str) -> dict[str, Tensor]:
        """The checkpoint of this case, made from its recipe."""
        prefix = f"buffers/{model}/"
        stored = {key.removeprefix(prefix): v.numpy() for key, v in self.tensors.items() if key.startswith(prefix)}
        made = parity_weights.state_dict(self.meta["weights"][model], stored)
        return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in made.items()}

    @cached_property
    def tolerance(self) -> dict[str, float]:
        """The stated tolerance of float outputs (where two are stated, that of the fp32 ones, which comes first)."""
        found = TOLERANCE.search(self.meta["tolerance"]["float"])
        assert found, self.meta["tolerance"]
        return {"atol": float(found.group(1)), "rtol": float(found.group(2))}

    @cached_property
    def rounded_tolerance(self) -> dict[str, float]:
        """The same for outputs with cross-attention rounded to bfloat16, whose names end in `ca_bf16`."""
        found = ROUNDED_TOLERANCE.search(self.meta["tolerance"]["float"])
        assert found, self.meta["tolerance"]
        return {"atol": float(found.group(1)), "rtol": float(found.group(1))}

    def check(self, actual: Tensor, name: str) -> None:
        """Asserts that a float output agrees within the stated tolerance, an integer or bit output exactly."""
        expected = self.output(name)
        if expected.is_floating_point():
            tolerance = self.rounded_tolerance if name.endswith("ca_bf16") else self.tolerance
            assert_close(actual.float(), expected.float(), **tolerance, msg=lambda text: f"{name}: {text}")
        else:
            assert torch.equal(actual.to(expected.dtype), expected), name


def find_cases(system: str, *models: str, root: Path = OWN) -> list[Case]:
    """The cases of a system that were run with exactly these models."""
    cases = []
    for path in sorted(root.rglob("*.json")):
        meta = json.loads(path.read_text())
        if meta.get("system") == system and set(meta.get("weights", ())) == set(models):
            cases.append(Case(path))
    return cases
