"""The explorer's server: fields equal to those of the library, and nothing for whoever has no right to it."""

import asyncio
import http.client
import io
import json
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from starlette.applications import Starlette
from torch import nn

import erf
from erf.box import Box
from erf.explorer.field import Place
from erf.explorer.guard import Guard
from erf.explorer.numbers import contour_lines
from erf.explorer.passes import Gradient
from erf.explorer.pictures import Pictures
from erf.explorer.subject import Subject
from erf.explorer.worker import SupersededError, Worker
from erf.gradients.autograd import Target
from erf.gradients.graph import CancelledError
from erf.images import Image, ImageSet, Sample
from tests.random_networks import RandomNetwork
from tests.test_coloring import gaussian

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three images, one of which is damaged, and a file beside them."""
    root = tmp_path_factory.mktemp("explorer")
    images = root / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a_L_CC", "b_R_MLO"):
        pixels = (np.outer(np.hanning(256), np.hanning(192)) * 40000 + rng.integers(0, 4000, (256, 192))).astype("u2")
        Pillow.fromarray(pixels).save(images / f"{name}.png")
    (images / "damaged.png").write_bytes(b"\x89PNG nothing")
    (root / "secret.txt").write_text("do not read")
    erf.save(erf.import_map(gaussian(9), title="<b>map</b>"), root / "map.h5")
    return root


@pytest.fixture(scope="module")
def explorer(folder: Path) -> Iterator[erf.Explorer]:
    with erf.explore(
        "gmic", folder / "images", files=folder / "map.h5", size=(256, 192), device="cpu", open_browser=False
    ) as running:
        yield running


class Client:
    """Requests to an explorer, with any path and headers."""

    def __init__(self, explorer: erf.Explorer) -> None:
        self.port, self.prefix = explorer.port, explorer.url.split("/", 3)[3].rstrip("/")

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, whole: bool = False
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and content of an answer; `whole` takes the path as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        own = {"Content-Type": "application/json"} if body is not None else {}
        content = json.dumps(body) if body is not None and not isinstance(body, str) else body
        connection.request(
            "GET" if body is None else "POST",
            path if whole else f"/{self.prefix}/{path}",
            content,
            own | (headers or {}),
        )
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def json(self, path: str, body: Any = None) -> Any:
        status, _, content = self.ask(path, body)
        assert status == 200, content
        return json.loads(content)

    def array(self, path: str, dtype: str) -> tuple[NDArray[Any], dict[str, str]]:
        status, headers, content = self.ask(path)
        assert status == 200, content
        shape = [int(length) for length in headers["x-shape"].split(",")]
        return np.frombuffer(content, dtype).reshape(shape), headers

    def full(self, name: str) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.load(io.BytesIO(self.ask(f"api/fields/{name}/map.npy")[2]))
        return found


@pytest.fixture
def client(explorer: erf.Explorer) -> Client:
    return Client(explorer)


def test_the_state_lists_networks_images_and_files(client: Client) -> None:
    state = client.json("api/state")
    (network,) = state["networks"]
    assert network["default_layer"] == "final"
    assert next(each for each in network["layers"] if each["name"] == "stem")["field"] == [7, 7]
    assert [image["name"] for image in state["images"]] == ["a_L_CC.png", "b_R_MLO.png", "damaged.png"]
    assert state["images"][1]["laterality"] == "right"
    assert state["files"][0]["title"] == "<b>map</b>"  # the page inserts it as text


@pytest.mark.parametrize("layer", ["final", "stage1.0", "stem"])
def test_a_field_equals_the_gradient_of_the_library(client: Client, folder: Path, layer: str) -> None:
    """From the kept graph for `final`, whose field is larger than the image, and from crops for the others."""
    found = client.json("api/fields", {"layer": layer, "y": 100, "x": 80, "image": 1})
    network = erf.build_network("gmic", size=(256, 192))
    images = ImageSet.of(
        erf.load_images(folder / "images", n=3, size=(256, 192)).only("b_R_MLO.png").images, network.framing()
    )
    sample = images.sample(images.images[0])
    assert isinstance(sample, Sample)
    network.model.eval()
    gradient = erf.unit_gradient(network.model, torch.from_numpy(sample.pixels)[None], layer, tuple(found["unit"]))
    expected = gradient[0].abs().sum(0).numpy()
    assert ("crop" in found["way"]) == (layer != "final")
    assert np.abs(client.full(found["id"]) - expected).max() <= 1e-6 * 50 * expected.max()
    half, headers = client.array(f"api/fields/{found['id']}/map", "<f2")
    top, left, bottom, right = (int(float(edge)) for edge in headers["x-box"].split(","))
    assert np.abs(half.astype("f4") * found["max"] - expected[top:bottom, left:right]).max() <= 1e-3 * expected.max()
    outside = expected.copy()
    outside[top:bottom, left:right] = 0
    assert not outside.any()


def test_numbers_are_those_of_a_run(client: Client, folder: Path) -> None:
    found = client.json("api/fields", {"layer": "stage2.1", "unit": [6, 5]})
    numbers = client.json(f"api/fields/{found['id']}/numbers")
    network = erf.build_network("gmic", size=(256, 192))
    images = erf.load_images(folder / "images", n=3, size=(256, 192)).only("a_L_CC.png")
    run = erf.compute(network, images, layer="stage2.1", unit=(6, 5), device="cpu", progress=False)
    by_name = {each["name"]: each["value"] for each in numbers["measures"]}
    assert len(by_name) > 5
    for name, value in by_name.items():
        assert value == pytest.approx(float(erf.measure(run, name)), rel=1e-4), name
    assert numbers["curves"]["x"] == pytest.approx(
        run["all"].across_rows, rel=1e-3, abs=1e-4 * run["all"].across_rows.max()
    )
    assert [contour["share"] for contour in numbers["contours"]] == [0.5, 0.9, 0.99]


def test_the_projective_field_is_the_gradient_from_the_other_side(client: Client) -> None:
    seen = client.json("api/projective", {"layer": "stage4.1", "y": 128, "x": 96})
    values, _ = client.array(f"api/fields/{seen['id']}/map", "<f2")
    unit = np.unravel_index(np.abs(values).argmax(), values.shape)
    field = client.json(
        "api/fields", {"layer": "stage4.1", "unit": [int(index) for index in unit], "definition": "signed"}
    )
    assert client.full(seen["id"])[unit] == pytest.approx(client.full(field["id"])[128, 96], rel=1e-4)


def test_an_image_has_the_values_of_its_file(client: Client, folder: Path) -> None:
    pixels, headers = client.array("api/images/0/pixels", "<u2")
    assert np.array_equal(pixels, np.asarray(Pillow.open(folder / "images" / "a_L_CC.png")))
    assert headers["x-range"] == "0.0,65535.0"
    coarse, _ = client.array("api/images/0/pixels?level=3", "<u2")
    assert coarse.shape == (32, 24)
    assert client.ask("api/images/0/thumbnail")[2].startswith(b"\x89PNG")


def test_a_file_is_shown_without_a_network(folder: Path) -> None:
    with erf.explore(files=folder / "map.h5", open_browser=False) as alone:
        client = Client(alone)
        state = client.json("api/state")
        assert not state["networks"]
        assert not state["images"]
        mean, _ = client.array("api/files/0/map", "<f2")
        assert np.abs(mean.astype("f4") - gaussian(9) / gaussian(9).max()).max() < 1e-3
        assert client.json("api/files/0/numbers")["measures"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("api/images/2/pixels", None, "damaged"),
        ("api/images/9/pixels", None, "below 3"),
        ("api/images/-1/pixels", None, "whole number"),
        ("api/images/0/pixels?level=99", None, "at most"),
        ("api/images/0/pixels?network=7", None, "network 7"),
        ("api/fields", {"layer": "nonsense", "y": 1, "x": 1}, "nonsense"),
        ("api/fields", {"layer": "final", "y": "NaN", "x": 1}, "number of pixels"),
        ("api/fields", {"layer": "final", "y": 1e300, "x": 1}, "number of pixels"),
        ("api/fields", {"layer": "final", "unit": [99, 0]}, "outside"),
        ("api/fields", {"layer": "final", "y": 1, "x": 1, "channel": 99999}, "channel 99999"),
        ("api/fields", {"layer": "final", "y": 1, "x": 1, "channel": "signs"}, "square"),
        ("api/fields", {"layer": "final", "y": 1, "x": 1, "definition": "x"}, "definition"),
        ("api/fields", {"layer": "final", "y": 1, "x": 1, "image": 2}, "damaged"),
        ("api/fields", {"layer": "final", "y": 1, "x": 1, "input": 3}, "input 3"),
        ("api/fields", {"layer": ["final"], "y": 1, "x": 1}, "layer"),
        ("api/fields", [1], "JSON object"),
        ("api/fields", "{" * 5000, "JSON object"),
        ("api/projective", {"layer": "final", "y": 9999, "x": 1}, "outside"),
        ("api/projective", {"layer": "final", "y": 9, "x": 1, "channel": "signs"}, "channel signs"),
        ("api/projective", {"layer": "final", "y": 9, "x": 1, "channel": 9999}, "channel 9999"),
        ("api/fields/f999/map", None, "no longer there"),
        ("api/files/5/map", None, "file 5"),
        ("api/files/0/map?subset=nobody", None, "nobody"),
    ],
)
def test_a_bad_request_is_one_line_and_the_server_lives_on(client: Client, path: str, body: Any, words: str) -> None:
    status, _, content = client.ask(path, body)
    assert status == 422
    assert words in json.loads(content)["error"]
    assert "Traceback" not in content.decode()
    assert client.ask("api/state")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "api/../../secret.txt",
        "/etc/passwd",
        "explorer.py",
        "../subject.py",
        "api/images/..%2f..%2fsecret.txt/pixels",
        "api/images/a_L_CC.png/pixels",
    ],
)
def test_no_path_leads_to_a_file(client: Client, path: str) -> None:
    status, _, content = client.ask(path)
    assert status in (404, 422)
    assert b"do not read" not in content
    assert b"root:" not in content


def test_only_the_page_itself_is_answered(client: Client, explorer: erf.Explorer) -> None:
    own = f"http://127.0.0.1:{client.port}"
    right = f"/{client.prefix}/api/state"
    assert client.ask(right, whole=True)[0] == 200
    assert client.ask(right, headers={"Origin": own}, whole=True)[0] == 200
    for path, headers in (
        ("/", {}),
        ("/api/state", {}),
        ("/wrong/api/state", {}),
        (f"/{client.prefix[:-1]}/api/state", {}),
        (f"/{client.prefix}x/api/state", {}),
        (right, {"Host": "attacker.example"}),
        (right, {"Host": f"127.0.0.1.attacker.example:{client.port}"}),
        (right, {"Origin": "http://attacker.example"}),
        (right, {"Origin": "null"}),
        (right, {"Content-Length": "99999999"}),
        (right, {"Content-Length": "-5"}),
    ):
        status, answered, content = client.ask(path, headers=headers, whole=True)
        assert status in (400, 404), (path, headers)
        assert b"networks" not in content
        assert "access-control-allow-origin" not in answered
    _, headers, _ = client.ask("api/state")
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert client.prefix not in repr(client.ask("/nothing", whole=True))


def test_a_burst_and_vanished_clients_leave_a_working_server(client: Client) -> None:
    def burst(number: int) -> int:
        return client.ask("api/fields", {"layer": "stage2.1", "y": number % 250, "x": 50, "client": f"c{number % 7}"})[
            0
        ]

    for _ in range(5):  # they ask, and do not wait
        connection = http.client.HTTPConnection("127.0.0.1", client.port)
        body = json.dumps({"layer": "final", "y": 5, "x": 5})
        connection.request("POST", f"/{client.prefix}/api/fields", body, {"Content-Type": "application/json"})
        connection.close()
    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(burst, range(300)))
    assert set(statuses) <= {200, 409, 503}
    assert 200 in statuses
    assert client.json("api/fields", {"layer": "final", "y": 9, "x": 9})["unit"]


def test_two_clients_do_not_mix(client: Client) -> None:
    def series(layer: str) -> list[str]:
        return [
            client.json("api/fields", {"layer": layer, "y": 20 * step, "x": 30, "client": layer})["layer"]
            for step in range(1, 8)
        ]

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(series, ["stage1.0", "stage3.0"])
    assert set(one) == {"stage1.0"}
    assert set(other) == {"stage3.0"}


def test_kept_fields_stay_and_others_are_given_up(client: Client) -> None:
    first = client.json("api/fields", {"layer": "stem", "y": 9, "x": 9})["id"]
    second = client.json("api/fields", {"layer": "stem", "y": 19, "x": 9})["id"]
    client.json(f"api/fields/{first}/keep", {"kept": True})
    for step in range(14):
        client.json("api/fields", {"layer": "stem", "y": 30 + step, "x": 9})
    assert client.ask(f"api/fields/{first}/map")[0] == 200
    assert client.ask(f"api/fields/{second}/map")[0] == 422
    client.json(f"api/fields/{first}/keep", {"kept": False})


def test_a_field_can_be_taken_along(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = client.json("api/fields", {"layer": "stage1.0", "unit": [9, 7]})
    content = client.ask(f"api/fields/{found['id']}/export?format=h5")[2]
    (tmp_path / "field.h5").write_bytes(content)
    run = erf.load(tmp_path / "field.h5")
    assert run.provenance.unit == (9, 7)
    expected = client.full(found["id"])
    assert np.abs(run["all"].mean - expected).max() <= 1e-5 * expected.max()
    assert client.ask(f"api/fields/{found['id']}/export?format=svg")[2].lstrip().startswith(b"<?xml")
    assert client.ask(f"api/fields/{found['id']}/export?format=exe")[0] == 422
    lines = client.json(f"api/fields/{found['id']}/reproduce")
    assert "--layer stage1.0 --unit 9,7" in lines["command"]
    names: dict[str, Any] = {}
    exec(lines["python"].replace("result.plot()", ""), names)  # our own lines
    assert np.abs(names["result"]["all"].mean - expected).max() <= 1e-5 * expected.max()


class Noisy(nn.Module):
    """A network that draws random numbers in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 2, 5, padding=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.second(nn.functional.dropout(self.first(image), 0.5, training=True))
        return maps


