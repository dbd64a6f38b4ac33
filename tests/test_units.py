"""Units of any choice, channels, alignment: each against what single gradients give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn

import erf
from erf.engine.batches import moved
from erf.errors import InputError, LayerError
from erf.gradients.autograd import unit_gradient
from erf.gradients.units import resolve_units
from erf.images.image import Placement, Sample
from erf.network.modes import frozen
from erf.theory.axis import AxisField
from erf.theory.fields import ReceptiveField
from erf.theory.sampling import window
from erf.theory.tracing import trace
from tests.agreement import assert_statistics_agree
from tests.conftest import SIDES, small_network

FIELD = ReceptiveField((window(AxisField(), 3, 4, 0, 1), window(AxisField(), 3, 4, 0, 1)))  # centred on 1, 5, 9 …


@pytest.mark.parametrize(
    ("choice", "units"),
    [
        ("center", [(3, 2)]),
        ((1, 0), [(1, 0)]),
        ("1, 0", [(1, 0)]),
        ("1,0; 6,4; 1,0", [(1, 0), (6, 4)]),
        ([(1, 0), (6, 4)], [(1, 0), (6, 4)]),
        ("pixel:9,5", [(2, 1)]),
        ("pixel:10.9,3.1", [(2, 1)]),
        ("pixel:0,0", [(0, 0)]),
        ("grid:2x1", [(1, 2), (5, 2)]),
        ("grid:7x5", [(y, x) for y in range(7) for x in range(5)]),
        ("max", [(3, 2)]),
        ("column:lesion", [(3, 2)]),
    ],
)
def test_choices(choice: Any, units: list[tuple[int, int]]) -> None:
    assert resolve_units(choice, "final", (7, 5), FIELD) == tuple(units)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("middle", "unit 'middle' not understood; expected center"),
        ("7,0", "unit 7,0 lies outside layer 'final', whose map is 7x5; expected y below 7 and x below 5"),
        ("1,2,3", "lies outside"),
        ("pixel:100,2", "lies outside"),
        ("pixel:1", "1 coordinates"),
        ("grid:8x1", "a grid of 8x1 units"),
        ("grid:2", "a grid of 2 units"),
        ("", "unit '' not understood"),
    ],
)
def test_choices_that_are_not_there(choice: Any, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        resolve_units(choice, "final", (7, 5), FIELD)


def gradients_of(model: nn.Module, arrays: list[np.ndarray], layer: str, units: list[tuple[int, int]]) -> np.ndarray:
    """(image, unit, H, W), absolute gradients one by one."""
    found = []
    with frozen(model):
        for array in arrays:
            inputs = torch.from_numpy(array.astype(np.float32))[None].to(next(model.parameters()))
            found.append([unit_gradient(model, inputs, layer, unit)[0].abs().sum(0).double().numpy() for unit in units])
    return np.array(found)


@pytest.fixture
def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal((1, 40, 32)) for _ in SIDES]


def test_several_units_share_the_forward_pass(arrays: list[np.ndarray]) -> None:
    model, units = small_network(), [(0, 0), (3, 3), (6, 2)]
    calls: list[int] = []
    model[0].register_forward_hook(lambda *call: calls.append(len(call[1][0])))
    images = erf.from_arrays(arrays, SIDES)
    settings = erf.Settings(unit=units, device="cpu", crop=False, batch_size=1)
    found = erf.compute_layers(model, images, ["5"], settings)
    # One pass to trace the network, two for the channels of a unit, and one for each image; two for the self-check:
    # the plain gradient, the fast one.
    assert calls == [1] * (1 + 2 + 2 + len(arrays))
    expected = gradients_of(model, arrays, "5", units)
    for place, result in enumerate(found):
        assert result.provenance.unit == units[place]
        assert_statistics_agree(result.statistics(), expected[:, place], rtol=1e-11)


def test_units_that_see_little_have_a_crop_each() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)).double()
    arrays = [np.random.default_rng(5).standard_normal((1, 200, 160))]
    units = [(3, 3), (44, 20), (20, 36)]
    found = erf.compute_layers(model, erf.from_arrays(arrays), ["2"], erf.Settings(unit=units, device="cpu"))
    expected = gradients_of(model, arrays, "2", units)
    for place, result in enumerate(found):
        top, left, bottom, right = result.provenance.crop
        assert (bottom - top) * (right - left) < 32 * 32
        assert_statistics_agree(result.statistics(), expected[:, place], rtol=1e-11)


def shifted(maps: np.ndarray, by: tuple[int, ...]) -> np.ndarray:
    """By padding with zeros and cutting: another way than the engine's."""
    height, width = maps.shape
    padded = np.pad(maps, ((height, height), (width, width)))
    return padded[height - by[0] : 2 * height - by[0], width - by[1] : 2 * width - by[1]]


