"""Sight before speech: the ViT learns to name what stands in each cell, in the words of its language model.

In: a VARGPT, a stream of pictures with class numbers per cell (`data_recipes/storybook/cells.py`) and the words of the
classes. Out: its ViT, trained in place, and the run directory of `training.loop`. A published ViT has learnt to see
from hundreds of millions of pictures before a language model listens to it; one that starts from noise and is taught
only through the few words of an answer hardly learns at all. Sixty-four cells with six labels each say far more per
picture.

Shape legend: I pictures, M cells of a picture, D LLM width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.cpu.matmul_attention import use_matmul_attention
from training.distributed import join
from training.loop import Finished, LoopSettings, run
from training.supervised import to_pixels
from vargpt.assistant.model import VARGPT
from vargpt.assistant.processor import VargptProcessor
from vargpt.assistant.vision import patchify, picture_features

Labels = Mapping[str, np.ndarray]  # class numbers "h w" by the name of what is told apart
MakePicture = Callable[[int], tuple[Image.Image, Labels]]
Batch = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class SightSettings:
    """How long and on how many pictures at once. Cells in which nothing stands count `empty_weight` as much."""

    loop: LoopSettings
    batch_size: int = 64
    empty_weight: float = 0.1
    num_workers: int = 1


class WordHead(nn.Module):
    """Scores of classes by how much of their words a feature holds.

    The words are those of the language model, and do not learn here: what the ViT comes to say of a cell is then
    already said in them, and the language model has only to repeat it. Classes without a word learn a vector.
    """

    words: Tensor

    def __init__(self, words: Sequence[Tensor | None], width: int) -> None:
        super().__init__()
        directions = [torch.zeros(width) if word is None else F.normalize(word.float(), dim=0) for word in words]
        self.register_buffer("words", torch.stack(directions), persistent=False)
        self.wordless = nn.Parameter(torch.zeros(len(words), width))
        self.register_buffer("has_word", torch.tensor([word is not None for word in words]), persistent=False)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.zeros(len(words)))

    def forward(self, features: Tensor) -> Tensor:
        """Features "... D" to scores "... classes"."""
        directions = torch.where(self.has_word[:, None], self.words, self.wordless)
        return self.scale * F.linear(features, directions.to(features.dtype)) + self.bias


class CellReader(nn.Module):
    """The ViT of a VARGPT as its language model hears it, and a head of words per question."""

    def __init__(self, model: VARGPT, words: Mapping[str, Sequence[Tensor | None]]) -> None:
        super().__init__()
        self.vision, self.vision_norm = model.vision, model.vision_norm
        width = model.config.text_config.hidden_size
        self.heads = nn.ModuleDict({name: WordHead(classes, width) for name, classes in words.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Pixels "I 3 H W" in [-1, 1] to logits "I M classes"."""
        patches, grid = patchify(pixels, self.vision.config)
        features = self.vision_norm(picture_features(self.vision, patches, grid)).unflatten(0, (len(pixels), -1))
        return {name: head(features) for name, head in self.heads.items()}


class Pictures(IterableDataset):
    """Batches of pictures and labels from a given step on; batch i depends on i alone."""

    def __init__(self, make_picture: MakePicture, batch_size: int, start_step: int) -> None:
        self.make_picture, self.batch_size, self.start_step = make_picture, batch_size, start_step

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for step in itertools.count(self.start_step + number, workers):  # loaders take from their workers in turn
            first = step * self.batch_size
            pairs = [self.make_picture(index) for index in range(first, first + self.batch_size)]
            images = torch.from_numpy(np.stack([np.asarray(picture) for picture, _ in pairs])).permute(0, 3, 1, 2)
            labels = {
                name: torch.from_numpy(np.stack([labels[name].reshape(-1) for _, labels in pairs]))
                for name in pairs[0][1]
            }
            yield images.contiguous(), labels


def cell_loss(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], empty_weight: float, occupied: str
) -> tuple[Tensor, dict[str, Any]]:
    """Mean cross-entropy over questions and (weighed) cells in nats, and the share of right answers where things stand.

    `occupied` names the question whose class 0 means that nothing stands in a cell.
    """
    filled = labels[occupied] > 0
    weight = torch.where(filled, 1.0, empty_weight)
    weight = weight / weight.sum()
    total, metrics = torch.zeros(()), {}
    for name, scores in logits.items():
        losses = F.cross_entropy(scores.float().transpose(1, 2), labels[name], reduction="none")
        total = total + (losses * weight).sum()
        metrics[f"right_{name}"] = (scores.argmax(-1) == labels[name])[filled].float().mean()
    return total / len(logits), metrics


@torch.no_grad()
def word_vectors(
    model: VARGPT, processor: VargptProcessor, words: Mapping[str, Sequence[str | None]]
) -> dict[str, list[Tensor | None]]:
    """Each word as the language model holds it: the mean of its tokens, less what all tokens have in common."""
    table = model.get_input_embeddings().weight.detach()
    common = table.mean(0)

    def vector(word: str | None) -> Tensor | None:
        return None if word is None else table[processor.text_ids(f" {word}")].mean(0) - common

    return {name: [vector(word) for word in classes] for name, classes in words.items()}


def train(
    model: VARGPT,
    make_picture: MakePicture,
    words: Mapping[str, Sequence[Tensor | None]],
    settings: SightSettings,
    run_dir: Path,
    occupied: str = "kind",
) -> Finished:
    """Trains the ViT of `model` in place; continues from the last checkpoint in `run_dir`. The heads stay in
    checkpoints only.

    `words` holds a vector, or None, for every class number of every label (`word_vectors`).
    """
    torch.manual_seed(settings.loop.seed)
    if join(settings.loop.device).type == "cpu":
        use_matmul_attention(model)
    reader = CellReader(model, words)

    def batches(start_step: int) -> Iterator[Batch]:
        stream = Pictures(make_picture, settings.batch_size, start_step)
        workers = settings.num_workers
        return iter(DataLoader(stream, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None))

    def losses(module: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Any]]:
        images, labels = batch
        loss, sums = cell_loss(module(to_pixels(images)), labels, settings.empty_weight, occupied)
        return loss, sums | {"samples": torch.tensor(float(len(images)))}

    return run(settings.loop, reader, losses, batches, run_dir)
