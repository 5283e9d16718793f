"""Pages that browser tests visit, started once for all of them, and the browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.chat_ui.visitor import FLAGS, Page, Visitor, served

# Many large scales, so that there is time to press Stop.
SLOW_TO_DRAW = {"384x384": [[1, 1], [2, 2], [4, 4], [8, 8], *[[48, 48]] * 8]}
FEW = 6  # tokens


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.fail("there is no Chromium; install it or name it: CHROMIUM=/path/to/chromium")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def tiny_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A model that draws slowly."""
    from vargpt.loading.models import save
    from vargpt.testing import tiny_model, tiny_processor

    folder = tmp_path_factory.mktemp("tiny-page")
    model = tiny_model(scale_schedules=SLOW_TO_DRAW, default_size="384x384")
    save(model, tiny_processor(), folder / "model")
    for page in served(folder, str(folder / "model"), max_tokens=FEW):
        yield page.address


@pytest.fixture(scope="session")
def quick_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A model that draws at once, in several sizes, with an adapter."""
    from tests.loading.test_adapters import make_adapter
    from vargpt.loading.models import model_hash, save
    from vargpt.testing import tiny_model, tiny_processor

    folder = tmp_path_factory.mktemp("quick-page")
    save(tiny_model(), tiny_processor(), folder / "model")
    adapter = make_adapter(folder / "robot", "robot", 1, base_hash=model_hash(folder / "model"))
    yield from served(folder, str(folder / "model"), [adapter], max_tokens=FEW)


@pytest.fixture(scope="session")
def nano_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The shipped model."""
    for page in served(tmp_path_factory.mktemp("nano-page"), ""):
        yield page.address


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Visitor]]:
    visitors: list[Visitor] = []

    def open_page(address: str, **context) -> Visitor:
        visitors.append(Visitor(browser, address, **context))
        return visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.context.close()
        assert visitor.complaints == []
        assert visitor.hosts <= {visitor.page.url.split("/")[2]} | {""}, "the page asked another host"