ARRAYS = [np.random.default_rng(number).normal(size=(1, 64, 48)).astype("f4") for number in range(2)]


@pytest.mark.filterwarnings("ignore::erf.errors.SelfCheckWarning")  # of random numbers, in one layout and another
@pytest.mark.parametrize(
    ("model", "images", "options"),
    [
        ("gmic", "folder", {"weights": "none", "seed": 3, "n": 2, "image_seed": 5}),
        ("gmic", "folder", {"fit": "crop:0.9", "normalisation": "unit", "interpolation": "bicubic", "n": 2}),
        ("gmic", "phantom", {"image_seed": 7, "n": 3}),
        ("gmic", ARRAYS, {}),
        ("timm:resnet18", "folder", {"seed": 2, "n": 2}),
        (Noisy, "folder", {"seed": 4, "n": 2}),
    ],
)
def test_the_lines_compute_the_same_field_with_any_options(
    folder: Path, model: Any, images: Any, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    built = model if isinstance(model, str) else model()
    given = folder / "images" if images == "folder" else images
    size = None if images is ARRAYS else (96, 64)
    with erf.explore(built, given, size=size or (64, 48), device="cpu", open_browser=False, **options) as running:
        client = Client(running)
        layer = client.json("api/state")["networks"][0]["default_layer"]
        asked = {"layer": layer, "y": 30, "x": 20, "image": 1}
        field = client.json("api/fields", asked | {"channel": "signs", "definition": "square"})
        pixel = client.json("api/projective", asked)
        for found in (field, pixel):
            names: dict[str, Any] = {"model": built, "images": given}
            lines = client.json(f"api/fields/{found['id']}/reproduce")["python"]
            exec(lines.replace("result.plot()", ""), names)  # our own lines
            expected = client.full(found["id"])
            seen = names["result"].statistics("all", "square").mean if found is field else names["field"].map
            assert expected.any()
            assert np.abs(seen - expected).max() <= 1e-4 * np.abs(expected).max(), lines
        command = client.json(f"api/fields/{field['id']}/reproduce")["command"]
        assert bool(command) == (isinstance(model, str) and images is not ARRAYS)
        for name, value in options.items() if command else ():
            flag = {"n": "-n", "normalisation": "--normalise"}.get(name, f"--{name.replace('_', '-')}")
            assert f"{flag} {value}" in command


def test_no_thread_is_left_behind(folder: Path) -> None:
    before = set(threading.enumerate())
    with erf.explore("gmic", folder / "images", size=(256, 192), device="cpu", open_browser=False) as running:
        Client(running).ask("api/fields", {"layer": "final", "y": 9, "x": 9})
    running.stop()  # a second time does nothing
    end = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < end:
        time.sleep(0.05)
    assert not [thread.name for thread in set(threading.enumerate()) - before if "erf" in thread.name]


def test_a_taken_port_and_a_weak_token_are_refused(explorer: erf.Explorer, folder: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(erf.InputError, match="port"):
        erf.explore(files=folder / "map.h5", port=explorer.port, open_browser=False)
    with pytest.raises(erf.InputError, match="token"):
        erf.explore(files=folder / "map.h5", token="short", open_browser=False)
    with pytest.raises(erf.InputError, match="token"):
        erf.explore(files=folder / "map.h5", token="a/../../b?c#d&e=f", open_browser=False)
    with pytest.raises(erf.InputError, match="neither"):
        erf.explore(open_browser=False)
    assert not [thread.name for thread in set(threading.enumerate()) - before if "erf" in thread.name]
    with erf.explore(files=folder / "map.h5", token="0123456789abcdef", open_browser=False) as digits:
        assert digits.url.endswith("/0123456789abcdef/")


class Failing(nn.Module):
    """A network that raises an error once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.error: BaseException | None = None

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.error is not None:
            raise self.error
        maps: torch.Tensor = self.first(image)
        return maps


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
        (MemoryError(), "out of memory"),
        (RuntimeError("\n"), "failed"),
    ],
)
def test_whatever_a_network_raises_is_one_line(error: BaseException, words: str) -> None:
    model = Failing()
    with erf.explore(model, size=(64, 48), n=1, memory=0, device="cpu", open_browser=False) as running:
        client = Client(running)
        client.json("api/state")
        model.error = error
        status, _, content = client.ask("api/fields", {"layer": "first", "y": 9, "x": 9})
        assert status in (422, 500)
        assert words in json.loads(content)["error"]
        model.error = None
        assert client.json("api/fields", {"layer": "first", "y": 9, "x": 9})["unit"]


def test_a_path_that_is_no_utf_8_is_shown(folder: Path) -> None:
    odd = folder / "odd\udcff"
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    (odd / "map\udcff.h5").write_bytes((folder / "map.h5").read_bytes())
    (odd / "a.png").write_bytes((folder / "images" / "a_L_CC.png").read_bytes())
    with erf.explore(
        "gmic", odd, files=odd / "map\udcff.h5", size=(128, 96), device="cpu", open_browser=False
    ) as running:
        client = Client(running)
        assert client.json("api/state")["files"][0]["name"] == "map\udcff.h5"
        found = client.json("api/fields", {"layer": "stem", "y": 9, "x": 9})
        assert "odd" in client.json(f"api/fields/{found['id']}/reproduce")["command"]


class Lying(nn.Module):
    """A network whose fast gradient would be wrong: a unit's value depends on the size of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 5, padding=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.first(image)
        return maps * maps.shape[-1]


def subject(model: nn.Module, memory: int = 10**9) -> Subject:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images = erf.from_arrays([rng.normal(size=(1, 64, 48)).astype("f4")])
    return Subject(erf.build_network(model, size=(64, 48)), Pictures(images), CPU, memory)


@pytest.mark.parametrize("memory", [10**9, 0])
def test_a_crop_in_which_a_unit_has_another_value_is_not_used(memory: int) -> None:
    torch.manual_seed(0)
    seen = subject(Lying(), memory)
    found = seen.field(Place(0, 0, "output", unit=(20, 20)), "f")
    inputs = torch.from_numpy(seen.pictures.sample(0).pixels)[None]
    expected = erf.unit_gradient(seen.network.model, inputs, "output", (20, 20))[0].abs().sum(0).numpy()
    assert "crop" not in found.way
    assert np.abs(found.whole() - expected).max() <= 1e-5 * expected.max()
    small = seen.field(Place(0, 0, "first", unit=(20, 20)), "f")
    assert "crop" in small.way


class Fixed(nn.Module):
    """A network that runs on whole images only: it picks rows by fixed numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 5, padding=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.first(image)[:, :, torch.arange(8, 56)]


class Indices(nn.Module):
    """A network with a map of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool = nn.Conv2d(1, 2, 5, padding=2), nn.MaxPool2d(2, return_indices=True)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.pool(self.first(image))[0]
        return maps


@pytest.mark.parametrize("memory", [10**9, 0])
def test_a_network_that_fails_on_a_crop_is_computed_on_the_whole_image(memory: int) -> None:
    seen = subject(Fixed(), memory)
    found = seen.field(Place(0, 0, "output", unit=(20, 20)), "f")
    inputs = torch.from_numpy(seen.pictures.sample(0).pixels)[None]
    expected = erf.unit_gradient(seen.network.model, inputs, "output", (20, 20))[0].abs().sum(0).numpy()
    assert np.abs(found.whole() - expected).max() <= 1e-5 * expected.max()


def test_a_map_of_whole_numbers_has_no_gradient() -> None:
    seen = subject(Indices())
    with pytest.raises(erf.LayerError, match="no gradient"):
        seen.field(Place(0, 0, "pool:1", unit=(20, 20)), "f")


def test_a_layer_that_differs_from_the_plain_computation_is_computed_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    seen = subject(nn.Sequential(nn.Conv2d(1, 4, 41, padding=20), nn.Conv2d(4, 2, 41, padding=20)))
    place = Place(0, 0, "1", unit=(30, 20))
    right = seen.field(place, "a")
    seen.check(right)
    assert [check.ok for check in seen.checks.values()] == [True]
    seen.checks.clear()
    wrong = replace(right, map=right.map * 1.01)
    seen.check(wrong)  # as by rounding: with noise, both ways agree
    assert [check.ok for check in seen.checks.values()] == [True]
    assert "where rounding decides" in seen.checks["1"].text
    seen.checks.clear()
    fast = seen.passes.gradient

    def off(target: Target, sample: Sample, is_cancelled: Any = None) -> Gradient:
        found = fast(target, sample)
        return replace(found, values=found.values * 1.01)

    monkeypatch.setattr(seen.passes, "gradient", off)
    seen.check(wrong)
    assert [check.ok for check in seen.checks.values()] == [False]
    again = seen.field(place, "b")
    assert "the library's backward passes" in again.way
    assert np.abs(again.map - right.whole()).max() <= 1e-5 * right.largest


def test_channels_that_cancel_are_refused() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(1, 8, 5, padding=2), nn.LayerNorm(8)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            maps: torch.Tensor = self.first(image)
            return self.norm(maps.permute(0, 2, 3, 1))

    for memory in (10**9, 0):
        seen = subject(Normed(), memory)
        with pytest.raises(erf.LayerError, match="rounding"):
            seen.field(Place(0, 0, "norm", unit=(9, 9)), "f")
        assert seen.field(Place(0, 0, "norm", channel=2, unit=(9, 9)), "f").largest > 0


class Waiting(nn.Module):
    """A network of two hundred steps, each of which takes a while."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(200)))
        self.pause = 0.0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            time.sleep(self.pause)
            image = step(image)
        return image


@pytest.mark.parametrize("memory", [None, 0])
def test_stopping_ends_the_pass_that_runs(memory: float | None) -> None:
    model = Waiting()
    running = erf.explore(model, size=(32, 32), n=1, memory=memory, device="cpu", open_browser=False)
    client = Client(running)
    client.json("api/state")
    model.pause = 0.05
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.ask, "api/fields", {"layer": "output", "y": 9, "x": 9})
        time.sleep(0.5)
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 5
        assert asked.result(10)[0] >= 400


def test_two_explorers_of_one_network_leave_it_as_it_was() -> None:
    model = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(100))).train()
    options: dict[str, Any] = {"size": (32, 32), "n": 2, "device": "cpu", "open_browser": False}
    with erf.explore(model, **options) as one, erf.explore(model, **options) as other:

        def ask(client: Client) -> set[int]:
            return {
                client.ask("api/fields", {"layer": "99", "unit": [9, step], "image": step % 2})[0] for step in range(20)
            }

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(ask, (Client(one), Client(other)))) == [{200}, {200}]
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_newer_request_of_a_client_replaces_its_older_ones() -> None:
    worker, running, go = Worker(), threading.Event(), threading.Event()

    def slow(is_cancelled: Any) -> str:
        running.set()
        go.wait(10)
        if is_cancelled():
            raise CancelledError
        return "old"

    first = worker.submit(slow, "one")
    running.wait(10)
    waiting, other = worker.submit(lambda _: "waiting", "one"), worker.submit(lambda _: "other", "two")
    last = worker.submit(lambda _: "last", "one")
    go.set()
    assert last.result(10) == "last"
    assert other.result(10) == "other"
    for old in (first, waiting):
        with pytest.raises(SupersededError):
            old.result(10)
    worker.stop()
    assert not worker.is_alive


def test_whoever_goes_away_leaves_the_worker_alive() -> None:
    worker, running, go = Worker(), threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        running.set()
        go.wait(10)

    first = worker.submit(slow, "one")
    running.wait(10)
    waiting = worker.submit(lambda _: None, "two")
    assert waiting.cancel()
    first.cancel()
    worker.submit(lambda _: None, "two")  # replaces one that has gone
    go.set()
    assert worker.submit(lambda _: "there", "three").result(10) == "there"
    worker.stop()


def test_idle_work_waits_for_a_pause_and_makes_way() -> None:
    worker, done = Worker(), threading.Event()
    seen: list[bool] = []

    def check(is_cancelled: Any) -> None:
        end = time.monotonic() + 10
        while not is_cancelled() and time.monotonic() < end:
            time.sleep(0.005)
        seen.append(is_cancelled())
        done.set()

    worker.when_idle("check", check)
    time.sleep(0.1)
    assert worker.submit(lambda _: "soon").result(5) == "soon"
    assert done.wait(5)
    assert seen == [True]
    worker.stop()


def test_an_image_is_decoded_once_for_several_fields() -> None:
    count = 0

    def decode() -> Any:
        nonlocal count
        count += 1
        return erf.images.Decoded(np.random.default_rng(0).normal(size=(1, 64, 48)).astype("f4"), "x")

    model = nn.Sequential(nn.Conv2d(1, 4, 5, padding=2))
    network = erf.build_network(model, size=(64, 48))
    images = ImageSet.of([Image("one", "one", decode)], network.framing())
    seen = Subject(network, Pictures(images), CPU, 10**9)
    for row in range(4):
        seen.field(Place(0, 0, "0", unit=(row, 9)), "f")
    assert count == 1


def test_contours_enclose_their_share_where_they_should() -> None:
    y, x = np.mgrid[:200, :160]
    sigma, center = 20.0, (90.0, 70.0)
    map_ = np.exp(-((y - center[0]) ** 2 + (x - center[1]) ** 2) / (2 * sigma**2))
    radii = {share: sigma * math.sqrt(-2 * math.log(1 - share)) for share in (0.5, 0.9, 0.99)}
    for share, lines in contour_lines(map_, Box(10.0, 20.0, 210.0, 180.0), radii):
        (line,) = lines
        away = np.hypot(line[:, 1] - center[0] - 10, line[:, 0] - center[1] - 20)
        assert away == pytest.approx(radii[share], rel=0.05), share


def test_the_usual_port_need_not_be_named() -> None:
    guard = Guard(Starlette(), "secret")
    guard.listen_on(80)
    assert "127.0.0.1" in guard.hosts
    guard.listen_on(8400)
    assert guard.hosts == {"127.0.0.1:8400", "localhost:8400"}


def test_a_wrong_backward_pass_of_the_library_is_not_shown() -> None:
    """An instance norm before attention has a wrong gradient in some memory layouts."""
    model = RandomNetwork(553).double()
    pixels = np.random.default_rng(553).normal(size=model.shape).astype("f4")
    network = erf.build_network(model, size=(model.shape[1], model.shape[2]))
    seen = Subject(network, Pictures(erf.from_arrays([pixels])), CPU, 10**9)
    name = list(seen.layers)[-1]
    layout = seen.layers[name].trace.layout
    unit = tuple(length // 2 for length in seen.layers[name].trace.feature_shape[1:])
    found = seen.field(Place(0, 0, name, unit=unit, definition="signed"), "f")
    inputs = torch.from_numpy(seen.pictures.sample(0).pixels)[None].double()
    model.eval()

    def value(image: torch.Tensor) -> float:
        with torch.no_grad():
            index: tuple[Any, ...] = (0, slice(None), *unit)
            return float(layout.as_map(model(image))[index].sum())

    for y, x in (np.unravel_index(np.abs(found.map).argmax(), found.map.shape), (10, 13)):
        step = torch.zeros_like(inputs)
        step[0, 0, int(y), int(x)] = 1e-5
        slope = (value(inputs + step) - value(inputs - step)) / 2e-5
        assert found.whole()[int(y), int(x)] == pytest.approx(slope, abs=1e-5 * found.largest)
    assert seen.check_of(found) is not None


def test_a_network_takes_the_size_of_arrays() -> None:
    arrays = [np.random.default_rng(0).normal(size=(1, 64, 48)).astype("f4")]
    with erf.explore(nn.Conv2d(1, 2, 3, padding=1), arrays, device="cpu", open_browser=False) as running:
        found = Client(running).json("api/fields", {"layer": "output", "y": 9, "x": 9})
        assert Client(running).full(found["id"]).shape == (64, 48)
    with pytest.raises(erf.InputError, match="64x48"):
        erf.explore(nn.Conv2d(1, 2, 3), arrays, size=32, device="cpu", open_browser=False)


def test_half_precision_does_not_excuse_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    seen = subject(nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 2, 41, padding=20)).bfloat16())
    fast = seen.passes.gradient

    def off(target: Target, sample: Sample, is_cancelled: Any = None) -> Gradient:
        found = fast(target, sample)
        return replace(found, values=found.values * 1.2)

    monkeypatch.setattr(seen.passes, "gradient", off)
    found = seen.field(Place(0, 0, "1", unit=(30, 20)), "f")
    assert "the library's backward passes" in found.way
