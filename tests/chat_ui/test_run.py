"""How the page is started."""

from __future__ import annotations

import json
import socket
from functools import reduce
from pathlib import Path

import pytest

from chat_ui.run import FOREIGN_LINK, WORDS, check_port, prepare


def test_the_page_that_is_served_links_to_no_other_host(tmp_path: Path) -> None:
    pytest.importorskip("chainlit")
    root = prepare(tmp_path / "page")
    html = (root / "build" / "index.html").read_text(encoding="utf-8")
    assert not FOREIGN_LINK.search(html) and "https://" not in html
    assert "Content-Security-Policy" in html.split("<script")[0]
    assert json.loads((root / "public" / "theme.json").read_text())["custom_fonts"] == []
    assert (root / "chainlit.md").read_text(encoding="utf-8").startswith("# vargpt")
    words = json.loads((root / ".chainlit" / "translations" / "en-US.json").read_text(encoding="utf-8"))
    assert "picture" in words["chat"]["input"]["placeholder"]


def test_every_word_of_ours_still_has_a_place_on_the_page(tmp_path: Path) -> None:
    pytest.importorskip("chainlit")
    file = prepare(tmp_path / "page") / ".chainlit" / "translations" / "en-US.json"
    words = json.loads(file.read_text(encoding="utf-8"))
    for path, ours in WORDS.items():
        assert reduce(lambda place, key: place.get(key, {}), path, words) == ours, path


def test_a_port_that_is_taken_is_said_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}.*--port {port + 1}"):
            check_port("127.0.0.1", port)
