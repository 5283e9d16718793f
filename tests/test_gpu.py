"""On a CUDA GPU nano answers as it does on a CPU: `pytest -m gpu`."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from torch.testing import assert_close

from vargpt.chat.engine import ChatEngine
from vargpt.types import ChatRequest, ImageTokens, Message, TextSampling

pytestmark = pytest.mark.gpu

REQUESTS = [Message.of("user", f"draw a {thing}") for thing in ("fox at night", "red car", "cat next to a pine tree")]
CHANGED_BITS = 0.02  # the share that other roundings may change: a bit on the edge, and what is drawn on top of it


@pytest.fixture(scope="module", autouse=True)
def exact_products() -> None:
    """A GPU multiplies float32 in 19 bits where it may."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(scope="module")
def on_cpu() -> ChatEngine:
    return ChatEngine.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def on_gpu() -> ChatEngine:
    return ChatEngine.load(device="cuda", dtype="float32")


def drawn(engine: ChatEngine, message: Message) -> ImageTokens:
    turn = engine.reply(ChatRequest(messages=(message,), route="image", seed=7))
    (picture,) = turn.message.images
    assert picture.tokens is not None
    return picture.tokens


def changed_bits(engines: tuple[ChatEngine, ChatEngine]) -> float:
    shares = []
    for message in REQUESTS:
        ours, theirs = (drawn(engine, message).flat().cpu() for engine in engines)
        shares.append((ours != theirs).float().mean().item())
    return sum(shares) / len(shares)


def test_nano_draws_the_bits_that_it_draws_on_a_cpu(on_cpu, on_gpu) -> None:
    assert on_gpu.device.type == "cuda"
    assert changed_bits((on_cpu, on_gpu)) <= CHANGED_BITS


def test_nano_says_what_it_says_on_a_cpu(on_cpu, on_gpu) -> None:
    question = Message.of("user", "what can you draw?")
    request = ChatRequest(messages=(question,), route="text", text_sampling=TextSampling(temperature=0.0))
    assert on_gpu.reply(request).message.text == on_cpu.reply(request).message.text != ""


@torch.no_grad()
def test_logits_of_a_prompt_are_those_of_a_cpu(on_cpu, on_gpu) -> None:
    logits = []
    for engine in (on_cpu, on_gpu):
        inputs = engine.processor.encode([[REQUESTS[0]]], engine.model)
        logits.append(engine.model.extend(None, **inputs).logits.cpu())
    assert_close(*logits, atol=1e-3, rtol=1e-3)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """torch.compile cannot follow the checks of shapes that the test suite adds to every call."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_a_compiled_generator_draws_what_the_plain_one_draws(on_gpu, unchecked_shapes) -> None:
    compiled = ChatEngine.load(device="cuda", dtype="float32", compiled=True)
    assert changed_bits((on_gpu, compiled)) <= CHANGED_BITS


def test_layers_that_wait_in_main_memory_draw_exactly_the_same(on_gpu) -> None:
    away = ChatEngine.load(device="cuda", dtype="float32", offload=True)
    assert all(parameter.is_meta for parameter in away.model.language_model.layers[0].parameters())
    assert changed_bits((on_gpu, away)) == 0.0
