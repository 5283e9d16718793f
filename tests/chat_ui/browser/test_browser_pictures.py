"""What can be done with a picture on the page: refine, vary, compare, copy, mark a part, go back; in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.chat_ui.visitor import Page, Visitor

pytestmark = pytest.mark.browser
NUM_SCALES = 3  # of the pictures of `quick_page`


def at_version(visitor: Visitor, number: int) -> None:
    """Waits until the row of versions says that the conversation goes on from this one."""
    visitor.page.wait_for_selector(f".version[aria-current=true]:has-text('{number}')")
    visitor.page.wait_for_selector("#chat-submit")


def mark_left_half(visitor: Visitor) -> None:
    """Draws a box over the left half of the picture on the open sheet."""
    page = visitor.page
    page.wait_for_selector("dialog.region[open]")
    box = page.locator(".region canvas").bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 1, steps=4)
    page.mouse.up()


def test_a_conversation_goes_back_to_a_picture_and_branches_from_it(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address)
    visitor.say("/draw a fox")
    visitor.finished(1)
    assert visitor.page.locator(".versions").count() == 0  # one picture needs no row
    visitor.say("/edit make it sepia")
    visitor.finished(2)
    at_version(visitor, 2)
    visitor.figure("1").locator(".picture-edit").click()
    at_version(visitor, 1)
    assert visitor.figure("1").locator(".picture-chosen").count() == 1
    visitor.page.wait_for_function("document.querySelectorAll('.picture-chosen').length === 1", polling=50)
    visitor.say("/edit add a ball")
    visitor.finished(3)
    at_version(visitor, 3)
    asked = quick_page.requests[-1]
    assert (asked["words"], asked["num_messages"], asked["pictures_seen"]) == ("add a ball", 3, 1)
    first, second, third = visitor.page.evaluate(
        "[...document.querySelectorAll('.version')].map((version) => [version.offsetLeft, version.offsetTop])"
    )
    assert first[1] == second[1] < third[1] and second[0] == third[0] > first[0]

    visitor.page.click(".versions-undo")
    at_version(visitor, 1)
    visitor.page.wait_for_selector(".versions-undo[disabled]")
    visitor.say("/version 2")
    at_version(visitor, 2)
    assert "Back at version 2" in visitor.replies[-1]
    visitor.say("/undo")
    at_version(visitor, 1)


def test_refining_keeps_as_many_scales_as_the_slider_says(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address)
    visitor.set("seed", "41")
    visitor.say("/draw a fox")
    visitor.finished(1)
    visitor.page.click(".picture-refine-open")
    visitor.page.fill(".picture-refine input", str(NUM_SCALES - 1))
    assert f"Keeps scales 1 to {NUM_SCALES - 1} of {NUM_SCALES}" in visitor.page.inner_text(".picture-refine")
    visitor.page.click(".picture-refine button")
    visitor.finished(2)
    asked = quick_page.requests[-1]
    assert (asked["given_seed"], asked["keep_scales"], asked["seed"], asked["n"]) == (41, NUM_SCALES - 1, 42, 1)
    assert (asked["words"], asked["num_messages"]) == ("a fox", 1)


def test_three_variations_share_the_coarse_half_and_one_is_chosen(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address)
    visitor.set("seed", "41")
    visitor.say("/draw a fox")
    visitor.finished(1)
    visitor.page.click(".picture-vary")
    visitor.finished(4)
    at_version(visitor, 2)
    asked = quick_page.requests[-1]
    assert (asked["given_seed"], asked["keep_scales"], asked["seed"], asked["n"]) == (41, NUM_SCALES // 2, 42, 3)
    visitor.figure("4").locator(".picture-choose").click()
    at_version(visitor, 4)
    tops = [visitor.figure(number).bounding_box()["y"] for number in "234"]
    assert len(set(tops)) == 1  # side by side
    row, card = visitor.page.locator(".versions").bounding_box(), visitor.figure("4").bounding_box()
    assert row["y"] >= card["y"] + card["height"]


def test_a_change_is_compared_with_what_it_was_made_from(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address)
    visitor.say("/draw a fox")
    visitor.finished(1)
    assert visitor.page.locator(".picture-compare").count() == 0
    visitor.say("/edit make it sepia")
    visitor.finished(2)
    before = visitor.figure("2").locator(".picture-before")
    assert not before.is_visible()
    visitor.page.click(".picture-compare")
    assert before.is_visible()
    first = visitor.figure("1").locator(".picture-paper img").get_attribute("src")
    assert before.locator("img").get_attribute("src") == first
    before.locator("input").fill("25")
    cut = "getComputedStyle(document.querySelectorAll('.picture-before img')[0]).clipPath"
    assert "75%" in visitor.page.evaluate(cut)


def test_words_and_seed_are_copied(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address, permissions=["clipboard-read", "clipboard-write"])
    visitor.set("seed", "41")
    visitor.say("/draw a fox")
    visitor.finished(1)
    visitor.page.click(".picture-copy")
    visitor.page.wait_for_selector(".picture-copy[data-copied]")
    assert visitor.page.evaluate("navigator.clipboard.readText()") == "a fox\nseed 41"


def test_a_marked_part_alone_is_changed_and_the_sheet_says_how_much_it_is(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address)
    visitor.say("/draw a fox")
    visitor.finished(1)
    visitor.page.click(".picture-region")
    visitor.page.wait_for_selector("dialog.region[open]")
    assert visitor.page.locator(".region-change").is_disabled()
    mark_left_half(visitor)
    assert visitor.page.inner_text(".region-share").split()[0] in ("49", "50", "51")
    visitor.page.click(".region-clear")
    assert visitor.page.locator(".region-change").is_disabled()
    visitor.page.click(".region-brush")
    mark_left_half(visitor)  # a stroke along the diagonal of that half
    assert 0 < int(visitor.page.inner_text(".region-share").split()[0]) < 30
    visitor.page.click(".region-box")
    mark_left_half(visitor)
    visitor.page.fill(".region-words", "make it blue")
    visitor.page.click(".region-change")
    visitor.finished(2)
    asked = quick_page.requests[-1]
    assert (asked["words"], asked["pictures_seen"], asked["route"]) == ("make it blue", 1, "image")
    assert asked["region"]["mode"] == "L" and asked["region"]["size"] == [32, 32]
    left, top, right, bottom = asked["region"]["box"]
    assert (left, top, bottom) == (0, 0, 32) and 15 <= right <= 18
    assert visitor.figure("2").locator(".picture-compare").count() == 1
    visitor.say("/edit make it sepia")
    assert quick_page.requests[-1]["region"] is None


def test_a_part_is_marked_for_the_next_message_and_forgotten_on_demand(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address)
    visitor.say("/draw a fox")
    visitor.finished(1)
    for is_kept in (False, True):
        visitor.page.click(".picture-region")
        mark_left_half(visitor)
        visitor.page.click(".region-later")
        visitor.page.wait_for_selector("text=Your next message changes only the part")
        visitor.page.wait_for_selector(".versions-unmark")
        if not is_kept:
            visitor.page.click(".versions-unmark")
            visitor.page.wait_for_selector(".versions-unmark", state="detached")
    visitor.say("/edit make it blue")
    assert quick_page.requests[-1]["region"]["size"] == [32, 32]


def test_a_part_of_an_attached_picture_is_changed_after_going_back_to_it(
    visit, quick_page: Page, tmp_path: Path
) -> None:
    visitor = visit(quick_page.address)
    Image.new("RGB", (48, 32), "red").save(tmp_path / "red.png")
    visitor.attach(tmp_path / "red.png")
    visitor.say("/edit make it blue")
    visitor.finished(1)
    at_version(visitor, 2)
    visitor.page.locator(".version").first.click()
    at_version(visitor, 1)
    visitor.say("/edit make it sepia")
    visitor.finished(2)
    asked = quick_page.requests[-1]
    assert (asked["num_messages"], asked["pictures_seen"]) == (1, 1)
    at_version(visitor, 3)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_cards_row_and_sheet_fit_a_phone(visit, quick_page: Page, colours: str) -> None:
    visitor = visit(
        quick_page.address, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, color_scheme=colours
    )
    visitor.say("/draw a fox")
    visitor.finished(1)
    for number in range(2, 6):
        visitor.say("/edit make it sepia")
        visitor.finished(number)
    at_version(visitor, 5)
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390
    visitor.page.locator(".picture-region").last.click()
    visitor.page.wait_for_selector("dialog.region[open]")
    for selector in ("dialog.region", ".region canvas", ".region-change", ".region-later"):
        box = visitor.page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844
    smallest = visitor.page.evaluate(
        "Math.min(...[...document.querySelectorAll('.picture-tool, .version')].map((tool) => tool.offsetWidth))"
    )
    assert smallest >= 36  # wide enough for a finger
