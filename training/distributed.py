"""Several processes that train one model: who they are, sums over them, and weights that are sharded among them.

The processes are started by torchrun and joined by `join`. Whole weights in every process are PyTorch's
DistributedDataParallel; sharded ones are FSDP2, `torch.distributed.fsdp.fully_shard` (PyTorch
FSDP, arXiv 2304.11277), layer by layer.
"""

from __future__ import annotations

import contextlib
import copy
import os
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vargpt.assistant.model import VARGPT
from vargpt.loading.devices import resolve_device


def world_size() -> int:
    """How many processes have joined; 1 before they do."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def started_processes() -> int:
    """How many processes torchrun has started, joined or not."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one, and of several processes each has its own.

    Raises:
        ValueError: the device is unknown or not there.
    """
    if name != "auto":
        return resolve_device(name)
    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


def join(device: str) -> torch.device:
    """The device of this process; of several that torchrun has started, each joins the others first."""
    where = pick_device(device)
    if started_processes() > 1 and world_size() == 1:
        if where.type == "cuda":
            torch.cuda.set_device(where)
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    return where


def replicated(model: nn.Module, device: torch.device) -> nn.Module:
    """What passes forward in training: the model, or where several processes hold it whole, one that sums gradients.

    Parameters that a batch does not need (of the modules for pictures, in a batch of text) are looked for.
    """
    if world_size() == 1 or any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        return model
    ids = [device.index] if device.type == "cuda" and device.index is not None else None
    return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False, find_unused_parameters=True)


def without_sync(model: nn.Module) -> AbstractContextManager:
    """Inside, the gradients of a wrapped model stay in their process; later ones bring them along."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()


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
