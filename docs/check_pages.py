"""Open every page of the built site in a browser: `python docs/check_pages.py build/site`.

A page fails if the browser prints a message, if the page is wider than the window, if it asks another server for
anything, or if one of its links leads nowhere in the site. The browser is Chromium: that of the system, or the one that
`playwright install chromium` puts in place.
"""

import re
import shutil
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from playwright.sync_api import Page, sync_playwright

WIDTHS = (1280, 390)


def faults(page: Page, address: str) -> list[str]:
    """Open a page and return what is wrong with it."""
    found: list[str] = []

    def note_message(message: object) -> None:
        found.append(f"message: {message}")

    def note_request(request: object) -> None:
        url = request.url  # type: ignore[attr-defined]
        if not url.startswith(("file:", "data:", "blob:")):
            found.append(f"asks for {url}")

    listeners = {"console": note_message, "pageerror": note_message, "request": note_request}
    for event, listener in listeners.items():
        page.on(event, listener)  # type: ignore[call-overload]
    page.goto(address)
    excess = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if excess > 0:
        found.append(f"{excess} px wider than the window")
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return found


@cache
def anchors(path: Path) -> set[str]:
    """Return the anchors of a page."""
    return set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")))


def dead_links(page: Page) -> list[str]:
    """Return what is wrong with the links of the open page to pages of the site."""
    found = []
    for link in sorted(set(page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)"))):
        address, _, anchor = link.partition("#")
        path = Path(unquote(address.removeprefix("file://")))
        if address.startswith("file:") and not path.is_file():
            found.append(f"no page {path.name}")
        elif address.startswith("file:") and anchor and path.suffix == ".html" and unquote(anchor) not in anchors(path):
            found.append(f"no anchor {path.name}#{anchor}")
    return found


def main(site: Path) -> int:
    """Check all pages, print faults, and return the exit code."""
    pages = sorted(site.resolve().rglob("*.html"))
    failed = 0
    with sync_playwright() as playwright:
        system = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        for width in WIDTHS:
            window = browser.new_page(viewport={"width": width, "height": 900})
            for path in pages:
                for fault in [*faults(window, path.as_uri()), *(dead_links(window) if width == WIDTHS[0] else [])]:
                    failed += 1
                    print(f"{path.relative_to(site.resolve())} at {width} px: {fault}")
        browser.close()
    print(f"{len(pages)} pages at {' and '.join(map(str, WIDTHS))} px: {failed} faults")
    return 1 if failed or not pages else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
