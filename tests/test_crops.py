"""Crops: the part of an image that holds a unit's field gives the same gradient as the whole image."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import erf
from erf.engine import compute
from erf.gradients.autograd import unit_gradient
from erf.gradients.crops import Crop, find_crop
from erf.images import from_arrays
from erf.models import create_model, model_card
from erf.network.modes import frozen
from erf.theory.tracing import trace
from tests.agreement import assert_gradients_agree
from tests.conftest import SIDES


def crop_of(model: nn.Module, layer: str, unit: tuple[int, int], shape: tuple[int, int, int]) -> Crop:
    return find_crop(model, trace(model, [layer], shape), [(layer, unit)], shape)


CASES = [
    ("gmic", "stage2", (333, 250), (5, 7)),
    ("gmic", "stage3", (700, 516), (20, 2)),
    ("unet", "up1", (320, 256), (10, 8)),
    ("unet", "up2", (400, 320), (21, 33)),
    ("resnet50", "layer2", (256, 224), (30, 1)),
    ("resnet18", "layer2", (256, 240), (31, 12)),
]


@pytest.mark.parametrize(("name", "layer", "size", "unit"), CASES)
def test_the_gradient_is_that_of_the_whole_image(
    name: str, layer: str, size: tuple[int, int], unit: tuple[int, int]
) -> None:
    model, shape = create_model(name, size=size).double(), (model_card(name).in_channels, *size)
    crop = crop_of(model, layer, unit, shape)
    assert crop.share(size) < 0.9
    inputs = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with frozen(model):
        whole = unit_gradient(model, inputs, layer, unit)
        part = unit_gradient(model, crop.cut(inputs), layer, crop.targets[0].units[0])
    # In double precision only the order of sums differs.
    assert_gradients_agree(part, crop.cut(whole), rtol=1e-11)
    outside = whole.clone()
    crop.cut(outside).zero_()
    assert not outside.any()


def test_a_run_in_a_crop_is_that_without() -> None:
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal((1, 300, 197)) for _ in SIDES]  # blocks of 3 pixels, which the crop cuts
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 5, stride=2, padding=2), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    options: dict[str, Any] = {"layer": "3", "definitions": ("abs", "signed"), "device": "cpu", "unit": (35, 32)}
    part, whole = (
        compute(model.double(), from_arrays(arrays, SIDES), crop=wanted, **options) for wanted in (True, False)
    )
    top, left, bottom, right = part.provenance.crop
    assert (bottom - top) * (right - left) < 300 * 197 / 4
    assert top % 3
    assert left % 3
    assert whole.provenance.crop == (0, 0, 300, 197)
    for subset in whole.subsets:
        for definition in ("abs", "signed"):
            ours, other = part.statistics(subset, definition), whole.statistics(subset, definition)
            for name in ("mean", "variance", "across_rows", "across_columns"):
                # The images are float32 and the sums float64: maps agree to the rounding of what is stored.
                assert_gradients_agree(getattr(ours, name), getattr(other, name), rtol=1e-11, rounding=1e-16)
    for name in ("small", "across_rows", "across_columns"):
        one, two = (getattr(result.profiles["abs"], name) for result in (part, whole))
        assert_gradients_agree(one, two, rtol=1e-11, rounding=1e-16)


class Placed(nn.Module):
    """A convolution that is told where in the image it is: geometry sees a small field, values do not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * torch.linspace(1, 2, x.shape[-1], dtype=x.dtype))


class Sized(nn.Module):
    """Takes inputs of one size only."""

    place: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)
        self.register_buffer("place", torch.ones(60, 50))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + self.place)


@pytest.mark.parametrize("network", [Placed, Sized])
def test_networks_that_ask_where_they_are_get_the_whole_image(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    crop = crop_of(network(), "layer", (30, 25), (1, 60, 50))
    assert crop.box == (0, 0, 60, 50)


def test_no_crop_where_the_field_is_infinite_or_nearly_the_image() -> None:
    shape = (1, 256, 192)
    assert crop_of(create_model("hct"), "final", (1, 1), shape).box == (0, 0, 256, 192)
    assert crop_of(create_model("gmic"), "final", (1, 1), shape).box == (0, 0, 256, 192)


def test_the_command_can_do_without(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from typer.testing import CliRunner

    from erf.cli import app

    monkeypatch.chdir(tmp_path)
    words = ["compute", "-m", "gmic", "--layer", "stage2", "-n", "2", "--size", "256x192", "--no-picture"]
    assert CliRunner().invoke(app, [*words, "-o", "part.h5"]).exit_code == 0
    assert CliRunner().invoke(app, [*words, "-o", "whole.h5", "--no-crop"]).exit_code == 0
    part, whole = erf.load("part.h5"), erf.load("whole.h5")
    assert whole.provenance.crop == (0, 0, 256, 192) != part.provenance.crop
    # Single precision, in which convolutions of another size sum in another order.
    ours, other = part.statistics().mean, whole.statistics().mean
    assert_gradients_agree(ours, other, rtol=1e-5)


class Cropped(nn.Module):
    """Leaves the border out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., 2:-2, 2:-2]


class Pixelwise(nn.Linear):
    """The same sums at each pixel, with channels last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([nn.Conv2d(1, 3, 3, padding=1), Cropped()], 3),  # the crop leaves nothing of a crop of 3 pixels
        ([nn.Conv2d(1, 3, 3, 2, 1), Cropped()], 3),
        ([Pixelwise(1, 3)], 1),  # in a crop of 1 pixel dimensions cannot be told apart
        ([nn.Conv2d(1, 3, 1), Pixelwise(3, 2)], 1),
    ],
)
def test_a_crop_in_which_the_network_cannot_be_followed_is_not_used(parts: list[nn.Module], field: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*parts).double()
    image = np.random.default_rng(0).standard_normal((1, 48, 40)).astype(np.float32)
    found = erf.compute(network, erf.from_arrays([image]), layer=str(len(parts) - 1), device="cpu")
    assert found.provenance.crop == (0, 0, 48, 40)
    source = torch.from_numpy(image).double()[None].requires_grad_()
    output = network(source)
    (expected,) = torch.autograd.grad(output[:, :, output.shape[2] // 2, output.shape[3] // 2].sum(), source)
    assert np.count_nonzero(expected) == field**2
    assert_gradients_agree(found.statistics().mean, expected[0, 0].abs(), rtol=1e-6)
