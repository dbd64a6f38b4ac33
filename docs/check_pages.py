"""Open every page of the built site in a browser: `python docs/check_pages.py site`.

A page fails if the browser prints a message, if the page is wider than the window, or if it asks another server for
anything. The browser is Chromium: that of the system, or the one that `playwright install chromium` puts in place.
"""

import shutil
import sys
from pathlib import Path

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
                for fault in faults(window, path.as_uri()):
                    failed += 1
                    print(f"{path.relative_to(site.resolve())} at {width} px: {fault}")
        browser.close()
    print(f"{len(pages)} pages at {' and '.join(map(str, WIDTHS))} px: {failed} faults")
    return 1 if failed or not pages else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
