"""What this machine has and what fits on it: the answer to "why does it not work here?".

In: nothing, or a model folder. Out: findings in plain words. No model is loaded; sizes come from file headers.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch

from vargpt.loading import default_model_path

MEGABYTE, GIGABYTE = 2**20, 2**30
DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}  # all others take one
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow")
BASE_MEMORY = 400 * MEGABYTE  # Python, torch and transformers before any weight


@dataclass(frozen=True)
class Finding:
    """One line of the report. `ok` is None for plain facts; `advice` says what to do where something is missing."""

    name: str
    value: str
    ok: bool | None = None
    advice: str = ""


@dataclass(frozen=True)
class ModelSize:
    """What a model folder says of itself, in bytes and counts. `cache_values` are numbers kept per token of context."""

    files: int
    parameters: int
    cache_values: int
    context: int

    def needs(self, bytes_per_value: int, pictures: int = 1) -> int:
        """Bytes for the weights and a full context, held once more per guidance branch of each picture being drawn."""
        cache = self.cache_values * self.context * bytes_per_value
        return BASE_MEMORY + self.parameters * bytes_per_value + cache * (1 + 2 * pictures)


def examine(model: Path | None = None) -> list[Finding]:
    """All findings about this machine and one model folder (default: the shipped nano).

    Raises:
        FileNotFoundError: `model` is no model folder.
    """
    return [*software_findings(), *extra_findings(), *machine_findings(), *model_findings(model)]


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


def bfloat16_finding(side: int = 512, rounds: int = 4) -> Finding:
    """Times one matrix product in float32 and bfloat16: some processors are quicker in the latter, many much slower."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(side, side, dtype=dtype)
        torch.mm(matrix, matrix)  # the first call prepares kernels
        start = time.perf_counter()
        for _ in range(rounds):
            torch.mm(matrix, matrix)
        seconds[dtype] = time.perf_counter() - start
    ratio = seconds[torch.float32] / max(seconds[torch.bfloat16], 1e-9)
    hint = "larger models gain from it" if ratio > 1.2 else "keep float32, the default"
    return Finding("bfloat16", f"{ratio:.1f} times the speed of float32 here; {hint}")


def model_findings(model: Path | None = None) -> Iterator[Finding]:
    """Size of a model folder, and whether it fits into memory."""
    folder = model or default_model_path()
    if model is None and not (folder / "config.json").is_file():
        yield Finding("model", "the shipped nano is not there", False, "make nano trains it; or name one with --model")
        return
    size = model_size(folder)
    yield Finding(
        "model", f"{folder} ({size.parameters / 1e6:.1f} M parameters, {megabytes(size.files)} on disk)", True
    )
    memory = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else available_memory()
    for name, width in (("float32", 4), ("bfloat16", 2)):
        need = size.needs(width)
        fits = None if memory is None else need < memory
        advice = "" if fits is not False else "take bfloat16, a smaller model, or a machine with more memory"
        context = f"with a full context of {size.context} tokens and one picture being drawn"
        yield Finding(f"needs in {name}", f"about {gigabytes(need)} {context}", fits, advice)


def model_size(folder: Path) -> ModelSize:
    """Reads config.json and the headers of the weight files.

    Raises:
        FileNotFoundError: the folder is none, or lacks config or weights.
        ValueError: config.json is not JSON, or a weight file is damaged.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise FileNotFoundError(f"{folder} holds no config.json, so it is no model folder")
    config = _read_json(config_file)
    weights = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if weights:
        parameters, files = sum(map(count_parameters, weights)), sum(file.stat().st_size for file in weights)
    elif index.is_file():  # the list of the weights alone, as published beside them
        files = int(_read_json(index)["metadata"]["total_size"])
        parameters = files // 2
    else:
        raise FileNotFoundError(f"{folder} holds neither *.safetensors nor {index.name}, so its size cannot be told")
    text = config.get("text_config") or config
    heads = text.get("num_attention_heads", 1)
    head_width = text.get("head_dim") or text.get("hidden_size", 0) // heads
    key_values = 2 * text.get("num_hidden_layers", 0) * text.get("num_key_value_heads", heads) * head_width
    processor_file = folder / "processor_config.json"
    processor = _read_json(processor_file) if processor_file.is_file() else {}
    context = processor.get("max_context") or text.get("max_position_embeddings", 2048)
    return ModelSize(files, parameters, key_values + text.get("hidden_size", 0), context)


def count_parameters(weights: Path) -> int:
    """Parameters of a safetensors file, from its header: 8 bytes of length, then JSON.

    Raises:
        ValueError: the file is damaged.
    """
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= weights.stat().st_size - 8:
            raise ValueError(f"{weights} is damaged: its header claims {length} bytes")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise ValueError(f"{weights} is damaged: its header is not JSON ({error})") from None
    spans = [(entry["data_offsets"], entry["dtype"]) for name, entry in header.items() if name != "__metadata__"]
    return sum((end - start) // DTYPE_BYTES.get(dtype, 1) for (start, end), dtype in spans)


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
    return f"{size / GIGABYTE:.1f} GB"


def megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MB"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
