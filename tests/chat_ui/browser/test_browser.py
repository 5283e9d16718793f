"""The page in a real Chromium: once with a tiny model for the mechanics, once with nano for the whole story.

Run with `pytest -m browser`; CHROMIUM names the browser if it is not found on the path.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.chat_ui.visitor import Visitor

pytestmark = pytest.mark.browser


def test_a_picture_forms_in_one_place_and_counts_its_scales(visit, tiny_address: str) -> None:
    visitor = visit(tiny_address)
    visitor.say("draw a fox", draw=True)
    visitor.finished(1)
    assert len({image for image, _, _ in visitor.shown}) == 1
    assert len({content for _, content, _ in visitor.shown}) >= 3
    counters = [caption for _, _, caption in visitor.shown if caption.startswith("scale")]
    steps = [int(caption.split()[1]) for caption in counters]
    assert steps == sorted(steps) and all(caption.endswith("of 12") for caption in counters)
    assert visitor.shown[-1][2].startswith("384 × 384 · seed")


def test_stop_ends_a_picture_on_the_way_and_the_conversation_goes_on(visit, tiny_address: str) -> None:
    visitor = visit(tiny_address)
    visitor.say("draw a fox", draw=True, wait=False)
    visitor.page.wait_for_selector(".picture-paper img")
    # Not page.click(): once the turn is over the same node is the disabled submit button, for which that waits forever.
    visitor.page.evaluate("document.querySelector('#stop-button').click()")
    clicked = time.monotonic()
    visitor.page.wait_for_selector(".picture[data-state=stopped]")
    assert time.monotonic() - clicked < 10
    assert visitor.page.inner_text(".picture-caption").startswith("stopped after scale")
    assert not any("manually" in reply for reply in visitor.replies)
    visitor.say("draw a cat", draw=True)
    visitor.finished(1)


def test_again_draws_with_the_next_seed_and_the_file_says_how(visit, tiny_address: str, tmp_path: Path) -> None:
    visitor = visit(tiny_address)
    visitor.set("seed", "41")
    visitor.say("draw a fox", draw=True)
    visitor.finished(1)
    visitor.page.click(".picture-again")
    visitor.finished(2)
    captions = visitor.page.locator(".picture-caption").all_inner_texts()
    assert [caption.split("seed ")[1] for caption in captions] == ["41", "42"]
    with visitor.page.expect_download() as download:
        visitor.page.locator(".picture-download").last.click()
    assert download.value.suggested_filename == "draw-a-fox-42.png"
    download.value.save_as(tmp_path / "fox.png")
    with Image.open(tmp_path / "fox.png") as image:
        assert image.size == (384, 384)
        assert (image.info["seed"], image.info["prompt"]) == ("42", "draw a fox")
        assert "guidance_scale" in json.loads(image.info["settings"])


def test_one_of_several_pictures_is_chosen_to_go_on_with(visit, tiny_address: str) -> None:
    visitor = visit(tiny_address)
    visitor.set("pictures", "2")
    visitor.say("draw a fox", draw=True)
    visitor.finished(2)
    assert chosen(visitor) == [True, False]
    visitor.page.click(".picture-choose")
    second = "document.querySelectorAll('figure.picture')[1]?.querySelector('.picture-chosen')"
    visitor.page.wait_for_function(second, polling=50)  # the two figures change one after the other
    visitor.page.wait_for_function(second.replace("[1]", "[0]") + " === null", polling=50)
    assert chosen(visitor) == [False, True]


def chosen(visitor: Visitor) -> list[bool]:
    figures = visitor.page.locator("figure.picture").all()
    return [figure.locator(".picture-chosen").count() == 1 for figure in figures]


def test_a_file_that_is_no_picture_and_a_seed_that_is_no_number_are_explained(
    visit, tiny_address: str, tmp_path: Path
) -> None:
    visitor = visit(tiny_address)
    (tmp_path / "notes.png").write_bytes(b"these are no pixels")
    visitor.attach(tmp_path / "notes.png")
    visitor.say("what is this?")
    assert "“notes.png” could not be used" in visitor.replies[-1]
    visitor.set("seed", "soon")
    visitor.page.wait_for_function("document.querySelectorAll('.ai-message').length == 2")
    assert "The seed must be a whole number" in visitor.replies[-1]
    visitor.say("draw a fox", draw=True)
    visitor.finished(1)


def test_the_page_fits_a_phone(visit, tiny_address: str) -> None:
    visitor = visit(tiny_address, viewport={"width": 360, "height": 740}, is_mobile=True, color_scheme="dark")
    assert visitor.page.evaluate("document.documentElement.classList.contains('dark')")
    visitor.say("draw a fox", draw=True)
    visitor.finished(1)
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 360
    box = visitor.page.locator("figure.picture").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360


def test_the_whole_story_with_nano(visit, nano_address: str, tmp_path: Path) -> None:
    visitor = visit(nano_address)
    visitor.say("draw a fox next to a pine tree at night")
    visitor.finished(1)
    assert len({image for image, _, _ in visitor.shown}) == 1
    assert len({content for _, content, _ in visitor.shown}) >= 3  # two previews at least, and the picture
    assert any(caption.startswith("scale ") for _, _, caption in visitor.shown)
    with visitor.page.expect_download() as download:
        visitor.page.click(".picture-download")
    download.value.save_as(tmp_path / "fox.png")

    visitor.say("how many animals are there?")
    assert answer_without_picture(visitor, 1)

    visitor.say("replace the fox with a cat")
    visitor.finished(2)
    sources = [image.get_attribute("src") for image in visitor.page.locator(".picture-paper img").all()]
    assert sources[0] != sources[1]

    visitor.attach(tmp_path / "fox.png")
    visitor.say("what is in the picture?")
    assert answer_without_picture(visitor, 2)


def answer_without_picture(visitor: Visitor, num_pictures: int) -> bool:
    """Whether the last reply is words alone, with this many pictures on the page."""
    return bool(visitor.replies[-1].strip()) and visitor.page.locator("figure.picture").count() == num_pictures
