"""Every case is a parameter of its test; `--fixtures DIR` takes the cases from elsewhere."""

from __future__ import annotations

import pytest

from tests.conftest import CASES_ELSEWHERE
from tests.parity.cases_on_disk import OWN, find_cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test asks for `case` and says by `cases_of(system, *models)` which ones it is for."""
    if "case" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("cases_of")
    assert marker, f"{metafunc.function.__name__} takes a case, so it must be marked with cases_of(system, *models)"
    cases = find_cases(*marker.args, root=metafunc.config.stash.get(CASES_ELSEWHERE, OWN))
    recorded = metafunc.definition.get_closest_marker("recorded")
    if recorded:  # not every case recorded every output; the project's own ones together recorded them all
        cases = [case for case in cases if case.has(recorded.args[0])]
    assert cases or CASES_ELSEWHERE in metafunc.config.stash, f"no case is left for {metafunc.function.__name__}"
    metafunc.parametrize("case", cases, ids=[case.path.stem for case in cases], scope="module")
