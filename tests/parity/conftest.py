"""Every case is a parameter of its test; `--fixtures DIR` takes the cases from elsewhere.

`recorded(*outputs)` says which recorded outputs a test compares. It runs on the cases that have the first of them, and
it must have read all of them that its case has: `test_every_output.py` holds these promises against the cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CASES_ELSEWHERE
from tests.parity.cases_on_disk import OWN, Case, find_cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test asks for `case` and says by `cases_of(system, *models)` which ones it is for."""
    if "case" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("cases_of")
    assert marker, f"{metafunc.function.__name__} takes a case, so it must be marked with cases_of(system, *models)"
    elsewhere = getattr(metafunc.config.option, CASES_ELSEWHERE, None)
    cases = find_cases(*marker.args, root=Path(elsewhere) if elsewhere else OWN)
    recorded = metafunc.definition.get_closest_marker("recorded")
    if recorded:  # not every case recorded every output; the project's own ones together recorded them all
        cases = [case for case in cases if case.has(recorded.args[0])]
    assert cases or elsewhere, f"no case is left for {metafunc.function.__name__}"
    metafunc.parametrize("case", cases, ids=[case.path.stem for case in cases], scope="module")


@pytest.fixture(autouse=True)
def what_is_recorded_is_read(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that says that it compares an output must have looked at it."""
    marker = request.node.get_closest_marker("recorded")
    if marker is None:
        yield
        return
    case: Case = request.getfixturevalue("case")
    case.read.clear()
    yield
    unread = {name for pattern in marker.args for name in case.names(pattern)} - case.read
    assert not unread, f"{request.node.name} says that it compares {', '.join(sorted(unread))}, but never read it"
