"""Whatever our own OpenAPI description allows, and much that it does not, gets an answer or one of OpenAI's errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from starlette.testclient import TestClient

from tests.chat.scripted import drawing_engine
from vargpt.chat.scheduler import Scheduler
from vargpt.serving import answers
from vargpt.serving.server import make_app
from vargpt.serving.settings import Limits, ServeSettings

schemathesis = pytest.importorskip("schemathesis")
pytestmark = pytest.mark.slow

EXAMPLES = 15  # of every endpoint


@pytest.fixture(scope="module")
def schema() -> Iterator[object]:
    scheduler = Scheduler(lambda: drawing_engine())
    app = make_app(ServeSettings(limits=Limits(tokens=16, n=2)), scheduler)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/v1/models").status_code == 200
        yield schemathesis.openapi.from_asgi("/openapi.json", app)
    scheduler.close()


ANSWERS = {
    "/v1/models": answers.ModelsAnswer, "/v1/models/{name}": answers.ModelAnswer, "/health": answers.HealthAnswer,
    "/v1/chat/completions": answers.ChatAnswer, "/v1/images/generations": answers.PicturesAnswer,
    "/v1/images/edits": answers.PicturesAnswer, "/v1/images/variations": answers.PicturesAnswer,
}  # fmt: skip
answered: set[str] = set()  # paths whose answers were held against their description


def check(case: schemathesis.Case) -> None:
    response = case.call()
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        answers.ErrorAnswer.model_validate(response.json())
    elif response.headers["content-type"][0].startswith("application/json"):
        ANSWERS[case.path].model_validate(response.json())
        answered.add(case.path)


def test_every_answer_that_is_described_holds_what_is_said_of_it(schema: object) -> None:
    described = schema.raw_schema["paths"]
    assert set(ANSWERS) <= set(described)
    for path, kind in ANSWERS.items():
        [operation] = described[path].values()
        told = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        assert told.endswith(f"/{kind.__name__}") and {"4XX", "5XX"} <= set(operation["responses"])
    form = described["/v1/images/edits"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["required"]) == {"prompt", "image"} and {"mask", "image[]", "faithfulness"} <= set(
        form["properties"]
    )


def test_no_request_makes_a_server_error(schema: object) -> None:
    # Not by schemathesis' own pytest plugin, which knows no pytest 9.2.
    few = settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 7
    for operation in operations:
        few(given(case=operation.as_strategy())(check))()
    assert answered >= {"/v1/models", "/health", "/v1/images/generations"}, answered
