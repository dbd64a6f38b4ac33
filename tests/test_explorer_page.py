"""The explorer's page in a real browser, with its real server."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

import erf
from tests.conftest import small_network

SIZE = (128, 96)
VIEWPORT = {"width": 1000, "height": 640}
HOSTILE = "<b onclick=alert(1)>bold.png"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rows = ["path,laterality,view"]
    for index, name in enumerate(("a.png", HOSTILE, "c.png")):
        phantom = erf.draw_phantom(index, seed=3, size=SIZE)
        Pillow.fromarray(phantom.pixels).save(folder / name)
        rows.append(f"{name},{phantom.laterality[0].upper()},{phantom.view}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def address(images: Path) -> Iterator[str]:
    networks = [small_network(0).float(), small_network(1).float()]
    with erf.explore(networks, images, size=SIZE, device="cpu", open_browser=False) as explorer:
        yield explorer.url


@dataclass
class Opened:
    """A page, what it said that it should not have said, and what it asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def click(self, y: float, x: float, modifiers: tuple[str, ...] = (), pane: int = 0) -> None:
        """Click at shares of the stage's height and width."""
        stage = self.page.locator(".stage").nth(pane)
        box = stage.bounding_box()
        stage.click(position={"x": box["width"] * x, "y": box["height"] * y}, modifiers=list(modifiers))

    def caption(self, pane: int = 0) -> str:
        return self.page.locator(".caption").nth(pane).inner_text()

    def shows(self, words: str, pane: int = 0) -> None:
        """Wait until a pane's caption has these words."""
        self.page.locator(".caption").nth(pane).filter(has_text=words).wait_for()

    def announced(self) -> str:
        self.page.locator("#live").filter(has_text="r50").wait_for(state="attached")
        return self.page.locator("#live").inner_text()

    def painted(self, pane: int = 0) -> int:
        """Pixels of the field that are not transparent."""
        return self.page.evaluate(
            """(pane) => {
                const canvas = document.querySelectorAll(".stage")[pane].querySelectorAll("canvas")[1];
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                return data.reduce((count, value, index) => count + (index % 4 === 3 && value > 0), 0);
            }""",
            pane,
        )


@pytest.fixture(scope="module")
def window(browser: Any, address: str) -> Opened:
    page = browser.new_page(viewport=VIEWPORT)
    page.set_default_timeout(15_000)
    found = Opened(page)
    page.on("pageerror", lambda error: found.said.append(str(error)))
    page.on("dialog", lambda dialog: found.said.append(dialog.message))
    page.on("request", lambda asked: found.asked.append(asked.url))
    page.goto(address)
    page.wait_for_selector(".stage")
    return found


@pytest.fixture
def opened(window: Opened, address: str) -> Iterator[Opened]:
    """The page as it is at first; without a fragment, it forgets all but the tray, which takes less than a reload."""
    window.page.set_viewport_size(VIEWPORT)
    window.page.evaluate("() => { location.hash = ''; document.getElementById('live').textContent = ''; }")
    window.page.wait_for_function("() => !document.querySelector('#numbers table')")
    window.page.wait_for_function("() => document.querySelectorAll('.stage').length === 1")
    yield window
    assert window.said == []
    assert [url for url in window.asked if not url.startswith((address, "about:", "blob:", "data:"))] == []


def test_a_click_shows_a_field_with_the_numbers_of_the_server(opened: Opened) -> None:
    page = opened.page
    with page.expect_response("**/numbers**") as answered, page.expect_response("**/api/fields") as asked:
        opened.click(0.5, 0.45)
    numbers, found = answered.value.json(), asked.value.json()
    page.wait_for_selector("#numbers tbody tr")
    rows = page.locator("#numbers tbody tr").evaluate_all(
        "(rows) => rows.map((row) => [row.cells[0].firstChild.textContent, row.cells[1].textContent])"
    )
    assert rows == [
        [one["name"], one["text"] if one["value"] is not None else "–not defined"] for one in numbers["measures"]
    ]
    unit = ", ".join(map(str, found["unit"]))
    assert f"unit {unit} of {found['layer']}" in opened.caption()
    assert opened.announced().startswith(f"unit {unit} of {found['layer']}: r50")
    assert opened.painted() > 100
    page.uncheck("#shown")
    page.wait_for_timeout(100)
    assert opened.painted() == 0


def test_a_step_through_the_layers_changes_the_field(opened: Opened) -> None:
    opened.page.select_option("#layer", "0")
    opened.click(0.5, 0.45)
    opened.shows("of 0")
    first = opened.announced()
    with opened.page.expect_response("**/numbers**"):
        opened.page.select_option("#layer", "3")
    opened.shows("of 3")
    opened.page.wait_for_function("(old) => document.getElementById('live').textContent !== old", arg=first)
    assert "stride 4 px" in opened.page.locator("#layer-note").inner_text()


