"""What a client is told when something is wrong: always OpenAI's form, always a sentence, the right status."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from PIL import Image

from tests.chat.scripted import drawing_engine, red_square
from tests.serving.running import PATIENCE, Running, data_url, eventually, png, serving
from vargpt.chat.engine import ChatEngine
from vargpt.serving.settings import Limits, ServeSettings

HELLO = [{"role": "user", "content": "hello"}]
LIMITS = Limits(body_bytes=50_000, pixels=10_000, images=2, n=4, tokens=64)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(ServeSettings(limits=LIMITS)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return server.client()


def shown(url: str, count: int = 1) -> list[dict]:
    """A message with a picture."""
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}] * count}]


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "nano", "messages": HELLO} | fields


URL = "messages.0.content.0.image_url.url"
REFUSED = [  # fields, the field that is blamed, words of the message
    (chat(n=5), "n", "at most 4 choices"),
    (chat(n=99), "n", "less than or equal to 16"),
    (chat(max_tokens=65), "max_tokens", "at most 64"),
    (chat(max_tokens=0), "max_tokens", "greater than or equal to 1"),
    (chat(temperature=-1), "temperature", "greater than or equal to 0"),
    (chat(top_p=0), "top_p", "greater than 0"),
    (chat(seed=-1), "seed", "greater than or equal to 0"),
    (chat(seed=2**31), "seed", "less than or equal to 2147483647"),
    (chat(extra_body={"size": "33x33"}), "size", "choose one of 32x32"),
    (chat(extra_body={"size": "big"}), "size", "WIDTHxHEIGHT"),
    (chat(extra_body={"guidance_scale": -0.5}), "guidance_scale", "greater than or equal to 0"),
    (chat(extra_body={"guidance": 2}), "guidance", "did you mean 'guidance_scale'"),
    (chat(extra_body={"negative_prompt": "cats"}), "negative_prompt", "knows no negative prompts"),
    (chat(extra_body={"adapter": "foxes"}), "adapter", "no adapter 'foxes'"),
    (chat(extra_body={"keep_scales": 2}), "keep_scales", "no picture|there is none"),
    (chat(extra_body={"modalities": ["audio"]}), "modalities.0", "'text' or 'image'"),
    (chat(tools=[{"type": "function", "function": {"name": "f"}}]), "tools", "calls no tools"),
    (chat(stop=["."]), "stop", "leave it away"),
    (chat(messages=[]), "messages", "at least 1 item"),
    (chat(messages=[*HELLO, {"role": "assistant", "content": "hi"}]), "messages", "ends with a user message"),
    (chat(messages=[{"role": "user", "content": "  "}]), "messages", "is empty"),
    (chat(messages=[{"role": "tool", "content": "x", "tool_call_id": "1"}]), "messages.0.role", "calls no tools"),
    (chat(messages=shown("https://example.com/a.png")), URL, "fetches no pictures from example.com"),
    (chat(messages=shown("file:///etc/passwd")), URL, "data:image/png"),
    (chat(messages=shown("data:image/png;base64,%%%")), URL, "valid base64"),
    (chat(messages=shown("data:image/png;base64,bm8=")), URL, "not a picture"),
    (chat(messages=shown(data_url(Image.new("RGB", (101, 100))))), URL, "more than the 10,000 allowed"),
    (chat(messages=shown(data_url(red_square()), 3)), "messages", "3 pictures; this server takes 2"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param", "words"), REFUSED, ids=[f"{param}-{n}" for n, (_, param, _) in enumerate(REFUSED)]
)
def test_what_cannot_be_is_refused_by_name(client: openai.OpenAI, fields: dict, param: str, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words) as caught:
        client.chat.completions.create(**fields)
    assert caught.value.param == param and caught.value.type == "invalid_request_error" and caught.value.code


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    for ask in (
        lambda: client.chat.completions.create(model="gpt-5", messages=HELLO),
        lambda: client.images.generate(model="gpt-image-1", prompt="a fox"),
        lambda: client.models.retrieve("gpt-5"),
    ):
        with pytest.raises(openai.NotFoundError, match="there is nano") as caught:
            ask()
        assert caught.value.code == "model_not_found" and caught.value.param == "model"


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert model.id == "nano" == client.models.retrieve("nano").id


def test_every_wrong_address_method_and_body_is_answered_in_one_form(server: Running) -> None:
    json = {"content-type": "application/json"}
    replies = [
        (404, server.get("/v1/nothing")),
        (404, server.get("/")),
        (405, server.get("/v1/chat/completions")),
        (400, server.post("/v1/chat/completions")),
        (400, server.post("/v1/chat/completions", content=b"{", headers=json)),
        (400, server.post("/v1/chat/completions", content=b"[]", headers=json)),
        (400, server.post("/v1/chat/completions", content=b"\xff\xfe", headers=json)),
        (400, server.post("/v1/images/edits", content=b"x", headers={"content-type": "multipart/form-data"})),
    ]
    for status, reply in replies:
        assert reply.status_code == status, reply.text
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert reply.json()["error"]["message"].endswith(".") and reply.headers["x-request-id"].startswith("req_")


def test_a_body_that_is_too_large_is_not_read(server: Running, client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="more than the 50,000 bytes") as caught:
        client.chat.completions.create(model="nano", messages=[{"role": "user", "content": "x" * 60_000}])
    assert caught.value.status_code == 413


@pytest.mark.parametrize("path", ["chat/completions", "images/edits"])
def test_a_body_of_no_announced_length_is_read_no_further_than_allowed(server: Running, path: str) -> None:
    boundary = "multipart/form-data; boundary=b"
    head = b'--b\r\ncontent-disposition: form-data; name="image"; filename="x"\r\n\r\n'
    chunks = (head if number == 0 else b"x" * 1000 for number in range(100))
    kind = boundary if path == "images/edits" else "application/json"
    reply = server.post(f"/v1/{path}", content=chunks, headers={"content-type": kind})
    assert reply.status_code == 413 and reply.json()["error"]["code"] == "request_too_large", reply.text


def test_a_conversation_that_is_too_long_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="nano", messages=[{"role": "user", "content": "ab" * 2000}])
    assert caught.value.code == "context_length_exceeded"


def test_pictures_are_fetched_from_hosts_that_are_allowed_and_no_further() -> None:
    with file_server(png(red_square())) as port, serving(ServeSettings(url_hosts=("127.0.0.1",))) as server:
        fields = chat(max_tokens=4, extra_body={"modalities": ["text"]})
        seen = server.client().chat.completions.create(**fields | {"messages": shown(f"http://127.0.0.1:{port}/a.png")})
        assert seen.usage.prompt_tokens_details.image_tokens == 16
        for path, words in (("away", "could not be fetched"), ("none", "could not be fetched")):
            with pytest.raises(openai.BadRequestError, match=words):
                server.client().chat.completions.create(
                    **fields | {"messages": shown(f"http://127.0.0.1:{port}/{path}")}
                )


@contextmanager
def file_server(content: bytes) -> Iterator[int]:
    """A web server with one picture, an address that leads elsewhere, and nothing more."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response({"/a.png": 200, "/away": 302}.get(self.path, 404))
            self.send_header("location", "/a.png")
            self.end_headers()
            if self.path == "/a.png":
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_who_has_no_key_is_sent_away_and_may_still_ask_how_it_goes() -> None:
    with serving(ServeSettings(api_keys=("first", "second"))) as server:
        for key in ("first", "second"):
            assert [model.id for model in server.client(key).models.list()] == ["nano"]
        for ask in (
            lambda: server.client("third").models.list(),
            lambda: server.client("third").images.generate(prompt="a fox"),
        ):
            with pytest.raises(openai.AuthenticationError, match="not known") as caught:
                ask()
            assert caught.value.code == "invalid_api_key"
        without = server.get("/v1/models")
        assert without.status_code == 401 and without.json()["error"]["code"] == "missing_api_key"
        assert server.get("/health").json()["status"] == "loading"
        assert 'vargpt_requests_total{route="other",status="401"}' in server.get("/metrics").text