def test_aligned_units_are_averaged_on_the_centre(arrays: list[np.ndarray]) -> None:
    model, units = small_network(), [(1, 1), (3, 3), (5, 2)]
    (found,) = erf.compute_layers(
        model, erf.from_arrays(arrays, SIDES), ["5"], erf.Settings(unit=units, aligned=True, device="cpu")
    )
    field = trace(model, ["5"], (1, 40, 32))["5"].field
    center = found.provenance.unit_center
    assert center == field.center(found.provenance.unit)
    singles = gradients_of(model, arrays, "5", units)
    steps = [tuple(round(a - b) for a, b in zip(center, field.center(unit), strict=True)) for unit in units]
    means = np.array(
        [np.mean([shifted(one, by) for one, by in zip(image, steps, strict=True)], 0) for image in singles]
    )
    assert_statistics_agree(found.statistics(), means, rtol=1e-11)
    assert found.provenance.aligned


def test_the_strongest_unit_of_each_image(arrays: list[np.ndarray]) -> None:
    model = small_network()
    found = erf.compute(model, erf.from_arrays(arrays, SIDES), layer="5", unit="max", device="cpu")
    field = trace(model, ["5"], (1, 40, 32))["5"].field
    center = found.provenance.unit_center
    maps = {}
    for number, array in enumerate(arrays):
        with torch.no_grad(), frozen(model):
            total = model(torch.from_numpy(array.astype(np.float32))[None].to(next(model.parameters())))[0].sum(0)
        unit = divmod(int(total.argmax()), total.shape[1])
        by = tuple(round(a - b) for a, b in zip(center, field.center(unit), strict=True))
        maps[number] = shifted(gradients_of(model, [array], "5", [unit])[0, 0], by)
        record = next(record for record in found.images if record.number == number)
        assert record.columns["unit"] == f"{unit[0]},{unit[1]}"
    assert_statistics_agree(found.statistics(), list(maps.values()), rtol=1e-11)


def test_units_from_a_manifest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["path,lesion"]
    points = {"a.png": "20,9", "b.png": '"10,5,14,9"', "c.png": "somewhere", "d.png": "90,3"}
    for name, point in points.items():
        Pillow.fromarray(rng.integers(0, 255, (30, 24), dtype=np.uint8)).save(tmp_path / name)
        rows.append(f'{name},"{point}"' if not point.startswith('"') else f"{name},{point}")
    (tmp_path / "m.csv").write_text("\n".join(rows))
    images = erf.load_images(tmp_path / "m.csv", size=(40, 32))
    model = small_network().float()
    found = erf.compute(model, images, layer="5", unit="column:lesion", device="cpu")
    records = {record.path: record for record in found.images}
    field = trace(model, ["5"], (1, 40, 32))["5"].field
    for name, (y, x) in {"a.png": (20, 9), "b.png": (12, 7)}.items():
        sample = images.sample(next(image for image in images.images if image.path == name))
        assert isinstance(sample, Sample)
        placed = (y + sample.placement.top, x + sample.placement.left)
        assert records[name].columns["unit"] == ",".join(map(str, field.nearest(placed)))
        # The image is in the frame where the placement says.
        assert sample.placement.top == 5
    assert "expected y,x or top,left,bottom,right" in records["c.png"].message
    assert "lies outside the frame" in records["d.png"].message


