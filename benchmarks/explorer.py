"""Time of the explorer as its user sees it: from a click to the painted field, and of a redraw while dragging.

    python -m benchmarks.explorer hct gmic

`erf explore` runs in a process of its own, as from the command line, and Chromium shows its page. Each click goes to
another place. The time ends with the second frame after the page has named the new field, when it is on the screen.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median
from typing import Any

from playwright.sync_api import Page, sync_playwright

_WATCH = """() => {
  window.timing = { painted: [], frames: [] };
  const caption = document.querySelector(".caption");
  let pressed = 0, before = caption.textContent;
  document.addEventListener("pointerdown", () => { pressed = performance.now(); }, true);
  new MutationObserver(() => {
    const now = caption.textContent;
    if (!pressed || now === before || !/ s · /.test(now)) return;
    before = now;
    const from = pressed;
    requestAnimationFrame(() => requestAnimationFrame(() => window.timing.painted.push(performance.now() - from)));
  }).observe(caption, { childList: true, characterData: true, subtree: true });
}"""

_FRAMES = """(milliseconds) => new Promise((resolve) => {
  const times = [];
  const end = performance.now() + milliseconds;
  const next = (now) => { times.push(now); now < end ? requestAnimationFrame(next) : resolve(times); };
  requestAnimationFrame(next);
})"""

_PAUSE = 9000
"""Milliseconds before and between the first clicks, in which the page loads and the check has time."""


@contextmanager
def explored(network: str, *options: str) -> Iterator[str]:
    """Run `erf explore` and yield the address of its page."""
    command = [sys.executable, "-m", "erf", "explore", "-m", network, "-n", "2", "--no-open", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            found = next(filter(None, (re.search(r"http://\S+", line) for line in process.stdout)), None)
            if found is None:
                sys.exit(f"{' '.join(command)} did not start")
            yield found[0]
        finally:
            process.terminate()


def clicks(page: Page, count: int) -> list[float]:
    """Click at places along a diagonal, and return the milliseconds to each painted field."""
    stage = page.locator(".stage").first.bounding_box()
    assert stage
    for number in range(count):
        share = 0.38 + 0.024 * number
        page.mouse.click(stage["x"] + share * stage["width"], stage["y"] + (0.25 + 0.05 * number) * stage["height"])
        page.wait_for_function(f"window.timing.painted.length > {number}", timeout=120_000)
        page.wait_for_timeout(_PAUSE if number == 0 else 1500)
    found: list[float] = page.evaluate("window.timing.painted")
    return found


def redraws(page: Page) -> list[float]:
    """Drag the image to and fro with the middle button, and return the milliseconds between frames."""
    stage = page.locator(".stage").first.bounding_box()
    assert stage
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.mouse.move(x, y)
    for _ in range(4):
        page.mouse.wheel(0, -240)
    page.wait_for_timeout(3000)
    page.mouse.down(button="middle")
    page.evaluate(f"() => {{ window.frames_ = ({_FRAMES})(3000); }}")
    for step in range(60):
        page.mouse.move(x + 4 * (step % 30), y + 3 * (step % 20))
    page.mouse.up(button="middle")
    times: list[float] = page.evaluate("window.frames_")
    return [after - before for before, after in pairwise(times)]


def measure(browser: Any, network: str, count: int) -> str:
    """Measure one network and describe the times in one line."""
    with explored(network) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 800}, bypass_csp=True)  # to wait for conditions
        page.goto(address)
        page.wait_for_selector(".caption")
        page.wait_for_timeout(_PAUSE)
        page.evaluate(_WATCH)
        first, *others = clicks(page, count + 1)
        frames = sorted(redraws(page))
        page.close()
    return (
        f"{network:10s} first click {first / 1000:.2f} s; further clicks: median of {len(others)} "
        f"{median(others) / 1000:.2f} s ({min(others) / 1000:.2f} to {max(others) / 1000:.2f}); redraw while panning: "
        f"median {median(frames):.0f} ms, nine of ten within {frames[len(frames) * 9 // 10]:.0f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["hct", "gmic"])
    parser.add_argument("--clicks", type=int, default=10)
    options = parser.parse_args()
    system = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        for network in options.networks:
            print(measure(browser, network, options.clicks), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
