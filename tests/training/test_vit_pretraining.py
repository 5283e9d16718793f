"""Sight before speech: a ViT learns cell labels, and goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from training.loop import LoopSettings
from training.vit_pretraining import CellReader, Pictures, SightSettings, cell_loss, train, word_vectors
from vargpt.assistant.model import VARGPT
from vargpt.testing import tiny_model, tiny_processor

WORDS = {"kind": (None, "red", "blue"), "shade": (None, "dark")}
LOOP = LoopSettings(total_steps=60, learning_rate=3e-3, warmup_steps=5, ema_decay=0.0, autocast="none", device="cpu")
SETTINGS = SightSettings(loop=LOOP, batch_size=8, num_workers=0)


def page_of(sample_id: int) -> tuple[Image.Image, dict[str, np.ndarray]]:
    """A white page of 32 px with red (1) or blue (2) cells of 8 px."""
    rng = np.random.default_rng(sample_id)
    kind = rng.integers(0, 3, (4, 4))
    pixels = np.array([[255, 255, 255], [255, 0, 0], [0, 0, 255]], dtype=np.uint8)[kind]
    return Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)), {"kind": kind, "shade": (kind > 0).astype(np.int64)}


def words_of(model: VARGPT) -> dict[str, list[torch.Tensor | None]]:
    return word_vectors(model, tiny_processor(), WORDS)


def test_it_learns_what_stands_in_the_cells(tmp_path) -> None:
    model = tiny_model()
    words = words_of(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert train(model, page_of, words, SETTINGS, tmp_path).done
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["right_kind"] > 0.9 > 0.7 > lines[0]["right_kind"]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("vision") for name in changed)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path) -> None:
    whole, halves = tiny_model(), tiny_model()
    settings = dataclasses.replace(SETTINGS, loop=dataclasses.replace(LOOP, total_steps=6, schedule="constant"))
    half = dataclasses.replace(settings, loop=dataclasses.replace(settings.loop, total_steps=3))
    words = words_of(whole)
    train(whole, page_of, words, settings, tmp_path / "whole")
    train(halves, page_of, words, half, tmp_path / "halves")
    train(tiny_model(), page_of, words, settings, tmp_path / "halves")
    halves = tiny_model()
    assert train(halves, page_of, words, settings, tmp_path / "halves").step == 6
    for name, value in whole.vision.state_dict().items():
        torch.testing.assert_close(halves.vision.state_dict()[name], value)


def test_batches_depend_on_their_number_alone() -> None:
    stream = iter(Pictures(page_of, 4, 0))
    next(stream)
    images, labels = next(stream)
    later_images, later_labels = next(iter(Pictures(page_of, 4, 1)))
    assert torch.equal(images, later_images) and torch.equal(labels["kind"], later_labels["kind"])


def test_several_workers_give_the_batches_of_one() -> None:
    alone = iter(Pictures(page_of, 4, 0))
    together = iter(DataLoader(Pictures(page_of, 4, 0), batch_size=None, num_workers=2))
    for _ in range(4):
        assert torch.equal(next(alone)[0], next(together)[0])


def test_empty_cells_count_less() -> None:
    labels = {"kind": torch.tensor([[0, 0, 1, 2]])}
    logits = torch.zeros(1, 4, 3)
    logits[0, 2, 1] = logits[0, 3, 2] = 20.0  # right where things stand, undecided elsewhere
    loss, metrics = cell_loss({"kind": logits}, labels, 0.1, "kind")
    assert float(loss) == pytest.approx(0.2 / 2.2 * np.log(3), rel=1e-4)
    assert float(metrics["right_kind"]) == 1.0


def test_the_reader_sees_what_the_language_model_hears() -> None:
    model = tiny_model()
    reader = CellReader(model, words_of(model))
    logits = reader(torch.zeros(2, 3, 32, 32))
    assert logits["kind"].shape == (2, 16, 3)


def test_a_cell_that_holds_a_word_is_given_that_class() -> None:
    model = tiny_model()
    words = words_of(model)
    head = CellReader(model, words).heads["kind"]
    red, blue = words["kind"][1:]
    assert red is not None and blue is not None
    assert head(torch.stack((red, blue))).argmax(-1).tolist() == [1, 2]
    assert [name for name, _ in head.named_parameters()] == ["wordless", "scale", "bias"]  # words do not learn
