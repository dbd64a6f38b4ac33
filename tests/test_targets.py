"""Targets other than the sum over the channels of a unit: windows, probabilities, rectified values, edges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

import erf
from erf.box import Box
from erf.errors import ErfError, ImageWarning, LayerError

SIZE = (40, 36)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, 2, 1), nn.Tanh(), nn.Conv2d(6, 5, 3, padding=1), nn.Tanh(), nn.Conv2d(5, 4, 3, padding=1)
    ).double()


@pytest.fixture(scope="module")
def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(1, *SIZE)).astype(np.float32).astype(float) for _ in range(3)]


def run(network: nn.Module, arrays: list[np.ndarray], **settings: Any) -> np.ndarray:
    options: dict[str, Any] = {"layer": "4", "definitions": "signed", "device": "cpu", "progress": False} | settings
    return erf.compute(network, arrays, **options).statistics("all", str(options["definitions"])).mean


def by_autograd(network: nn.Module, arrays: list[np.ndarray], value: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Mean gradient of a function of the map (C, h, w)."""
    found = []
    for array in arrays:
        image = torch.from_numpy(array)[None].requires_grad_()
        (gradient,) = torch.autograd.grad(value(network(image)[0]), image)
        found.append(gradient[0].sum(0).numpy())
    return np.mean(found, axis=0)


TARGETS: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "relu": ({"activation": "relu"}, lambda map_: map_[:, 10, 9].relu().sum()),
    "sigmoid": ({"activation": "sigmoid", "unit": "3,4"}, lambda map_: map_[:, 3, 4].sigmoid().sum()),
    "softmax": ({"activation": "softmax", "channel": 2}, lambda map_: map_[:, 10, 9].softmax(0)[2]),
    "window": ({"unit": "window:4x5"}, lambda map_: map_[:, 8:12, 7:12].sum()),
    "window at a unit": ({"unit": "window:2x2@1,17"}, lambda map_: map_[:, 0:2, 16:18].sum()),
    "window of probabilities": (
        {"unit": "window:3x3", "activation": "softmax", "channel": 1},
        lambda map_: map_.softmax(0)[1, 9:12, 8:11].sum(),
    ),
    "edges": (
        {"unit": "window:4x4", "activation": "edges"},
        lambda map_: torch.stack(
            [
                ((map_[:, y + 1, x] - map_[:, y, x]) ** 2 + (map_[:, y, x + 1] - map_[:, y, x]) ** 2).sqrt().sum()
                for y in range(8, 12)
                for x in range(7, 11)
            ]
        ).sum(),
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_maps_equal_those_of_autograd(network: nn.Module, arrays: list[np.ndarray], name: str) -> None:
    settings, value = TARGETS[name]
    expected = by_autograd(network, arrays, value)
    np.testing.assert_allclose(run(network, arrays, **settings), expected, rtol=0, atol=1e-6 * abs(expected).max())


def test_a_window_is_the_sum_of_its_units(network: nn.Module, arrays: list[np.ndarray]) -> None:
    units = [run(network, arrays, unit=(y, x)) for y in (9, 10) for x in (8, 9)]
    window = run(network, arrays, unit="window:2x2")
    np.testing.assert_allclose(window, np.sum(units, axis=0), rtol=0, atol=1e-6 * abs(window).max())


def test_the_theoretical_field_of_a_window_contains_those_of_its_units(
    network: nn.Module, arrays: list[np.ndarray]
) -> None:
    settings: dict[str, Any] = {"layer": "4", "device": "cpu", "progress": False}
    window = erf.compute(network, arrays[:1], unit="window:4x5", **settings)
    corners = [
        erf.compute(network, arrays[:1], unit=unit, **settings).provenance.field_box() for unit in ((8, 7), (11, 11))
    ]
    box, (first, last) = window.provenance.field_box(), corners
    assert box is not None
    assert first is not None
    assert last is not None
    assert box == Box(first.top, first.left, last.bottom, last.right)
    support = np.argwhere(window["all"].mean != 0)
    assert [*support.min(0), *(support.max(0) + 1)] == [edge + 0.5 for edge in box]
    assert window.provenance.target == "layer 4, window of 4x5 units around 10,9"


def test_the_theoretical_field_of_edges_holds_the_unit_after_the_window(
    network: nn.Module, arrays: list[np.ndarray]
) -> None:
    settings: dict[str, Any] = {"layer": "4", "device": "cpu", "progress": False}
    edges = erf.compute(network, arrays, unit="window:4x5", activation="edges", **settings)
    box = edges.provenance.field_box()
    assert box is not None
    support = np.argwhere(edges["all"].mean != 0)
    assert [*support.min(0), *(support.max(0) + 1)] == [edge + 0.5 for edge in box]


def test_channels_that_are_negative_give_no_gradient(arrays: list[np.ndarray]) -> None:
    network = nn.Conv2d(1, 2, 3, padding=1).double()
    assert network.bias is not None
    nn.init.constant_(network.bias, -1e3)
    with pytest.warns(ImageWarning, match="3 of 3 images, first array:0: the gradient is zero everywhere"):
        result = erf.compute(network, arrays, layer="output", activation="relu", device="cpu", progress=False)
    assert not result["all"].mean.any()
    assert "the gradient is zero everywhere" in result.images[0].message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "tanh"}, "activation 'tanh' not known; expected one of none, relu"),
        ({"activation": "softmax"}, "probabilities of a softmax sum to 1; choose one `channel`"),
        ({"activation": "edges"}, "edges of a single unit; choose a window"),
        ({"unit": "window:30x2"}, "unit 'window:30x2' lies outside layer '4', whose map is 20x18"),
        ({"unit": "window:2x2@19,17;3,3"}, "a window and others"),
        ({"unit": "window:2x2@25,17"}, "lies outside"),
        ({"unit": "window:0x2"}, "lies outside"),
        ({"unit": "window:2"}, "lies outside"),
        ({"unit": "window:2x2", "aligned": True}, "cannot be aligned"),
    ],
)
def test_wrong_targets_are_refused(
    network: nn.Module, arrays: list[np.ndarray], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ErfError, match=message):
        run(network, arrays, **settings)