def test_a_point_of_a_file_in_the_frame() -> None:
    assert Placement().to_frame(3, 4) == (3, 4)
    assert Placement((1, 1), -2, 5).to_frame(3, 4) == (1, 9)
    assert Placement((1, 1), 0, 0, 10).to_frame(3, 4) == (3, 5)
    # Twice as small: the middle of four pixels.
    assert Placement((0.5, 0.5)).to_frame(0.5, 2.5) == (0, 1)


def test_moving_a_map() -> None:
    source = torch.arange(12.0).reshape(1, 3, 4)
    for by in ((0, 0), (1, -2), (-2, 3), (3, 0), (0, -9)):
        expected = np.zeros((3, 4)) if max(abs(by[0]) - 2, abs(by[1]) - 3) > 0 else shifted(source[0].numpy(), by)
        np.testing.assert_array_equal(moved(source, by)[0], expected)


def test_one_channel(arrays: list[np.ndarray]) -> None:
    model = small_network()
    found = erf.compute(model, erf.from_arrays(arrays), layer="5", channel=3, definitions=("signed",), device="cpu")
    expected = []
    for array in arrays:
        source = torch.from_numpy(array.astype(np.float32))[None].to(next(model.parameters())).requires_grad_()
        model.eval()(source)[(0, 3, *found.provenance.unit)].backward()
        assert source.grad is not None
        expected.append(source.grad[0].sum(0).numpy())
    assert_statistics_agree(found.statistics("all", "signed"), expected, rtol=1e-11)
    with pytest.raises(LayerError, match="channel 8 of layer '5', which has 8; expected a number below that"):
        erf.compute(model, erf.from_arrays(arrays), layer="5", channel=8, device="cpu")


def test_random_signs_estimate_the_sum_of_squares_without_bias() -> None:
    torch.manual_seed(1)
    model: Any = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1)).double()
    # Of a linear network the gradient is its kernel whatever the image: the estimate varies by the signs alone.
    images = erf.from_arrays([np.zeros((1, 8, 8))] * 600)
    found = erf.compute(model, images, layer="0", channel="signs", definitions=("square",), device="cpu")
    kernels = model[0].weight.detach()[:, 0].numpy()
    mean, exact = found.statistics("all", "square").mean[3:6, 3:6], (kernels**2).sum(0)
    # Variance of (sum of s_c k_c)²: 2 ((sum of k²)² - sum of k⁴), as the signs are independent.
    error = np.sqrt(2 * (exact**2 - (kernels**4).sum(0)) / 600)
    assert (np.abs(mean - exact) < 4.5 * error).all()
    with pytest.raises(InputError, match="ask for `definitions` square"):
        erf.Settings(channel="signs")


def test_what_does_not_go_together() -> None:
    images = erf.from_arrays([np.zeros((1, 40, 32))])
    with pytest.raises(InputError, match="2 units for 1 results; choose one"):
        erf.compute(small_network(), images, layer="5", unit="1,1;2,2", device="cpu")
    with pytest.raises(InputError, match="cannot be aligned"):
        erf.Settings(unit="max", arguments=erf.Arguments(depth=2))
    with pytest.raises(InputError, match="channel 'some' not understood"):
        erf.Settings(channel="some")
    with pytest.raises(InputError, match="method 'magic' not known"):
        erf.Settings(method="magic")
    with pytest.raises(InputError, match="1 channels for 2 inputs; expected a multiple of 2"):
        erf.compute(small_network(), images, layer="5", arguments=erf.Arguments(("a", "b")), device="cpu")


def test_the_seed_of_the_run_steers_random_signs_and_is_recorded() -> None:
    images = erf.from_arrays([np.random.default_rng(0).standard_normal((1, 24, 20))])
    options: dict[str, Any] = {"layer": "2", "channel": "signs", "definitions": ("square",), "device": "cpu"}
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3)).double()
    maps: dict[int, list[np.ndarray]] = {}
    for seed in (0, 1, 0):
        result = erf.compute(network, images, seed=seed, **options)
        assert result.provenance.seed == seed
        maps.setdefault(seed, []).append(result.statistics("all", "square").mean)
    np.testing.assert_array_equal(maps[0][0], maps[0][1])
    assert not np.allclose(maps[0][0], maps[1][0])
