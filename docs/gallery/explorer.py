"""Draw the pictures of the explorer: `python explorer.py wide.png narrow.png`. Needs Playwright and Chromium."""

import shutil
import sys
from typing import Any

from playwright.sync_api import sync_playwright

import erf

SIZES = ((1280, 800), (390, 844))
"""(width, height) of the window for each picture."""


def draw(browser: Any, address: str, path: str, size: tuple[int, int]) -> None:
    """Open the page, click into the breast, and save what the window shows once the numbers are there."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, device_scale_factor=1.5)
    page.goto(address)
    stage = page.locator(".stage").first
    stage.wait_for()
    page.wait_for_timeout(8000)
    box = stage.bounding_box()
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 0.45 * box["height"])
    page.get_by_text("r50").first.wait_for(state="attached", timeout=120_000)
    page.get_by_text("equal to the plain computation").first.wait_for(state="attached", timeout=120_000)
    page.wait_for_timeout(1000)
    page.screenshot(path=path)
    page.close()


def main(*paths: str) -> None:
    with erf.explore("hct", n=4, open_browser=False) as explorer, sync_playwright() as playwright:
        system = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        for path, size in zip(paths, SIZES, strict=False):
            draw(browser, explorer.url, path, size)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