def test_captums_methods_take_windows_too(network: nn.Module, arrays: list[np.ndarray]) -> None:
    plain = run(network, arrays, unit="window:3x3", activation="sigmoid")
    guided = run(network, arrays, unit="window:3x3", activation="sigmoid", method="guided-backprop")
    np.testing.assert_allclose(guided, plain, rtol=0, atol=1e-6 * abs(plain).max())  # there is no ReLU


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of two images with masks of three pixels and of two, and each of these points in a column."""
    folder, rng = tmp_path_factory.mktemp("masked"), np.random.default_rng(2)
    points = [[(10, 8), (11, 9), (30, 21)], [(16, 16), (20, 25)]]
    rows = ["path,mask,first,second,third"]
    for number, places in enumerate(points):
        mask = np.zeros(SIZE, np.uint8)
        for y, x in places:
            mask[y, x] = 255
        np.save(folder / f"{number}.npy", rng.integers(0, 255, (1, *SIZE)).astype(np.uint8))
        Pillow.fromarray(mask).save(folder / f"mask{number}.png")
        texts = [f'"{y},{x}"' for y, x in (places * 2)[:3]]
        rows.append(f"{number}.npy,mask{number}.png,{','.join(texts)}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder / "manifest.csv"


def test_a_mask_is_the_mean_of_its_pixels(masked: Path, network: nn.Module) -> None:
    options: dict[str, Any] = {"layer": "4", "size": SIZE, "device": "cpu", "progress": False, "definitions": "abs"}
    found = erf.compute(network, masked, n=2, unit="mask:mask:all", **options)
    assert {record.columns["unit"] for record in found.images} == {"5,4;6,4;15,10", "8,8;10,12"}
    single = [
        erf.compute(network, masked, n=2, unit=f"column:{name}", **options) for name in ("first", "second", "third")
    ]
    profiles = [result.profiles["abs"].small for result in (found, *single)]
    for row, record in enumerate(found.images):
        count = 3 if record.path == "0.npy" else 2
        mean = np.mean([one[row] for one in profiles[1 : 1 + count]], axis=0)
        np.testing.assert_allclose(profiles[0][row], mean, rtol=0, atol=1e-6 * mean.max())
    drawn = erf.compute(network, masked, n=2, unit="mask:mask:2", **options)
    assert {record.columns["unit"].count(";") for record in drawn.images} == {1}
    again = erf.compute(network, masked, n=2, unit="mask:mask:2", **options)
    np.testing.assert_array_equal(drawn["all"].mean, again["all"].mean)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("../mask0.png", "outside the manifest's folder"),
        ("", "column 'mask' is empty"),
        ("2.npy", "expected 40x36"),
        ("3.npy", "no pixel inside the frame"),
    ],
)
def test_a_mask_that_cannot_be_used_fails_its_image(
    tmp_path: Path, network: nn.Module, mask: str, message: str
) -> None:
    np.save(tmp_path / "0.npy", np.random.default_rng(0).integers(0, 255, (1, *SIZE)).astype(np.uint8))
    np.save(tmp_path / "2.npy", np.ones((1, 4, 4), np.uint8))
    np.save(tmp_path / "3.npy", np.zeros((1, *SIZE), np.uint8))
    (tmp_path / "manifest.csv").write_text(f"path,mask\n0.npy,{mask}\n")
    with pytest.raises(ErfError, match=message):
        erf.compute(
            network,
            tmp_path / "manifest.csv",
            n=1,
            layer="4",
            size=SIZE,
            unit="mask:mask",
            device="cpu",
            progress=False,
        )
    for choice in ("mask:mask:0", "mask:", "mask:mask:5000", "mask:mask:some"):
        with pytest.raises(ErfError, match="expected mask:NAME"):
            erf.Settings(unit=choice)


def test_blanks_around_a_window_change_nothing(network: nn.Module, arrays: list[np.ndarray]) -> None:
    """A window that the settings did not see was a single unit."""
    options: dict[str, Any] = {"layer": "output", "device": "cpu", "progress": False}
    one, other = (erf.compute(network, arrays, unit=unit, **options) for unit in ("window:3x3", " window:3x3 "))
    np.testing.assert_array_equal(one["all"].mean, other["all"].mean)
    with pytest.raises(LayerError, match="not understood"):
        erf.compute(network, arrays, unit="window:3x3@ , ", **options)
