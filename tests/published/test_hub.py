"""The published checkpoints themselves, by hub id, through the code that users run: `pytest -m hub`.

What is downloaded (into the cache of huggingface_hub, once): a few small files for `doctor`; for Infinity 125M its
transformer and autoencoder (about 1 GB) and FLAN-T5-XL (about 11 GB); for VARGPT-v1.1 about 22 GB, which on a CPU also
take 22 GB of memory.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from vargpt.chat.engine import ChatEngine
from vargpt.commands.cli import app
from vargpt.loading.hub import fetch
from vargpt.published.families import find_published, load_text_to_image
from vargpt.text_to_image.pipeline import TextToImage
from vargpt.types import ChatRequest, Message, TextSampling

pytestmark = pytest.mark.hub

VARGPT_V1_1, INFINITY = "VARGPT-family/VARGPT-v1.1", "FoundationVision/Infinity"
GREEDY = TextSampling(temperature=0.0)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def infinity() -> TextToImage:
    return load_text_to_image(INFINITY, "125m", device=DEVICE)


@pytest.fixture(scope="module")
def engine() -> ChatEngine:
    return ChatEngine.load(VARGPT_V1_1, device=DEVICE, dtype="bfloat16")


def draw(model: TextToImage, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
    *_, last = model.draw(prompts, seeds)
    return model.pictures(last.tokens)


def red_circle() -> Image.Image:
    picture = Image.new("RGB", (448, 448), "white")
    ImageDraw.Draw(picture).ellipse((100, 100, 348, 348), fill="red")
    return picture


def test_doctor_estimates_the_published_model_without_its_weights() -> None:
    result = CliRunner().invoke(app, ["doctor", "--model", VARGPT_V1_1], terminal_width=200)
    assert result.exit_code == 0, result.output
    assert "10,6" in result.output and "M parameters" in result.output


def test_only_the_files_of_one_variant_are_fetched() -> None:
    found = find_published(INFINITY, "125m")
    assert found is not None
    folder = fetch(INFINITY, found.variant.patterns, "")
    assert (folder / found.variant.weights).is_file()
    assert any((folder / file).is_file() for file in found.variant.autoencoder)


def test_the_smallest_infinity_draws_what_the_prompt_says(infinity) -> None:
    """Plain colours fill the picture; weights in the wrong places would leave noise that ignores the prompt."""
    red, blue = draw(infinity, ["a plain bright red wall", "a clear blue sky without clouds"], [1, 2])
    assert red.size == blue.size == (256, 256)
    red_rgb, blue_rgb = (np.asarray(picture, dtype=float).mean((0, 1)) for picture in (red, blue))
    assert red_rgb.argmax() == 0 and red_rgb[0] > red_rgb[2] + 40
    assert blue_rgb.argmax() == 2 and blue_rgb[2] > blue_rgb[0] + 20


def test_the_smallest_infinity_draws_the_same_picture_from_the_same_seed(infinity) -> None:
    first, again, other = (draw(infinity, ["a lighthouse"], [seed])[0] for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_vargpt_v1_1_sees_a_picture(engine) -> None:
    question = Message.of("user", red_circle(), "Which shape is it, and which colour? Answer in one sentence.")
    answer = engine.reply(ChatRequest(messages=(question,), route="text", text_sampling=GREEDY)).message.text.lower()
    assert "red" in answer and "circle" in answer


def test_vargpt_v1_1_recognises_what_it_has_drawn(engine) -> None:
    request = Message.of("user", "Please draw a photo of one ripe banana on a white table.")
    turn = engine.reply(ChatRequest(messages=(request,), route="image", seed=1))
    (drawn,) = turn.message.images
    question = Message.of("user", drawn.image, "Which fruit is it? Answer in one word.")
    answer = engine.reply(ChatRequest(messages=(question,), route="text", text_sampling=GREEDY))
    assert "banana" in answer.message.text.lower()
