"""Talks to a running chat page in Chromium and saves what it looks like (needs the `dev` extra and a Chromium).

vargpt ui --headless & python examples/screenshot.py http://localhost:8000 docs/images/conversation.png
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

TURNS = ("draw a fox next to a pine tree at night", "how many animals are there?", "replace the fox with a cat")


def main(address: str, path: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 1500})
        page.goto(address)
        page.locator("#chat-input").wait_for(timeout=60_000)
        page.wait_for_timeout(4000)
        for turn in TURNS:
            page.locator("#chat-input").type(turn)
            page.locator("#chat-submit").click()
            page.wait_for_timeout(2000)
            page.locator("#stop-button").wait_for(state="hidden", timeout=120_000)
            page.wait_for_timeout(2000)
        page.mouse.move(450, 600)
        page.mouse.wheel(0, -10_000)  # the page shows the last turn; here all of them are wanted
        page.wait_for_timeout(1000)
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(path))
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
