"""A second client that people use: LangChain's chat model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from tests.chat.scripted import red_square
from tests.serving.running import PATIENCE, data_url, serving


@pytest.fixture(scope="module")
def model() -> Iterator[ChatOpenAI]:
    with serving() as server:
        yield ChatOpenAI(
            model="nano",
            base_url=f"{server.url}/v1",
            api_key="any",
            timeout=PATIENCE,
            max_retries=0,
            max_tokens=8,
            seed=5,
        )


def test_it_reads_a_reply(model: ChatOpenAI) -> None:
    reply = model.invoke([SystemMessage("be brief"), HumanMessage("draw a fox"), AIMessage("ok"), HumanMessage("more")])
    assert reply.content == "ok!" and reply.response_metadata["finish_reason"] == "stop"
    assert reply.usage_metadata["output_tokens"] == 24


def test_it_streams(model: ChatOpenAI) -> None:
    chunks = list(model.stream("draw a fox"))
    assert [chunk.content for chunk in chunks if chunk.content] == ["o", "k", "!"]


def test_it_shows_pictures(model: ChatOpenAI) -> None:
    parts = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": data_url(red_square())}},
    ]
    seen = model.bind(modalities=["text"]).invoke([HumanMessage(content=parts)])
    alone = model.bind(modalities=["text"]).invoke([HumanMessage(content=parts[:1])])
    assert seen.usage_metadata["input_tokens"] - alone.usage_metadata["input_tokens"] == 18
