"""Theoretical receptive fields: arithmetic by hand, and the exact support of the gradient."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import erf.models
from erf.errors import LayerError
from erf.gradients.autograd import unit_gradient
from erf.gradients.units import center_unit, resolve_units
from erf.network.modes import frozen
from erf.theory.axis import AxisField, tiling
from erf.theory.fields import ReceptiveField
from erf.theory.interpolation import interpolated
from erf.theory.sampling import window
from erf.theory.tracing import theoretical_receptive_field, trace


def support(model: nn.Module, layer: str, shape: tuple[int, int, int], unit: tuple[int, ...]) -> tuple[int, ...]:
    """(first row, last row, first column, last column) that a unit's gradient reaches.

    Weights are made positive, of sum 1, and the input is random, so that no path cancels another and none fades;
    several inputs where there is a maximum, because it passes its gradient to one pixel only.
    """
    for parameter in model.parameters():
        positive = parameter.data.abs() + 0.1
        parameter.data = positive / positive[0].sum() if parameter.ndim == 4 else positive
    model.double()
    maxima = any(isinstance(module, nn.MaxPool2d) for module in model.modules())
    total = torch.zeros(shape[1:], dtype=torch.float64)
    with frozen(model):
        for seed in range(4 if maxima else 1):
            generator = torch.Generator().manual_seed(seed)
            inputs = torch.rand((1, *shape), generator=generator, dtype=torch.float64)
            total += unit_gradient(model, inputs, layer, unit)[0].abs().sum(0)
    rows, columns = torch.nonzero(total.sum(1))[:, 0], torch.nonzero(total.sum(0))[:, 0]
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


class Branches(nn.Module):
    """A dilated and a plain branch, added, concatenated and pooled; asymmetric in y and x."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(1, 2, 3, padding=(4, 2), dilation=(4, 2))
        self.narrow = nn.Conv2d(1, 2, (1, 3), padding=(0, 1))
        self.pool = nn.AvgPool2d(2)
        self.last = nn.Conv2d(4, 3, 3, stride=(2, 1), padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide, narrow = self.wide(x), self.narrow(x)
        return self.last(functional.gelu(self.pool(torch.cat([wide + narrow, narrow], dim=1))))


def test_one_window_by_hand() -> None:
    field = window(window(AxisField(), 7, 2, 3, 1), 3, 2, 0, 1)
    # Unit 0 of the pooling sees stem units 0, 1, 2, centred on pixels 0, 2, 4, three pixels to each side.
    assert (field.stride, field.starts, field.stops, field.offset, field.size) == (4, (-3,), (7,), 2, 11)
    assert field.center(5) == 22
    assert field.box(0, 100) == (0, 8)
    assert field.box(24, 100) == (93, 100)


def test_branches_dilation_and_unequal_axes() -> None:
    field = theoretical_receptive_field(Branches(), "last", (1, 64, 48))
    # y: dilated 9, pooled 10, then 3 taps 2 apart: 10 + 2 * 2 = 14; x: 5, 6, 10.
    assert (field.size, field.stride, field.infinite) == ((14, 10), (4, 2), False)


@pytest.mark.parametrize(
    ("model", "layer", "shape", "unit"),
    [
        (Branches(), "last", (1, 64, 48), (8, 12)),
        (
            nn.Sequential(nn.Conv2d(1, 4, 7, 2, 3), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 3, 2, 1)),
            "2",
            (1, 96, 80),
            (6, 5),
        ),
    ],
)
def test_the_field_is_the_support_of_the_gradient(
    model: nn.Module, layer: str, shape: tuple[int, int, int], unit: tuple[int, int]
) -> None:
    field = theoretical_receptive_field(model, layer, shape)
    (top, bottom), (left, right) = field.y.box(unit[0], shape[1]), field.x.box(unit[1], shape[2])
    assert support(model, layer, shape, unit) == (top, bottom - 1, left, right - 1)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (4, 2, 1), (3, 2, 1), (3, 1, 1), (5, 3, 1)])
