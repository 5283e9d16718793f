"""The shipped model behind the real client: what it draws, sees, changes and varies, over the wire."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import openai
import pytest
from PIL import Image

from tests.serving.running import Running, data_url, picture_of, png, serving
from vargpt.chat.engine import ChatEngine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(load=ChatEngine.load) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return server.client(timeout=600)


def drawn(client: openai.OpenAI, prompt: str = "Draw a fox next to a pine tree at night", seed: int = 7) -> Image.Image:
    return picture_of(client.images.generate(prompt=prompt, extra_body={"seed": seed}).data[0].b64_json).convert("RGB")


def test_a_conversation_draws_and_then_answers_about_the_picture(client: openai.OpenAI) -> None:
    history = [{"role": "user", "content": "Draw three red balloons over a house"}]
    first = client.chat.completions.create(model="nano", messages=history, seed=7).choices[0].message
    assert "balloon" in first.content and picture_of(first.images[0]["image_url"]["url"]).size == (64, 64)
    history += [
        {"role": "assistant", "content": first.content, "images": first.images},
        {"role": "user", "content": "What colour are the balloons?"},
    ]
    second = client.chat.completions.create(model="nano", messages=history, seed=7).choices[0].message
    assert "red" in second.content and not second.images


def test_an_uploaded_picture_is_described(client: openai.OpenAI) -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(drawn(client))}},
        {"type": "text", "text": "What is in this picture?"},
    ]
    reply = client.chat.completions.create(model="nano", messages=[{"role": "user", "content": parts}])
    assert "fox" in reply.choices[0].message.content


def test_an_edit_says_what_the_picture_will_show_and_changes_it(client: openai.OpenAI) -> None:
    before = drawn(client, "Draw three red balloons over a house")
    reply = client.images.edit(image=png(before), prompt="Make the balloons blue", extra_body={"seed": 7})
    after = picture_of(reply.data[0].b64_json).convert("RGB")
    assert "blue balloons" in reply.data[0].revised_prompt and after.size == (64, 64)
    assert np.abs(np.asarray(after, float) - np.asarray(before, float)).mean() > 1


def test_variations_are_pictures_that_differ_from_one_another(client: openai.OpenAI) -> None:
    reply = client.images.create_variation(image=png(drawn(client)), n=3, extra_body={"seed": 1})
    pictures = [picture_of(image.b64_json) for image in reply.data]
    assert {picture.size for picture in pictures} == {(64, 64)}
    assert len({picture.tobytes() for picture in pictures}) == 3
