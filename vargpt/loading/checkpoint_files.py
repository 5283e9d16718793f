"""Published checkpoint files into a model, one tensor at a time: peak memory stays close to the model itself.

In: safetensors (one file or shards with an index), .bin or .pth (read with `weights_only`, memory-mapped). Out: the
same model with real weights instead of `meta` ones; nothing missing, nothing left over.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vargpt.loading.weight_map import WeightMap, fill

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
NESTS = ("state_dict", "model", "module", "trainer", "gpt_fsdp", "vae", "ema")  # where training code puts the weights
WRAPPERS = ("module.", "_orig_mod.")  # what training code wraps around a model, at the head of every name
SHOWN = 8  # names in an error message


@contextlib.contextmanager
def empty_weights() -> Iterator[None]:
    """Inside, new modules have their parameters on `meta` (no memory), their buffers as usual."""
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of a checkpoint: itself, the shards of an index, or all of a folder.

    Raises:
        FileNotFoundError: there are none, or a shard that the index names is missing.
    """
    if path.is_file():
        return [path]
    for index in INDEXES:
        if (path / index).is_file():
            names = sorted(set(json.loads((path / index).read_text()).get("weight_map", {}).values()))
            if not names:
                raise FileNotFoundError(f"{path / index} names no files of weights; download it again")
            missing = [name for name in names if not (path / name).is_file()]
            if missing:
                raise FileNotFoundError(f"{path} lacks {', '.join(missing)}, which {index} names; download them too")
            return [path / name for name in names]
    for pattern in ("*.safetensors", "pytorch_model*.bin", "*.pth", "*.pt"):
        files = sorted(path.glob(pattern))
        if files:
            return files
    raise FileNotFoundError(f"{path} holds no weights (*.safetensors, *.bin, *.pth)")


def read_tensors(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the files, read when it is its turn.

    Raises:
        ValueError: a file cannot be read, or holds no tensors where training code puts them.
    """
    for file in files:
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt") as opened:
                    for name, plain in unwrapped(opened.keys()).items():
                        yield plain, opened.get_tensor(name)
            else:
                content = unnested(torch.load(file, map_location="cpu", weights_only=True, mmap=True), file)
                yield from ((plain, content[name]) for name, plain in unwrapped(content).items())
        except (SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError) as error:
            raise ValueError(f"{file} cannot be read ({error}); copy or download it again") from error


def read_shapes(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the files; safetensors are not read beyond their headers.

    Raises:
        ValueError: a file cannot be read.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "pt") as opened:
                    names = unwrapped(opened.keys())
                    shapes |= {plain: tuple(opened.get_slice(name).get_shape()) for name, plain in names.items()}
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{file} cannot be read ({error}); copy or download it again") from error
        else:
            shapes |= {name: tuple(tensor.shape) for name, tensor in read_tensors([file])}
    return shapes


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """The names in a file, and without the wrappers that all of them have in common."""
    plain = {name: name for name in names}
    while wrapper := next((w for w in WRAPPERS if plain and all(n.startswith(w) for n in plain.values())), None):
        plain = {name: short.removeprefix(wrapper) for name, short in plain.items()}
    return plain


def unnested(content: Any, file: Path) -> dict[str, Tensor]:
    """The state dict inside whatever training code saved.

    Raises:
        ValueError: there is none.
    """
    while isinstance(content, dict):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return content
        inner = next((content[name] for name in NESTS if isinstance(content.get(name), dict)), None)
        if inner is None:
            break
        content = inner
    raise ValueError(f"{file} holds no weights under any of the names {', '.join(NESTS)}")


def load_weights(
    model: nn.Module,
    weight_map: WeightMap,
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    on_complete: Callable[[str], None] | None = None,
) -> None:
    """Gives every weight of `model` (made inside `empty_weights`) its published value, in place.

    `on_complete` is called with the name of each of our parameters that has all its pieces, before the next tensor is
    read: the place to quantise it.

    Raises:
        ValueError: weights are missing, unknown or of another shape; the message names them.
    """
    targets: dict[str, Tensor] = dict(model.named_parameters())
    needed = {(name, place.piece) for name in targets for _, place in weight_map.published(name)}
    pieces = Counter(name for name, _ in needed)
    unknown = []
    for theirs, tensor in tensors:
        try:
            place = weight_map.place(theirs)
        except KeyError:
            unknown.append(theirs)
            continue
        if place is None:
            continue
        if place.name not in targets:
            unknown.append(theirs)
            continue
        if targets[place.name].is_meta:
            targets[place.name] = materialize(model, place.name, dtype, device)
        fill(targets[place.name], place, tensor)
        if (place.name, place.piece) in needed:
            needed.discard((place.name, place.piece))
            pieces[place.name] -= 1
            if on_complete is not None and not pieces[place.name]:
                targets[place.name] = torch.empty(0)  # the caller may replace it: nothing here keeps it alive
                on_complete(place.name)
    if unknown or needed:
        parts = []
        if needed:
            parts.append(f"{len(needed)} missing, such as {', '.join(sorted({name for name, _ in needed})[:SHOWN])}")
        if unknown:
            parts.append(f"{len(unknown)} unknown, such as {', '.join(sorted(unknown)[:SHOWN])}")
        raise ValueError(f"the weights are not those of this model: {'; '.join(parts)}")


def materialize(model: nn.Module, name: str, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Replaces a parameter on `meta` by an empty real one."""
    owner, _, attribute = name.rpartition(".")
    module = model.get_submodule(owner)
    old = module.get_parameter(attribute)
    new = nn.Parameter(torch.empty(old.shape, dtype=dtype, device=device), requires_grad=old.requires_grad)
    setattr(module, attribute, new)
    return new
