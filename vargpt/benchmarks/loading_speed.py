"""How long a published checkpoint takes to load, and how much memory at its height, on random weights.

In: a size in bytes. Out: `LoadingSpeed`. The checkpoint has VARGPT-v1.1's form (names, shards, bfloat16) with a smaller
language model; it is loaded by a process of its own, whose memory before and at its height is compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vargpt.config import VargptConfig
from vargpt.loading.checkpoint_files import empty_weights
from vargpt.published.vargpt_v1_1 import VargptV11, config_from_published
from vargpt.published.vargpt_v1_1_weights import vargpt_map

SHARD_BYTES = 500_000_000
CHUNKS = 8
PUBLISHED: dict[str, Any] = {  # as published, with a language model of Qwen2's smallest size
    "model_type": "vargpt_qwen2_vl", "vocab_size": 152064, "hidden_size": 896, "intermediate_size": 4864,
    "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
    "rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]}, "tie_word_embeddings": False,
    "vision_config": {"depth": 8, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "hidden_size": 896,
                      "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
}  # fmt: skip
DECODER = {"hidden_size": 1024, "num_layers": 16, "num_heads": 8, "mlp_ratio": 4.0, "memory_size": 1024}
LOAD = """
import json, re, resource, sys, time
import torch
from pathlib import Path
from vargpt.published.vargpt_v1_1 import read_published_model

def highest():
    status = Path("/proc/self/status")  # Linux counts the memory of the parent process into ru_maxrss
    if status.is_file():
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

before = highest()
start = time.perf_counter()
model = read_published_model(Path(sys.argv[1]), torch.bfloat16, torch.device("cpu"))
seconds = time.perf_counter() - start
peak = highest() - before
weights = sum(p.numel() * p.element_size() for p in model.parameters())
print(json.dumps({"seconds": seconds, "peak_bytes": peak, "weight_bytes": weights}))
"""


@dataclass(frozen=True)
class LoadingSpeed:
    """What one load took. `peak_bytes` is what the process grew by at its height, files it had mapped included."""

    seconds: float
    weight_bytes: int
    peak_bytes: int

    @property
    def peak_share(self) -> float:
        """Peak memory by the size of the weights; 1 would be nothing beside them."""
        return self.peak_bytes / self.weight_bytes

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"peak_share": self.peak_share}


def write_random_checkpoint(folder: Path, size: int, shard_bytes: int = SHARD_BYTES) -> VargptConfig:
    """A sharded checkpoint of at least `size` bytes in bfloat16 (1 GB is the smallest); returns its config."""
    layers = 1
    while True:
        published = PUBLISHED | {"num_hidden_layers": layers}
        config = config_from_published(published, DECODER)
        with empty_weights():
            model = VargptV11(config)
        if 2 * sum(parameter.numel() for parameter in model.parameters()) >= size:
            break
        layers += 4
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(published), encoding="utf-8")
    index: dict[str, str] = {}
    for number, shard in enumerate(shards(model, shard_bytes), 1):
        name = f"model-{number:05d}.safetensors"
        save_file(shard, folder / name)
        index |= dict.fromkeys(shard, name)
    listed = json.dumps({"weight_map": index})
    (folder / "model.safetensors.index.json").write_text(listed, encoding="utf-8")
    return config


def shards(model: VargptV11, shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    """Random weights for a model on `meta` under their published names, a file's worth at a time."""
    weight_map = vargpt_map(model.config, CHUNKS)
    generator = torch.Generator().manual_seed(0)

    def made() -> Iterator[tuple[str, Tensor]]:
        for name, parameter in model.named_parameters():
            yield name, torch.empty(parameter.shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)

    shard: dict[str, Tensor] = {}
    for name, tensor in weight_map.export(made()):
        place = weight_map.place(name)
        if place is not None and place.zero:
            tensor = torch.zeros_like(tensor)
        shard[name] = tensor.contiguous().clone()
        if sum(value.nbytes for value in shard.values()) >= shard_bytes:
            yield shard
            shard = {}
    if shard:
        yield shard


def measure_loading(folder: Path) -> LoadingSpeed:
    """Loads a published checkpoint in a process of its own.

    Raises:
        OSError: the system does not tell a process its peak memory (Windows).
        RuntimeError: it could not be loaded; the message holds what it said.
    """
    if sys.platform == "win32":
        raise OSError("the peak memory of a process is measured on Linux and macOS only")
    done = subprocess.run([sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{folder} could not be loaded: {done.stderr.strip()[-1000:]}")
    return LoadingSpeed(**json.loads(done.stdout.splitlines()[-1]))