def test_the_units_that_see_a_pixel(opened: Opened) -> None:
    with opened.page.expect_response("**/api/projective") as asked:
        opened.click(0.5, 0.45, ("Shift",))
    found = asked.value.json()
    opened.shows(f"units of {found['layer']} that see pixel {', '.join(str(round(one)) for one in found['pixel'])}")
    opened.page.wait_for_timeout(100)
    assert opened.painted() > 0


def test_the_address_holds_the_view(opened: Opened) -> None:
    page = opened.page
    opened.click(0.4, 0.5)
    page.keyboard.press("n")
    page.select_option("#scale", "log")
    page.locator(".stage").hover()
    page.mouse.wheel(0, -300)
    page.check("#inverted")
    opened.announced()
    page.wait_for_function("() => location.hash.includes('view=') && location.hash.includes('inverted')")
    caption, address = opened.caption().split(" · ")[:3], page.url
    page.reload()
    opened.announced()
    assert opened.caption().split(" · ")[:3] == caption
    assert page.url == address
    assert page.locator("#scale").input_value() == "log"
    assert page.is_checked("#inverted")
    assert page.locator("#images button").nth(1).get_attribute("aria-current") == "true"


def test_with_the_keyboard_alone(opened: Opened) -> None:
    page = opened.page
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('stage')"):
            break
    page.keyboard.press("Enter")
    opened.announced()
    row, column = _unit(opened)
    page.keyboard.press("ArrowDown")
    opened.shows(f"unit {row + 1}, {column} ")
    page.keyboard.press("ArrowRight")
    opened.shows(f"unit {row + 1}, {column + 1} ")
    page.keyboard.press("PageUp")
    page.wait_for_function("() => !document.querySelector('.caption').textContent.includes(' of 5')")
    page.keyboard.press("k")
    page.wait_for_selector("#tray th button.show")
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")


def _unit(opened: Opened) -> tuple[int, int]:
    words = opened.caption().split("unit ")[1].split(" of ")[0]
    row, column = map(int, words.split(", "))
    return row, column


def test_an_error_is_one_line_and_the_page_lives_on(opened: Opened) -> None:
    page = opened.page
    opened.click(0.5, 0.45)
    opened.announced()
    page.select_option("#channel", "one")
    page.fill("#channel-index", "999")
    page.press("#channel-index", "Enter")
    page.wait_for_selector("#error")
    assert "channel 999" in page.locator("#error-text").inner_text()
    page.click("#error-close")
    page.wait_for_selector("#error", state="hidden")
    page.select_option("#channel", "all")
    opened.shows("unit ")


def test_two_panes_share_cursor_and_view(opened: Opened) -> None:
    page = opened.page
    page.click("#two-panes")
    page.wait_for_function("() => document.querySelectorAll('.stage').length === 2")
    opened.click(0.5, 0.4, pane=1)
    opened.shows("unit ", 0)
    opened.shows("unit ", 1)
    assert opened.caption(0).split(" · ")[2] == opened.caption(1).split(" · ")[2]
    page.locator(".stage").nth(0).hover()
    page.mouse.wheel(0, -200)
    page.wait_for_function("() => location.hash.split('view=').length === 3")
    views = [part.split("&")[0] for part in page.url.split("view=")[1:]]
    assert views[0] == views[1]
    page.click("#linked")
    page.keyboard.press("f")
    page.wait_for_function("() => location.hash.split('view=').length === 2")


def test_names_are_text_and_nothing_scrolls_sideways(opened: Opened) -> None:
    page = opened.page
    assert HOSTILE in page.locator("#images button").nth(1).inner_text()
    assert page.locator("#images b").count() == 0
    page.wait_for_function("() => [...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_files_alone(browser: Any, images: Path, tmp_path: Path) -> None:
    result = erf.compute(small_network(0).float(), images, size=SIZE, layer="5", device="cpu")
    erf.save(result, tmp_path / "one.h5")
    with erf.explore(files=tmp_path / "one.h5", open_browser=False) as explorer:
        page = browser.new_page(viewport=VIEWPORT)
        page.goto(explorer.url)
        page.wait_for_selector("#numbers tbody tr")
        mean = page.locator("#numbers tbody").inner_text()
        opened = Opened(page)
        assert opened.painted() > 100
        theory = page.evaluate(
            """async () => {
                const { storedField } = await import(new URL("field.js", location.href).href);
                const { files } = await (await fetch("api/state")).json();
                return [storedField(files[0], { subset: "all", definition: "abs", image: -1 }).theory, files[0].field];
            }"""
        )
        assert theory[0] == theory[1] == list(result.provenance.field_box() or ())
        page.select_option("#profile", "1")
        opened.shows("profile of")
        page.wait_for_function("(old) => document.querySelector('#numbers tbody')?.innerText !== old", arg=mean)
        page.close()
