"""What is typed, set and attached on the page, and what it says when that cannot be. In a real Chromium."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.chat_ui.visitor import Page, Visitor

pytestmark = pytest.mark.browser


def test_commands_are_typed_or_pressed_and_unknown_ones_are_explained(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address)
    visitor.say("/ask what is a fox?")
    assert (quick_page.requests[-1]["route"], quick_page.requests[-1]["words"]) == ("text", "what is a fox?")
    visitor.say("/drwa a fox")
    assert "There is no command /drwa. Did you mean /draw?" in visitor.replies[-1]
    visitor.say("/edit make it sepia")
    assert "no picture to change yet" in visitor.replies[-1]
    visitor.say("/help ")
    assert "/version 2" in visitor.replies[-1]
    visitor.say("/undo ")
    assert "nothing to undo" in visitor.replies[-1]
    before = visitor.page.locator(".ai-message").count()
    visitor.page.click("#chat-input")
    visitor.page.keyboard.type("/unknowable")
    visitor.page.keyboard.press("Enter")
    visitor.answered(before)
    assert "There is no command /unknowable" in visitor.replies[-1]
    visitor.page.click("#command-button")
    visitor.page.click("#command-popover >> text=Back to the picture before the last one")
    visitor.page.click("#chat-submit")
    visitor.answered(before + 1)
    assert "nothing to undo" in visitor.replies[-1]


def test_a_profile_begins_with_its_adapter_and_lora_switches_it(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address)
    visitor.say("/draw a fox")
    assert quick_page.requests[-1]["adapter"] == ["robot"]
    visitor.say("/lora off")
    assert "none" in visitor.replies[-1]
    visitor.say("/draw a fox")
    assert quick_page.requests[-1]["adapter"] == []
    visitor.say("/lora fox")
    assert "There is no adapter “fox”" in visitor.replies[-1]

    other = visit(quick_page.address)
    other.page.click("#chat-profiles")
    assert other.page.locator("[role=option]").all_inner_texts() == ["model + robot", "model"]
    other.page.click("[data-test='select-item:model']")
    other.page.wait_for_selector("text=Without adapters.")
    other.page.wait_for_selector("#starters button:not([disabled])")
    other.say("/draw a fox")
    assert quick_page.requests[-1]["adapter"] == []


def test_size_faithfulness_and_number_of_pictures_are_set(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address)
    visitor.set("pictures", "2")
    visitor.set("faithfulness", "0.05")
    choose_size(visitor, "32 × 16 · wide")
    visitor.say("/draw a fox")
    visitor.finished(2)
    asked = quick_page.requests[-1]
    assert (asked["n"], asked["faithfulness"], asked["size"]) == (2, 0.05, [16, 32])
    assert visitor.page.locator(".picture-caption").first.inner_text().startswith("32 × 16")


def choose_size(visitor: Visitor, name: str) -> None:
    visitor.page.click("#chat-settings-open-modal")
    visitor.page.click("#size")
    assert "by itself" in visitor.page.locator("[role=option]").all_inner_texts()
    visitor.page.click(f"[role=option]:has-text('{name}')")
    visitor.page.click("#confirm")
    visitor.page.wait_for_selector("#confirm", state="detached")
    visitor.page.wait_for_timeout(300)  # nothing on the page tells that the server has it


def test_a_file_that_is_too_large_or_of_another_kind_is_refused_before_it_is_sent(
    visit, quick_page: Page, tmp_path: Path
) -> None:
    visitor = visit(quick_page.address)
    (tmp_path / "huge.png").write_bytes(bytes(21_000_000))
    (tmp_path / "notes.txt").write_text("no pixels")
    visitor.page.set_input_files("#upload-button-input", str(tmp_path / "huge.png"))
    visitor.page.wait_for_selector("text=File is larger than 20 MB")
    visitor.page.set_input_files("#upload-button-input", str(tmp_path / "notes.txt"))
    visitor.page.wait_for_selector("text=File type must be")


def test_what_was_drawn_while_the_connection_was_broken_is_there_when_it_is_back(visit, quick_page: Page) -> None:
    visitor, sockets = visit(quick_page.address), []
    visitor.page.route_web_socket(
        re.compile("socket.io"), lambda socket: sockets.append((socket, socket.connect_to_server()))
    )
    visitor.page.reload()
    visitor.page.wait_for_selector("#starters button:not([disabled])")
    visitor.page.click("#chat-input")
    visitor.page.keyboard.type("/draw a fox")
    visitor.page.click("#chat-submit")
    visitor.page.wait_for_selector("#stop-button")
    num_sockets = len(sockets)
    for end in sockets[-1]:
        end.close()
    visitor.finished(1)
    assert len(sockets) > num_sockets