def test_transposed_convolution_unit_by_unit(kernel: int, stride: int, padding: int) -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 2, 3, stride=2, padding=1),
            nn.ConvTranspose2d(2, 2, kernel, stride, padding),
            nn.Conv2d(2, 1, (3, 1), padding=(1, 0)),
        )

    shape = (1, 40, 40)
    for layer in ("1", "2"):
        field = theoretical_receptive_field(build(), layer, shape)
        for unit in range(7, 14):
            (top, bottom), (left, right) = field.y.box(unit, 40), field.x.box(unit, 40)
            assert support(build(), layer, shape, (unit, unit)) == (top, bottom - 1, left, right - 1)


def test_neighbours_that_share_an_up_sampled_unit() -> None:
    model = nn.Sequential(nn.AvgPool2d(2), nn.ConvTranspose2d(1, 1, 2, stride=2))
    field = theoretical_receptive_field(model, "1", (1, 16, 16))
    # Units 4 and 5 both see pixels 4 and 5; they are centred on themselves, half a pixel to one side of what they see.
    assert (field.stride, field.offset, field.size) == ((1, 1), (0, 0), (2, 2))
    assert [field.y.box(unit, 16) for unit in (4, 5)] == [(4, 6), (4, 6)]
    assert (field.center((4, 5)), field.shift((4, 5)), field.extent((4, 5))) == ((4, 5), (0.5, -0.5), (2, 2))


def test_a_grid_of_unknown_making_is_taken_to_tile_the_image() -> None:
    class Merge(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 3)

    field = theoretical_receptive_field(nn.Sequential(nn.Conv2d(1, 1, 1), Merge()), "1", (1, 32, 30))
    assert field.infinite
    assert (field.stride, field.offset) == ((8, 10), (3.5, 4.5))
    # Three units over 32 pixels: each touches the pixels of its third, and they are centred evenly.
    uneven = tiling(3, 32)
    assert (uneven.starts, uneven.stops, uneven.shift) == ((0, 10, 21), (10, 21, 31), 32)
    assert [uneven.center(unit) for unit in range(3)] == pytest.approx([4.83333, 15.5, 26.16667], abs=1e-4)


def test_a_factor_steps_by_its_inverse() -> None:
    # 41 units times 0.4 are 16; PyTorch steps by 2.5, not by 41 / 16, so that the last comes from unit 37, not 38.
    field = interpolated(AxisField(), 41, 16, "nearest", scale=0.4)
    assert [field.box(unit, 41)[0] for unit in (1, 2, 15)] == [2, 5, 37]
    assert interpolated(AxisField(), 41, 16, "nearest").box(15, 41) == (38, 39)


def test_selecting_channels_keeps_the_field() -> None:
    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :2] + x.unflatten(1, (2, 2))[:, 1]

    field = theoretical_receptive_field(nn.Sequential(nn.Conv2d(1, 4, 3), Half()), "1", (1, 16, 16))
    assert (field.size, field.center((0, 0))) == ((3, 3), (1, 1))

    class Rows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, 2:]

    field = theoretical_receptive_field(nn.Sequential(nn.Conv2d(1, 4, 3), Rows()), "1", (1, 16, 16))
    assert (field.size, field.center((0, 0))) == ((3, 3), (3, 1))


