"""Several processes that train one model: who they are, sums over them, and weights that are sharded among them.

The processes are started by torchrun (or `accelerate launch`) and joined by transformers' Trainer. Whole weights in
every process are its DistributedDataParallel; sharded ones are FSDP2, `torch.distributed.fsdp.fully_shard` (PyTorch
FSDP, arXiv 2304.11277), layer by layer: accelerate's plugin for it does nothing on a CPU.
"""

from __future__ import annotations

import copy
import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vargpt.assistant.model import VARGPT


def world_size() -> int:
    """How many processes have joined; 1 before they do."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def started_processes() -> int:
    """How many processes torchrun has started, joined or not."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this process is the one that writes and shows things."""
    return rank() == 0


def wait_for_all() -> None:
    if world_size() > 1:
        dist.barrier()


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def sharded_copy(model: VARGPT, device: torch.device, low_precision: bool) -> VARGPT:
    """The same model with the weights of every layer spread over the processes; the image tokenizer stays whole.

    With `low_precision`, layers are gathered and computed in bfloat16, over float32 weights, gradients and optimiser.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    copied = copy.deepcopy(model)
    mesh = init_device_mesh(device.type, (world_size(),))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if low_precision else MixedPrecisionPolicy()
    layers = [module for module in copied.modules() if type(module).__name__ in model._no_split_modules]
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    copied.image_tokenizer.to(device)
    resting = set(copied.image_tokenizer.parameters())
    fully_shard(copied, mesh=mesh, mp_policy=policy, ignored_params=resting)
    copied._is_accelerate_prepared = True  # accelerate then lets it pass as it is
    return copied


def whole(value: Tensor) -> Tensor:
    """A sharded tensor put together, in every process at once; any other as it is."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


@torch.no_grad()
def gather_into(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Copies named values, sharded or not, into the whole parameters of that name. All processes call it together."""
    parameters = dict(model.named_parameters())
    for name, value in values.items():
        parameters[name].copy_(whole(value))
