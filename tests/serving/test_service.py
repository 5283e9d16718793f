"""Clients that leave, hooks that judge and sign, adapters as models, and what the server remembers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from tests.chat.scripted import ask, drawing_engine, force, ids_of, ord_of, red_square
from tests.loading.test_adapters import BASE, make_adapter
from tests.serving.running import PATIENCE, data_url, eventually, picture_of, png, serving
from vargpt.chat.engine import ChatEngine
from vargpt.serving.picture_store import Gallery
from vargpt.serving.settings import Limits, ServeSettings
from vargpt.testing import tiny_model, tiny_processor
from vargpt.types import ImagePart

HELLO = [{"role": "user", "content": "hello"}]

# Clients that leave


def babbling_engine() -> ChatEngine:
    """Says "okokok..." without an end, and slowly."""
    processor = tiny_processor()
    o, k = ids_of(processor, "ok")
    model = force(tiny_model(), {ord_of(processor, "\n"): o, o: k, k: o})
    extend = model.extend

    def slowly(*args: Any, **options: Any) -> Any:
        time.sleep(0.05)
        return extend(*args, **options)

    model.extend = slowly  # type: ignore[method-assign]
    return ChatEngine(model, processor)


TALK = {"model": "nano", "messages": HELLO, "max_tokens": 900}


def test_a_client_that_leaves_a_stream_ends_its_turn() -> None:
    with serving(load=babbling_engine) as server:
        tickets = server.scheduler.tickets
        stream = server.client().chat.completions.create(**TALK, stream=True)
        next(iter(stream))
        assert not tickets[0].cancelled.is_set()
        stream.close()
        eventually(tickets[0].cancelled.is_set)
        eventually(lambda: server.scheduler.load.running == 0)
        assert server.metric("vargpt_pictures_total") == 0


def test_a_client_that_leaves_while_it_waits_ends_its_turns() -> None:
    body = TALK | {"n": 2}
    with serving(load=babbling_engine) as server:
        tickets = server.scheduler.tickets
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=httpx2.Timeout(PATIENCE, read=0.5))
        eventually(lambda: len(tickets) == 2 and all(ticket.cancelled.is_set() for ticket in tickets))
        eventually(lambda: server.metric('vargpt_requests_total{route="/v1/chat/completions",status="499"}') == 1)
        eventually(lambda: server.scheduler.load.running == 0)


def test_a_stream_whose_time_is_over_ends_with_an_error() -> None:
    with serving(ServeSettings(limits=Limits(seconds=3)), babbling_engine) as server:
        server.scheduler.warm_up()
        eventually(lambda: server.scheduler.engine is not None)
        stream = server.client().chat.completions.create(**TALK, stream=True)
        with pytest.raises(openai.APIError, match="longer than this server allows"):
            list(stream)


# Hooks


class Strict:
    """Wants no foxes, and no pictures that are all red."""

    def check_prompt(self, text: str) -> str | None:
        return "No foxes here." if "fox" in text else None

    def check_image(self, image: Image.Image) -> str | None:
        return "Too red." if image.getextrema() == red_square().getextrema() else None


class Blind(Strict):
    """Wants no pictures at all."""

    def check_image(self, image: Image.Image) -> str | None:
        return "No pictures here."


def refused(ask: Callable[[], Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words) as caught:
        ask()
    assert caught.value.code == "content_policy_violation"


def test_what_the_safety_check_refuses_is_not_drawn() -> None:
    with serving(ServeSettings(safety=Strict())) as server:
        client = server.client()
        refused(lambda: client.images.generate(prompt="a fox"), "No foxes")
        history = [{"role": "user", "content": "a fox"}, {"role": "assistant", "content": "no"}, *HELLO]
        refused(lambda: client.chat.completions.create(model="nano", messages=history), "No foxes")
        refused(lambda: client.images.edit(image=png(red_square()), prompt="make it blue"), "Too red")
        assert server.scheduler.engine is None  # nothing reached the model so far
        assert picture_of(client.images.generate(prompt="a cat").data[0].b64_json).size == (32, 32)


def test_a_drawn_picture_that_is_refused_is_not_shown() -> None:
    with serving(ServeSettings(safety=Blind())) as server:
        client = server.client()
        refused(lambda: client.images.generate(prompt="a cat"), "No pictures")
        refused(lambda: list(client.images.generate(prompt="a cat", stream=True, partial_images=1)), "No pictures")
        with pytest.raises(openai.APIError, match="No pictures"):  # here words came first
            list(client.chat.completions.create(model="nano", messages=HELLO, stream=True))
        assert server.metric("vargpt_pictures_total") == 0


def test_a_signature_has_the_last_word_on_the_file() -> None:
    seen: list[dict[str, Any]] = []

    def sign(file: bytes, details: dict[str, Any]) -> bytes:
        seen.append(details)
        return file + b"signed"

    with serving(ServeSettings(sign=sign)) as server:
        reply = server.client().images.generate(prompt="a cat", response_format="url", extra_body={"seed": 4})
        assert server.get(reply.data[0].url.removeprefix(server.url)).content.endswith(b"signed")
    assert seen[0]["prompt"] == "a cat" and seen[0]["seed"] == 4 and seen[0]["model_hash"] == "0123abcd"


# Adapters


def test_adapters_are_models_of_their_own(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "crayon", "crayon", seed=1)

    def load() -> ChatEngine:
        engine = ChatEngine(tiny_model(), tiny_processor(), "tiny", BASE)
        engine.adapters.default = (engine.adapters.load(folder),)  # as ChatEngine.load leaves it
        return engine

    def drawn(**fields: Any) -> str:
        reply = client.images.generate(
            prompt="a cat", **fields | {"extra_body": {"seed": 4} | fields.get("extra_body", {})}
        )
        return picture_of(reply.data[0].b64_json).tobytes().hex()

    with serving(ServeSettings(name="tiny", load={"adapters": [str(folder)]}), load) as server:
        client = server.client()
        assert [model.id for model in client.models.list()] == ["tiny", "tiny:crayon"]
        plain, crayon = drawn(model="tiny"), drawn(model="tiny:crayon")
        assert plain != crayon
        assert drawn() == plain == drawn(model="tiny:crayon", extra_body={"adapter": []})
        assert drawn(extra_body={"adapter": "crayon"}) == crayon == drawn(model="tiny", extra_body={"lora": ["crayon"]})
        with pytest.raises(openai.BadRequestError, match="there are: crayon"):
            drawn(extra_body={"adapter": "robot"})
        with pytest.raises(openai.NotFoundError, match="tiny, tiny:crayon"):
            drawn(model="tiny:robot")


# What is remembered


@pytest.fixture(scope="module")
def part() -> ImagePart:
    return drawing_engine().reply(ask()).message.images[0]


def test_a_remembered_picture_is_found_by_its_pixels_with_its_exact_tokens(part: ImagePart) -> None:
    gallery = Gallery(60, 10**6)
    name = gallery.keep(part, b"file")
    assert gallery.file(name) == b"file" and gallery.file("another") is None
    found = gallery.recall(part.image.copy())
    assert found.tokens == part.tokens and found.seed == part.seed and found.image.size == part.image.size
    assert gallery.recall(red_square()).tokens is None


def test_pictures_are_forgotten_when_they_are_old_or_too_many(part: ImagePart) -> None:
    short = Gallery(0.05, 10**6)
    name = short.keep(part, b"file")
    time.sleep(0.1)
    assert short.file(name) is None and short.recall(part.image).tokens is None
    small = Gallery(60, 1)
    first = small.keep(part, b"first")
    second = small.keep(replace(part, image=red_square()), b"second")
    assert small.file(first) is None and small.file(second) == b"second"


def test_an_upload_is_seen_even_where_nothing_is_remembered() -> None:
    with serving(ServeSettings(keep_seconds=0.001)) as server:
        parts = [{"type": "image_url", "image_url": {"url": data_url(red_square())}}]
        reply = server.client().chat.completions.create(
            model="nano",
            messages=[{"role": "user", "content": parts}],
            max_tokens=4,
            extra_body={"modalities": ["text"]},
        )
        assert reply.usage.prompt_tokens_details.image_tokens == 16