@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [
        # Layers and sizes that keep the whole field inside an image of moderate size.
        ("resnet18", "layer2", 128),
        ("resnet50", "layer2", 128),
        ("densenet121", "features.transition1", 96),
        ("spm", "backbone.layer3.1", 176),
        ("convmixer-768-32", "blocks.5", 315),
        ("convmixer-1024-20", "blocks.2", 420),
        ("unet", "head", 256),
        ("unet-star", "head", 128),
        ("wavemix", "final", 208),
    ],
)
def test_the_field_of_convolutional_networks_is_the_support(name: str, layer: str, side: int) -> None:
    """Each block of the registered networks, and each kernel and stride of the ConvMixers, once."""
    shape = (3, side, side)
    model = erf.models.create_model(name, size=shape[1:])
    traced = trace(model, [layer], shape)[layer]
    assert traced.field.kind == "finite"
    center = center_unit(traced.feature_shape[1:])
    unit = (center[0] - 1, center[1])  # after up-sampling, two phases
    (top, bottom), (left, right) = traced.field.y.box(unit[0], side), traced.field.x.box(unit[1], side)
    assert (bottom - top, right - left) == traced.field.extent(unit)  # not clipped by the image
    assert support(model, layer, shape, unit) == (top, bottom - 1, left, right - 1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("def-gmic", "data-dependent"),
        *((name, "infinite") for name in ("hct-nystrom", "unet-srb-f", "unet-srb-a", "unet-star-non-local")),
        *((name, "infinite") for name in ("unet-star-a2", "resnet50-srb-f", "densenet121-srb-f", "spm-srb-f")),
        *((name, "infinite") for name in ("pspnet", "deeplabv3", "danet", "fnet", "vit-tiny", "swin-tiny")),
        *((name, "infinite") for name in ("mixer-small", "mobilenetv3-small-100")),
    ],
)
def test_kinds_of_fields(name: str, kind: str) -> None:
    card = erf.models.model_card(name)
    size = (192, 160) if card.in_channels == 1 else (96, 64)
    model = erf.models.create_model(name, size=size)
    assert theoretical_receptive_field(model, card.default_layer, (card.in_channels, *size)).kind == kind


@pytest.mark.parametrize(
    ("name", "size"),
    [
        # Published configurations: strides 2-2-2-2-2 and 1-2-2-2-2 after a 7x7 stem and a 3x3 pooling.
        ("gmic", 1747),
        ("gmic-nyu", 883),
    ],
)
def test_published_fields(name: str, size: int) -> None:
    model = erf.models.create_model(name)
    side, narrow = 1792 if size > 1000 else 960, 192
    for shape in ((1, side, narrow), (1, narrow, side)):  # one axis after the other, for the sake of time
        traced = trace(model, ["final"], shape)["final"]
        assert set(traced.field.size) == {size}
        unit = center_unit(traced.feature_shape[1:])
        (top, bottom), (left, right) = traced.field.y.box(unit[0], shape[1]), traced.field.x.box(unit[1], shape[2])
        # Not clipped by the long side of the image, so that the next line is exact.
        assert (bottom - top, right - left) == (min(size, shape[1]), min(size, shape[2]))
        assert support(model, "final", shape, unit) == (top, bottom - 1, left, right - 1)


def test_attention_makes_the_field_infinite() -> None:
    model = erf.models.create_model("hct")
    assert theoretical_receptive_field(model, "stage3", (1, 512, 512)).size == (403, 403)
    field = theoretical_receptive_field(model, "final", (1, 512, 512))
    assert field.size == (math.inf, math.inf)
    assert field.unbounded_by
    # Attention moves no unit: the centres are those of the convolutional network with the same strides.
    assert field.center((13, 10)) == theoretical_receptive_field(
        erf.models.create_model("gmic"), "final", (1, 512, 512)
    ).center((13, 10))


class Gate(nn.Module):
    """Squeeze and excite: every position is scaled by a mean over all of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


def test_a_global_gate_makes_the_field_infinite_and_is_named() -> None:
    field = theoretical_receptive_field(nn.Sequential(nn.Conv2d(1, 2, 3), Gate()), "1", (1, 16, 16))
    assert field.infinite
    assert "mean" in field.unbounded_by


def test_an_output_that_is_no_map_of_the_input_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Unfold(3))
    with pytest.raises(LayerError, match="not a map"):
        theoretical_receptive_field(model, "1", (1, 16, 16))


def test_the_centre_of_an_even_map_is_below_and_right_of_the_middle() -> None:
    assert center_unit((26, 20)) == (13, 10)
    assert resolve_units("center", "final", (7, 5), ReceptiveField()) == ((3, 2),)


@pytest.mark.parametrize(("unit", "message"), [((7, 0), "lies outside layer"), ("middle", "not understood")])
def test_a_unit_that_is_not_there(unit: str | tuple[int, int], message: str) -> None:
    with pytest.raises(LayerError, match=message):
        resolve_units(unit, "final", (7, 5), ReceptiveField())
