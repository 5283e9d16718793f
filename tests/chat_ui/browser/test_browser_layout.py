"""What a visitor sees without scrolling, and that nothing of it is cut off or out of line."""

from __future__ import annotations

import pytest

from tests.chat_ui.browser.test_browser_pictures import at_version
from tests.chat_ui.visitor import Page, Visitor

pytestmark = pytest.mark.browser
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
LIES_WITHIN = """([inner, outer]) => {
  const [one, all] = [inner, outer].map((selector) => document.querySelector(selector).getBoundingClientRect());
  return one.top >= all.top && one.bottom <= all.bottom + 1 && one.left >= all.left && one.right <= all.right + 1;
}"""


def lies_within(visitor: Visitor, inner: str, outer: str) -> None:
    """Waits until it does: the page scrolls by itself."""
    visitor.page.wait_for_function(LIES_WITHIN, arg=[inner, outer], timeout=20000)


@pytest.mark.parametrize("device", [{}, PHONE])
def test_pictures_that_are_no_change_begin_rows_and_the_one_to_go_on_with_is_in_sight(
    visit, quick_page: Page, device: dict
) -> None:
    visitor = visit(quick_page.address, **device)
    for number in range(1, 6):
        visitor.say("/draw a fox")
        visitor.finished(number)
    visitor.say("/edit make it sepia")
    visitor.finished(6)
    at_version(visitor, 6)
    places = visitor.page.evaluate(
        "[...document.querySelectorAll('.version')].map((version) => [version.offsetLeft, version.offsetTop])"
    )
    assert len({left for left, _ in places[:5]}) == 1 and len({top for _, top in places[:5]}) == 5
    assert places[5][0] > places[4][0] and places[5][1] == places[4][1]
    assert [visitor.figure(str(number)).locator(".picture-compare").count() for number in (5, 6)] == [0, 1]
    lies_within(visitor, ".version[aria-current=true]", ".versions-scroll")


def test_the_thumbs_below_the_row_are_in_sight_and_no_arrow_lies_on_it(visit, nano_address: str) -> None:
    visitor = visit(nano_address, **PHONE)
    for number in (1, 2):
        visitor.say("/draw a fox")
        visitor.finished(number)
    at_version(visitor, 2)
    visitor.page.wait_for_function(
        "[...document.querySelectorAll('.positive-feedback-off')].pop().getBoundingClientRect().bottom"
        " <= document.querySelector('#message-composer').getBoundingClientRect().top"
    )
    visitor.page.wait_for_function(
        "(() => { const box = document.querySelector('.versions').getBoundingClientRect();"
        " return document.elementFromPoint(box.left + box.width / 2, box.bottom - 8).closest('.versions') !== null })()"
    )


def test_the_last_setting_is_whole(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address, **PHONE)
    visitor.page.click("#chat-settings-open-modal")
    visitor.page.wait_for_selector("#faithfulness [role=slider]")
    visitor.page.locator("#faithfulness").scroll_into_view_if_needed()
    visitor.page.evaluate("document.querySelector('#chat-settings > .overflow-y-auto').scrollTop = 9999")
    lies_within(visitor, "#faithfulness [role=slider]", "#chat-settings > .overflow-y-auto")


def test_cards_side_by_side_are_equally_high(visit, quick_page: Page) -> None:
    visitor = visit(quick_page.address)
    visitor.say("/draw a fox")
    visitor.finished(1)
    visitor.page.click(".picture-vary")
    visitor.finished(4)
    at_version(visitor, 2)
    tops = visitor.page.evaluate(
        "[...document.querySelectorAll('.picture-tools')].slice(1).map((tools) => tools.getBoundingClientRect().top)"
    )
    assert len(tops) == 3 and max(tops) - min(tops) < 1
