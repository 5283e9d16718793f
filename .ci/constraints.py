"""Writes constraints.txt: the releases that are installed beside this Python, as far as they suit all others.

Only pure Python packages are pinned: one file of theirs serves every platform and every Python that vargpt supports.
Compiled ones (torch, numpy, ...) stay as free as pyproject.toml leaves them. `make constraints` runs this.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions

NOT_OURS = ("vargpt", "pip", "setuptools", "wheel")
OF_TORCH = ("nvidia-", "cuda-")  # which of these are wanted depends on the build of torch


def is_pure(distribution: Distribution) -> bool:
    """Whether its wheel is the same for every platform."""
    tags = [line for line in (distribution.read_text("WHEEL") or "").splitlines() if line.startswith("Tag:")]
    return bool(tags) and all(tag.endswith("-none-any") for tag in tags)


def pins() -> list[str]:
    found = {item.name.lower().replace("_", "-"): item for item in distributions() if is_pure(item)}
    return [
        f"{name}=={item.version}"
        for name, item in sorted(found.items())
        if name not in NOT_OURS and not name.startswith(OF_TORCH)
    ]


if __name__ == "__main__":
    sys.stdout.write("# Pure Python packages that fit together; written by `make constraints`.\n")
    sys.stdout.writelines(f"{pin}\n" for pin in pins())
