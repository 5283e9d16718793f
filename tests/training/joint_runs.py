"""Training runs that tests start in processes of their own, one or several together, and what is read back from them.

`python -m tests.training.joint_runs FOLDER NAME ...` makes the runs of these names one after the other, each in a
folder of its own name; `NAME:2` makes the first two steps of one. Started several times with the variables of torchrun,
the processes join.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from training.averaged_weights import learning_values
from training.data import BatchSettings
from training.distributed import is_main
from training.loop import LoopSettings
from training.supervised import SftSettings, train
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import Message

ROOT = Path(__file__).parents[2]
LOOP = LoopSettings(
    total_steps=4,
    learning_rate=3e-3,
    warmup_steps=1,
    ema_decay=0.9,
    autocast="none",
    device="cpu",
    schedule="constant",
    save_every_minutes=0.0,
)
RESULT = "result.pt"
SETTINGS = SftSettings(loop=LOOP, batches=BatchSettings(pool_size=12, batches_per_pool=3, num_workers=0))


def messages_of(sample_id: int) -> list[Message]:
    """Talk, pictures to look at, drawings, and edits of drawings."""
    rng = random.Random(sample_id)
    shade = rng.randrange(256)
    picture = Image.new("RGB", (32, 32), (shade, 255 - shade, 90))
    if sample_id % 4 == 0:
        return [Message.of("user", f"hello {sample_id}"), Message.of("assistant", "Hello.")]
    if sample_id % 4 == 1:
        return [Message.of("user", picture, "what is it?"), Message.of("assistant", "A fox.")]
    drawn = [Message.of("user", "draw a fox"), Message.of("assistant", "A fox.", picture)]
    return (
        drawn
        if sample_id % 4 == 2
        else [*drawn, Message.of("user", "now?"), Message.of("assistant", "A cat.", picture)]
    )


def changed(bf16: bool = False, optimizer: str = "adamw", accumulation: int = 1, **settings: bool | int) -> SftSettings:
    """Four steps with a constant rate, so that two of them begin a run of four."""
    autocast = "bf16" if bf16 else "none"
    loop = dataclasses.replace(LOOP, autocast=autocast, optimizer=optimizer, accumulation=accumulation)
    return dataclasses.replace(SETTINGS, loop=loop, **settings)


RUNS = {
    "plain": changed(),
    "long": dataclasses.replace(SETTINGS, loop=dataclasses.replace(LOOP, total_steps=12, schedule="cosine")),
    "muon": changed(optimizer="muon"),
    "accumulated": changed(accumulation=2),
    "checkpointed": changed(gradient_checkpointing=True),
    "sharded": changed(sharded=True, accumulation=2, gradient_checkpointing=True),
    "sharded_muon": changed(sharded=True, optimizer="muon"),
    "plain_bf16": changed(bf16=True),
    "sharded_bf16": changed(bf16=True, sharded=True),
}


def make_run(folder: Path, name: str, stop_after: int | None = None) -> Path:
    """One run in `folder/name`, or its first steps in `folder/name_begun`; a run that was begun goes on there."""
    sampled: list[list[float]] = []
    run_dir = folder / (name if stop_after is None else f"{name}_begun")
    model = tiny_model()

    def on_sample(trained: torch.nn.Module, step: int) -> None:
        sampled.append([step, float(sum(parameter.double().sum() for parameter in trained.parameters()))])

    settings = RUNS[name]
    if stop_after is not None:
        loop = dataclasses.replace(settings.loop, total_steps=stop_after)
        settings = dataclasses.replace(settings, loop=loop)
    finished = train(model, tiny_processor(), messages_of, settings, run_dir, on_sample)
    assert finished.done and finished.ema is not None
    if is_main():
        torch.save({"weights": learning_values(model), "ema": finished.ema.values}, run_dir / RESULT)
        (run_dir / "sampled.json").write_text(json.dumps(sampled))
    return run_dir


def start(folder: Path, names: Sequence[str], processes: int) -> None:
    """Makes runs in so many processes that join, and waits for them.

    Raises:
        AssertionError: one of them failed; its last words are in the message.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.training.joint_runs", str(folder), *names]
    started = [
        subprocess.Popen(
            command,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        said = [process.communicate(timeout=900)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, words in zip(started, said, strict=True):
        assert process.returncode == 0, words[-4000:]


def main(arguments: Sequence[str]) -> None:
    torch.set_num_threads(1)
    folder, *names = arguments
    for name in names:
        name, _, steps = name.partition(":")
        make_run(Path(folder), name, int(steps) if steps else None)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
