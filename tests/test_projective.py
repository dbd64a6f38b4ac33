"""The projective field of a pixel against gradients of units, closed forms, and ways that fail."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import erf
from erf.building import Network
from erf.checks.projective import ImageSource
from erf.errors import InputError, InterruptedRunError, LayerError
from erf.gradients import projective
from erf.gradients.autograd import Target, unit_gradients
from erf.images.image import Sample
from erf.network.modes import frozen
from tests.conftest import small_network
from tests.modules import Applied


class TwoViews(nn.Module):
    """A network with two inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(1, 4, 5, 2, 2)
        self.joined = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, cc: Tensor, mlo: Tensor) -> Tensor:
        return self.joined(torch.tanh(self.one(cc)) * torch.sigmoid(self.two(mlo)))


class UpAndDown(nn.Module):
    """Strides, a transposed convolution and a shortcut, as in a U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.up, self.last = nn.ConvTranspose2d(6, 4, 2, 2), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        shallow = torch.relu(self.down(image))
        return self.last(torch.cat([shallow, self.up(torch.relu(self.deep(shallow)))], 1))


NETWORKS: dict[str, tuple[Callable[[], Any], str, tuple[int, int]]] = {
    "convolutions": (lambda: small_network(channels=3), "5", (40, 32)),
    "gmic": (lambda: "gmic", "stage2", (64, 48)),
    "hct": (lambda: "hct", "stage4", (192, 128)),
    "U-Net": (UpAndDown, "last", (32, 24)),
    "deformable": (lambda: "def-gmic", "stage2", (64, 48)),
    "transformer": (lambda: "timm:vit_tiny_patch16_224", "blocks.0", (32, 48)),
    "two inputs": (TwoViews, "joined", (32, 24)),
}


def built(model: Any, size: tuple[int, int]) -> Network:
    """A network in double precision, in which no rounding decides on which side of zero a value lies."""
    torch.manual_seed(0)
    network = erf.build_network(model, "none" if isinstance(model, str) else None, size=size)
    network.model.double()
    return network


def noise(network: Network) -> Tensor:
    return torch.randn(network.input_shape, generator=torch.Generator().manual_seed(3))


def from_units(network: Network, image: Tensor, layer: str, pixel: tuple[int, int], units: list[Any]) -> Tensor:
    """Derivatives (units, C) from a backward pass for each unit."""
    name, traced, _ = network.locate(layer)
    inputs = image[None].to(next(network.model.parameters()))
    targets = [Target(name, (unit,), traced.layout) for unit in units]
    with frozen(network.model):
        found = unit_gradients(network.model, inputs, targets, network.arguments)
        return torch.stack([gradient[0, :, *pixel] for gradient in found])


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_to_the_gradients_of_units_at_the_pixel(name: str) -> None:
    make, layer, size = NETWORKS[name]
    network = built(make(), size)
    image, pixel = noise(network), (size[0] // 2 + 1, size[1] // 2 - 2)
    found = erf.projective_field(network, image, layer, pixel)
    order = np.abs(found.map).ravel().argsort()[::-1]
    chosen = [*order[:4], *order[4 :: max(1, len(order) // 6)]]
    units = [tuple(map(int, np.unravel_index(place, found.map.shape))) for place in chosen]
    expected = from_units(network, image, layer, pixel, units)
    ours = found.signed.reshape(len(found.signed), -1)[:, chosen].T
    assert expected.abs().max() > 0
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=1e-5 * np.abs(found.signed).max())
    np.testing.assert_allclose(found.map, np.abs(found.signed).sum(0))
    assert found.way == projective.FORWARD_MODE or name == "deformable"


@pytest.mark.parametrize("way", ["forward_mode", "second_backward", "differences"])
def test_a_convolution_gives_its_flipped_kernel(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(way, monkeypatch)
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False).double()
    layer.weight.data = torch.arange(1.0, 10.0).double().reshape(1, 1, 3, 3)
    found = erf.projective_field(nn.Sequential(layer), torch.rand(9, 7).double(), "0", (4, 2))
    expected = np.zeros((9, 7))
    expected[3:6, 1:4] = np.arange(9.0, 0.0, -1.0).reshape(3, 3)
    np.testing.assert_allclose(found.signed[0], expected, atol=1e-7)


def only(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the other ways fail."""

    def fails(self: Any) -> None:
        raise NotImplementedError("not this way")

    for name in {"forward_mode", "second_backward", "differences"} - {way}:
        monkeypatch.setattr(projective._Column, name, fails)


class Cubed(torch.autograd.Function):
    """A function without forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x * x * gradient


class CubedOnce(torch.autograd.Function):
    """A function with neither forward mode nor a second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x * x * gradient


def without_gradient(x: Tensor) -> Tensor:
    """A part that only a backward pass leaves out."""
    with torch.no_grad():
        part = x * x
    return x**3 + part


def written_over(x: Tensor) -> Tensor:
    """No backward pass: the tensor that the exponential keeps is changed."""
    y = x.exp()
    y += x
    return y