class Gate:
    """A model that is not there before the gate is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def load(self) -> ChatEngine:
        assert self.opened.wait(PATIENCE)
        return drawing_engine()


def test_a_full_queue_says_when_to_come_again() -> None:
    gate = Gate()
    with serving(load=gate.load, max_waiting=1) as server:
        asking = [threading.Thread(target=lambda: server.client().images.generate(prompt="a fox")) for _ in range(2)]
        for number, thread in enumerate(asking):
            thread.start()
            eventually(
                lambda number=number: server.scheduler.load.running + server.scheduler.load.waiting == number + 1
            )
        with pytest.raises(openai.RateLimitError, match="waiting already") as caught:
            server.client().images.generate(prompt="a fox")
        assert int(caught.value.response.headers["retry-after"]) > 0 and caught.value.code == "queue_full"
        with pytest.raises(openai.RateLimitError):
            server.client().chat.completions.create(model="nano", messages=HELLO, stream=True)
        assert server.metric("vargpt_queue_waiting") == 1
        gate.opened.set()
        for thread in asking:
            thread.join(PATIENCE)
        assert server.metric("vargpt_pictures_total") == 2


def test_a_request_ends_when_its_time_is_over() -> None:
    gate = Gate()
    with serving(ServeSettings(limits=Limits(seconds=0.2)), gate.load) as server:
        with pytest.raises(openai.APIStatusError, match="longer than this server allows") as caught:
            server.client().images.generate(prompt="a fox")
        assert caught.value.status_code == 504 and caught.value.code == "timeout"
        gate.opened.set()


def test_a_model_that_cannot_be_loaded_is_said_so() -> None:
    def load() -> ChatEngine:
        raise FileNotFoundError("there is no model in that folder")

    with serving(load=load) as server, pytest.raises(openai.APIStatusError, match="no model in that folder") as caught:
        server.client().images.generate(prompt="a fox")
    assert caught.value.status_code == 503 and caught.value.code == "model_not_loaded"


def test_what_breaks_inside_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def load() -> ChatEngine:
        raise KeyError("a secret of the inside")

    with serving(load=load) as server, pytest.raises(openai.InternalServerError) as caught:
        server.client().images.generate(prompt="a fox")
    assert caught.value.code == "internal_error" and "secret" not in str(caught.value)
    assert "a secret of the inside" in caplog.text


def test_before_the_model_is_there_a_wrong_size_is_still_blamed() -> None:
    with serving() as server, pytest.raises(openai.BadRequestError, match="choose one of") as caught:
        server.client().images.generate(prompt="a fox", size="31x31")
    assert caught.value.param == "size"
