"""No recorded output is left aside: each one is compared by a test that says so."""

from __future__ import annotations

from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from pluggy import HookImpl

from tests import conftest
from tests.parity.cases_on_disk import OWN, find_cases

MODULES = [path.stem for path in Path(__file__).parent.glob("test_*.py")]


def promised(system: str, *models: str) -> set[str]:
    """The outputs that the tests of these cases say they compare."""
    names: set[str] = set()
    for module in map(import_module, (f"tests.parity.{stem}" for stem in MODULES)):
        cases_of = getattr(module, "pytestmark", None)
        if cases_of is None or cases_of.args != (system, *models):
            continue
        for value in vars(module).values():
            marks = getattr(value, "pytestmark", [])
            names |= {name for mark in marks if mark.name == "recorded" for name in mark.args}
    return names


def test_every_recorded_output_is_compared() -> None:
    for system, *models in (("vargpt", "model"), ("infinity", "vae", "infinity"), ("infinity", "vae")):
        cases, patterns = find_cases(system, *models, root=OWN), promised(system, *models)
        assert cases
        for case in cases:
            left = [name for name in case.recorded if not any(fnmatch(name, pattern) for pattern in patterns)]
            assert not left, f"{case.path.stem}: no test compares {', '.join(left)}"


def test_no_test_compares_what_was_never_recorded() -> None:
    for system, *models in (("vargpt", "model"), ("infinity", "vae", "infinity"), ("infinity", "vae")):
        recorded = {name for case in find_cases(system, *models, root=OWN) for name in case.recorded}
        patterns = promised(system, *models)
        assert all(any(fnmatch(name, pattern) for name in recorded) for pattern in patterns), patterns


def test_cases_from_elsewhere_are_taken_before_pytest_lists_its_fixtures(pytestconfig) -> None:
    """`pytest tests/parity --fixtures DIR`: pytest has a flag of that name, which lists fixtures and runs nothing."""
    config = SimpleNamespace(option=SimpleNamespace(showfixtures=True), args=["tests/parity", str(OWN / "infinity")])
    conftest.pytest_cmdline_main(config)
    assert config.args == ["tests/parity"] and not config.option.showfixtures
    assert getattr(config.option, conftest.CASES_ELSEWHERE) == str(OWN / "infinity")
    called = [implementation.function.__module__ for implementation in order_of_calls(pytestconfig)]
    assert called.index(conftest.__name__) < called.index("_pytest.fixtures"), called


def order_of_calls(config: pytest.Config) -> list[HookImpl]:
    return config.hook.pytest_cmdline_main.get_hookimpls()[::-1]
