"""What this machine has and what fits on it: the answer to "why does it not work here?".

In: nothing, or a model's name. Out: findings in plain words. No weights are loaded; of a hub only the small files.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
from rich.markup import escape
from rich.table import Table

from vargpt import cpu
from vargpt.config import VargptConfig
from vargpt.loading.checkpoint_files import weight_files
from vargpt.loading.memory_estimate import (
    CARDS,
    MODES,
    RESERVED,
    Mode,
    best_mode,
    needed_bytes,
    parameter_counts,
    working_bytes,
)
from vargpt.loading.models import OUTLINE, default_model_path, read_json
from vargpt.published.families import model_config, resolve_model

MEGABYTE, GIGABYTE = 2**20, 2**30
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow")
USUAL_CONTEXT = 1024  # tokens: a picture or two and what is said about them, whatever a model allows


@dataclass(frozen=True)
class Finding:
    """One line of the report. `ok` is None for plain facts; `advice` says what to do where something is missing."""

    name: str
    value: str
    ok: bool | None = None
    advice: str = ""


def examine(model: str | Path | None = None) -> list[Finding]:
    """All findings about this machine and one model (default: the shipped nano).

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: its config is damaged.
    """
    return [*software_findings(), *extra_findings(), *machine_findings(), *model_findings(model)]


def findings_table(findings: Sequence[Finding]) -> Table:
    """The report for a terminal."""
    marks = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        advice = f"\n[yellow]{escape(finding.advice)}[/]" if finding.advice else ""
        table.add_row(finding.name, marks[finding.ok], f"{escape(finding.value)}{advice}")
    return table


def software_findings() -> Iterator[Finding]:
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in ("vargpt", *LIBRARIES):
        installed = installed_version(name)
        missing = "pip install -e . in the checkout" if name == "vargpt" else f"pip install {name}"
        yield Finding(name, installed or "not installed", bool(installed), "" if installed else missing)


def extra_findings() -> Iterator[Finding]:
    """The optional extras, and what they lack."""
    extras: dict[str, list[str]] = {}
    try:
        declared = requires("vargpt") or []
    except PackageNotFoundError:
        declared = []
    for line in declared:
        found = re.match(r"([\w.-]+).*extra == ['\"](\w+)", line)
        if found:
            extras.setdefault(found[2], []).append(found[1])
    for extra, packages in extras.items():
        missing = [name for name in packages if installed_version(name) is None]
        value = f"complete ({', '.join(packages)})" if not missing else f"lacks {', '.join(missing)}"
        # extras are a choice: lacking one is a fact, not a fault
        yield Finding(
            f"extra {extra}", value, None if missing else True, f"pip install 'vargpt[{extra}]'" * bool(missing)
        )


def machine_findings() -> Iterator[Finding]:
    """Device, cores, memory, and which number format is quick."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("processor", f"{cores} cores, torch uses {torch.get_num_threads()} threads")
    memory = available_memory()
    yield Finding("free memory", "unknown" if memory is None else gigabytes(memory))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = f"{torch.cuda.get_device_name(index)}, {gigabytes(free)} of {gigabytes(total)} free"
            yield Finding(f"cuda:{index}", name, True)
    elif torch.backends.mps.is_available():
        yield Finding("device", "mps (Apple)", True)
    else:
        yield Finding("device", "cpu (no graphics card that torch can use)", True)
        yield bfloat16_finding()


def bfloat16_finding() -> Finding:
    """Some processors are quicker in bfloat16, many much slower; trainings choose by the same measurement."""
    gain = cpu.gain_over_float32(torch.bfloat16)
    hint = "larger models gain from it" if gain > cpu.PAYS else "keep float32, the default"
    return Finding("bfloat16", f"{gain:.2g} times the speed of float32 here; {hint}")


def model_findings(model: str | Path | None = None) -> Iterator[Finding]:
    """How large a model is, what it needs in each precision, and which one fits here and on usual graphics cards."""
    if model is None and not (default_model_path() / "config.json").is_file():
        yield Finding("model", "the shipped nano is not there", False, "make nano trains it; or name one with --model")
        return
    folder = resolve_model(model, OUTLINE)
    config = model_config(folder)
    counts = parameter_counts(config)
    stored = stored_bytes(folder)
    size = f"{sum(counts.values()) / 1e6:,.1f} M parameters"
    if stored is None:
        yield Finding("model", f"{folder} ({size})", False, "its weights are missing; copy or download them")
    else:
        yield Finding("model", f"{folder} ({size}, {megabytes(stored)} on disk)", True)
    context = min(context_of(folder, config), USUAL_CONTEXT)
    more = working_bytes(config, 2, context + 1000) - working_bytes(config, 2, context)
    yield Finding(
        "estimated for",
        f"a conversation of {context} tokens and one picture of {config.default_size} being drawn; "
        f"every further 1,000 tokens take {gigabytes(more)} in bfloat16",
    )
    cuda = torch.cuda.is_available()
    for mode in MODES if cuda else MODES[:2]:
        yield Finding(f"needs in {mode.name}", f"about {gigabytes(needed_bytes(config, counts, mode, context))}")
    memory = torch.cuda.mem_get_info()[0] if cuda else available_memory()
    if memory is not None:
        yield fitting_finding(config, counts, memory, context, "fits here", MODES if cuda else MODES[:2])
    if needed_bytes(config, counts, MODES[0], context) > min(CARDS) * GIGABYTE:
        for card in CARDS:
            room = card * GIGABYTE - RESERVED
            finding = fitting_finding(config, counts, room, context, f"graphics card, {card} GB", MODES)
            yield replace(finding, ok=None)


def fitting_finding(
    config: VargptConfig, counts: Mapping[str, int], memory: int, context: int, name: str, modes: Sequence[Mode]
) -> Finding:
    """Which mode to load a model in where `memory` bytes are free."""
    mode = best_mode(config, counts, memory, context, modes)
    if mode is None:
        return Finding(name, "no mode", False, "take a smaller model, or a machine with more memory")
    return Finding(name, f"{mode.name}: {mode.options}", True)


def stored_bytes(folder: Path) -> int | None:
    """What the weight files take on disk, also where only their list is there; None without either."""
    try:
        return sum(file.stat().st_size for file in weight_files(folder))
    except FileNotFoundError:
        index = folder / "model.safetensors.index.json"
        return int(read_json(index)["metadata"]["total_size"]) if index.is_file() else None


def context_of(folder: Path, config: VargptConfig) -> int:
    """How many tokens a conversation may have."""
    file = folder / "processor_config.json"
    limit = read_json(file).get("max_context") if file.is_file() else None
    return limit or config.text_config.max_position_embeddings


def available_memory() -> int | None:
    """Bytes that a program may still take, limits of a container included; None where the system does not say."""
    found = []
    meminfo, limit, used = (
        Path("/proc/meminfo"),
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory.current"),
    )
    if meminfo.is_file():
        available = re.search(r"MemAvailable:\s+(\d+)", meminfo.read_text())
        found += [int(available[1]) * 1024] if available else []
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found, default=None)


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def gigabytes(size: int) -> str:
    return f"{size / GIGABYTE:.1f} GB" if size >= GIGABYTE else megabytes(size)


def megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MB"