FALLBACKS: dict[str, tuple[Callable[[Tensor], Tensor], str, float, Callable[[Tensor], Tensor]]] = {
    "no forward mode": (Cubed.apply, projective.SECOND_BACKWARD, 1e-12, lambda x: 3 * x * x),
    "no second derivative": (CubedOnce.apply, projective.DIFFERENCES, 1e-4, lambda x: 3 * x * x),
    "forward mode sees more": (without_gradient, projective.SECOND_BACKWARD, 1e-12, lambda x: 3 * x * x),
    "no backward pass": (written_over, projective.FORWARD_MODE, 1e-12, lambda x: x.exp() + 1),
    "checkpointing": (
        lambda x: checkpoint(torch.exp, x, use_reentrant=False), projective.FORWARD_MODE, 1e-12, torch.exp,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FALLBACKS)
def test_another_way_is_used_where_one_does_not_agree(name: str) -> None:
    function, way, tolerance, slope = FALLBACKS[name]
    torch.manual_seed(0)
    model, image = (
        nn.Sequential(Applied(function), nn.Conv2d(2, 3, 3, padding=1)).double(),
        torch.rand(2, 8, 6).double(),
    )
    found = erf.projective_field(model, image, "1", (3, 2))
    kernel = model[1].weight.sum(0).detach().flip(-2, -1)  # type: ignore[operator]
    expected = np.zeros((2, 8, 6))
    expected[:, 2:5, 1:4] = kernel * slope(image[:, 3, 2])[:, None, None]
    assert found.way == way
    np.testing.assert_allclose(found.signed, expected, rtol=0, atol=tolerance * np.abs(expected).max())


class Rounded(torch.autograd.Function):
    """A function whose gradient is not its slope, and that has no second derivative."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient


ERRORS: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, Any], type[Exception], str]] = {
    "nothing agrees": (Rounded.apply, {}, LayerError, "no derivative that could be confirmed .forward mode: You must"),
    "cut": (lambda x: x.detach() * 2, {}, LayerError, "passes no gradient"),
    "cut, not checked": (lambda x: x.detach() * 2, {"check": False}, LayerError, "passes no gradient"),
    "cancelled channels": (lambda x: x.softmax(1), {}, LayerError, "sum to a constant.*choose a `channel`"),
    "pixel": (torch.tanh, {"pixel": (8, 2)}, InputError, "pixel 8,2 lies outside the frame of 8x6 pixels"),
    "negative pixel": (torch.tanh, {"pixel": (0, -1)}, InputError, "pixel 0,-1 lies outside"),
    "channel": (torch.tanh, {"channel": 2}, LayerError, "channel 2 of layer '0', which has 2"),
    "layer": (torch.tanh, {"layer": "9"}, LayerError, "unknown layer '9'"),
    "definition": (torch.tanh, {"definition": "mean"}, InputError, "definition 'mean' not known"),
    "input": (torch.tanh, {"input_name": "cc"}, InputError, "takes a single input"),
    "cancelled": (torch.tanh, {"is_cancelled": lambda: True}, InterruptedRunError, "cancelled"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line(name: str) -> None:
    function, options, kind, words = ERRORS[name]
    network = Network.of_module(nn.Sequential(Applied(function)), (2, 8, 6))
    with pytest.raises(kind, match=words) as caught:
        erf.projective_field(network, torch.rand(2, 8, 6), **{"layer": "0", "pixel": (3, 2)} | options)
    assert "\n" not in str(caught.value)


def test_a_network_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"an image of 2x8x8; .* expects 2x8x6"):
        erf.projective_field(Network.of_module(nn.Sequential(nn.Tanh()), (2, 8, 6)), torch.rand(2, 8, 8), "0", (3, 2))


def test_channels_add_up_to_their_sum() -> None:
    model, image = small_network(), torch.randn(1, 40, 32)
    whole, *parts = (erf.projective_field(model, image, "5", (20, 14), channel=one) for one in ("all", *range(8)))
    np.testing.assert_allclose(sum(part.signed for part in parts), whole.signed, rtol=0, atol=1e-12)
    assert not np.allclose(parts[0].signed, whole.signed)


def test_one_input_of_two() -> None:
    network = built(TwoViews(), (32, 24))
    image = noise(network)
    both, first, second = (
        erf.projective_field(network, image, "joined", (16, 12), input_name=name) for name in ("", "cc", "mlo")
    )
    np.testing.assert_allclose(both.signed, np.concatenate([first.signed, second.signed]), rtol=0, atol=1e-6)
    assert np.abs(first.signed - second.signed).max() > 1e-3


def test_the_map_lies_over_the_image() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 4, stride=4)).double()
    found = erf.projective_field(model, torch.rand(1, 32, 24), "0", (13, 6), definition="square")
    assert (found.offset, found.stride, found.box) == ((1.5, 1.5), (4, 4), (-0.5, -0.5, 31.5, 23.5))
    assert found.strongest == (3, 1)
    np.testing.assert_allclose(found.map, found.signed[0] ** 2)
    assert repr(found).startswith("ProjectiveField of pixel 13,6 in layer 0: 1 of 8x6 units sees it")


def test_files_and_images_get_the_preprocessing_of_the_network(tmp_path: Path) -> None:
    network, file = built("gmic", (64, 48)), tmp_path / "left.png"
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (60, 48), np.uint8)).save(file)
    images = erf.load_images(tmp_path, size=(64, 48), normalisation=network.framing().normalisation)
    sample = images.sample(images.images[0])
    assert isinstance(sample, Sample)
    given: list[ImageSource] = [file, images.images[0], sample, sample.pixels]
    fields = [erf.projective_field(network, each, "stage2", (40, 30)) for each in given]
    assert np.abs(fields[0].signed).max() > 0
    for other in fields[1:]:
        np.testing.assert_allclose(other.signed, fields[0].signed, rtol=0, atol=1e-6 * np.abs(fields[0].signed).max())


def test_a_check_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projective, "_compare", lambda *_: pytest.fail("compared"))
    found = erf.projective_field(small_network(), torch.randn(1, 40, 32), "5", (20, 14), check=False)
    assert np.isnan(found.difference)
    assert found.signed.any()
