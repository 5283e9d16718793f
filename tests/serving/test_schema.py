"""Whatever our own OpenAPI description allows, and much that it does not, gets an answer or one of OpenAI's errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from starlette.testclient import TestClient

from tests.chat.scripted import drawing_engine
from vargpt.chat.scheduler import Scheduler
from vargpt.serving.app import make_app
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


def check(case: schemathesis.Case) -> None:
    response = case.call()
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


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
