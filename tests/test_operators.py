"""Rules of operators: where maps are laid out in odd ways, the field is still the support of the gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from erf.errors import LayerError
from erf.gradients.autograd import Target, unit_gradients
from erf.network.modes import frozen
from erf.theory.tracing import Trace, trace

CHANNELS = 4


class Net(nn.Module):
    """A convolution, then what a test makes of its map."""

    def __init__(self, then: Callable[..., Tensor], stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, CHANNELS, 3, stride=stride, padding=1)
        self.last = nn.Conv2d(CHANNELS, 3, 3, padding=1)
        self.linear = nn.Linear(CHANNELS, CHANNELS)
        self.wide = nn.Linear(4 * CHANNELS, CHANNELS)
        self.norm = nn.LayerNorm(CHANNELS)
        self.token = nn.Parameter(torch.ones(1, 2, CHANNELS))
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self, self.first(x))


def channels_last(net: Net, x: Tensor) -> Tensor:
    y = net.linear(net.norm(x.permute(0, 2, 3, 1)))
    return net.last(functional.gelu(y).permute(0, 3, 1, 2) + x)


def returns_channels_last(net: Net, x: Tensor) -> Tensor:
    return net.linear(net.last(torch.cat([x, x], 1)[:, ::2]).permute(0, 2, 3, 1)[..., :1] * torch.ones(CHANNELS))


def tokens_and_back(net: Net, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    tokens = torch.cat([net.token, net.linear(x.flatten(2).transpose(1, 2))], 1)
    tokens = net.norm(tokens) + 1
    return net.last(tokens[:, 2:].transpose(1, 2).reshape(n, c, h, w))


def tokens(net: Net, x: Tensor) -> Tensor:
    return torch.cat([net.token, net.linear(x.flatten(2).transpose(1, 2))], 1)


def merged(net: Net, x: Tensor) -> Tensor:
    """Patch merging as in Swin: every second row and column, four maps as channels."""
    y = x.permute(0, 2, 3, 1)
    n, h, w, c = y.shape
    y = y.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
    return net.last(net.wide(y).permute(0, 3, 1, 2))


def sliced(net: Net, x: Tensor) -> Tensor:
    y = torch.cat([x[..., 0::2, 0::2], x[..., 1::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 1::2]], 1)
    return net.last(net.wide(y.movedim(1, -1)).movedim(-1, 1))


def shuffled(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.pixel_shuffle(torch.cat([x] * 4, 1), 2))


def shuffled_by_view(net: Net, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = torch.cat([x] * 4, 1).view(n, c, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c, 2 * h, 2 * w)
    return net.last(y)


def unshuffled(net: Net, x: Tensor) -> Tensor:
    return net.last(net.wide(functional.pixel_unshuffle(x, 2).movedim(1, -1)).movedim(-1, 1))


def windows(net: Net, x: Tensor) -> Tensor:
    """Attention within windows of 4 x 4, as in Swin without shift."""
    n, c, h, w = x.shape
    y = x.permute(0, 2, 3, 1).view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
    y = torch.softmax(y @ y.transpose(1, 2), -1) @ y
    return y.view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)


def nearest(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.interpolate(x, scale_factor=2))


def bilinear(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.interpolate(x, scale_factor=2, mode="bilinear"))


def bilinear_odd(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.interpolate(x, size=(36, 20), mode="bilinear"))


def bilinear_down(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.interpolate(x, size=(18, 12), mode="bilinear"))


def bilinear_aligned(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.interpolate(x, size=(47, 33), mode="bilinear", align_corners=True))


def bicubic(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.interpolate(x, scale_factor=2, mode="bicubic"))


def padded(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.pad(x, (3, 0, 1, 2))[..., 1:, 2:])


def u_shape(net: Net, x: Tensor) -> Tensor:
    deep = net.last.weight.new_ones(1) * functional.avg_pool2d(x, 4)
    return net.last(x + functional.interpolate(deep, scale_factor=4))


def turned(net: Net, x: Tensor) -> Tensor:
    return net.last(torch.rot90(x, 1, (2, 3)).flip(3))


def rolled(net: Net, x: Tensor) -> Tensor:
    return torch.roll(torch.roll(x, (3, 2), (2, 3)), (-3, -2), (2, 3))


def put_together(net: Net, x: Tensor) -> Tensor:
    top, bottom = x.split(x.shape[2] // 2, 2)
    return net.last(torch.cat([bottom, top], 2).roll(x.shape[2] // 2, 2))


def written(net: Net, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[..., 1:] = x[..., :-1]
    return y


def reflected(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), "reflect"), 3, 2))


def by_factor(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.interpolate(x, scale_factor=0.7, mode="nearest-exact"))


def neighbourhoods(net: Net, x: Tensor) -> Tensor:
    return x.unfold(2, 3, 2).mean(-1).unfold(3, 3, 1).mean(-1)


LOCAL = [
    (turned, 24, "axes 3, 2", True),
    (rolled, 24, "channels first", True),
    (put_together, 24, "channels first", True),
    (written, 24, "channels first", True),
    (reflected, 24, "channels first", True),
    (by_factor, 24, "channels first", True),
    (neighbourhoods, 24, "channels first", True),
    (channels_last, 24, "channels first", True),
    (returns_channels_last, 24, "channels last", True),
    (tokens_and_back, 24, "channels first", True),
    (tokens, 24, "24x16 tokens after 2 others", True),
    (merged, 24, "channels first", True),
    (sliced, 24, "channels first", True),
    (shuffled, 24, "channels first", True),
    (shuffled_by_view, 24, "channels first", True),
    (unshuffled, 24, "channels first", True),
    (windows, 24, "channels last", True),
    (nearest, 24, "channels first", True),
    (bilinear, 24, "channels first", True),
    (bilinear_odd, 24, "channels first", True),
    (bilinear_down, 24, "channels first", True),
    # Theory gives each unit of an aligned interpolation its own taps; where convolution joins them, some coincide.
    (bilinear_aligned, 24, "channels first", True),
    (bicubic, 24, "channels first", True),
    (padded, 24, "channels first", True),
    (u_shape, 24, "channels first", True),
]


def reached(net: nn.Module, traced: Trace, unit: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """(top, bottom, left, right) of the gradient of a unit, summed over random weights and inputs."""
    total = torch.zeros(shape[1:], dtype=torch.float64)
    for seed in range(3):
        torch.manual_seed(seed)
        for parameter in net.parameters():
            nn.init.normal_(parameter)
        inputs = torch.randn(1, *shape, dtype=torch.float64)
        with frozen(net):
            (gradient,) = unit_gradients(net, inputs, [Target("output", (unit,), traced.layout)])
        total += gradient[0].abs().sum(0)
    rows, columns = torch.nonzero(total.sum(1))[:, 0], torch.nonzero(total.sum(0))[:, 0]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


@pytest.mark.parametrize(("then", "side", "layout", "is_exact"), LOCAL, ids=[row[0].__name__ for row in LOCAL])
def test_a_local_field_is_the_support_of_the_gradient(
    then: Callable[..., Tensor], side: int, layout: str, is_exact: bool
) -> None:
    shape = (2, side, side * 2 // 3)
    net = Net(then).double()
    traced = trace(net, ["output"], shape)["output"]
    assert traced.layout.description == layout
    assert traced.field.kind == "finite"
    height, width = traced.feature_shape[1:]
    for unit in ((height // 2, width // 2), (height // 3, width // 2 - 1), (0, width - 1)):
        boxes = [
            axis.box(index, length) for axis, index, length in zip(traced.field.axes, unit, shape[1:], strict=True)
        ]
        theory = tuple(edge for box in boxes for edge in box)
        found = reached(net, traced, unit, shape)
        assert found == theory, unit


def instance_norm(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.instance_norm(x))


def group_norm(net: Net, x: Tensor) -> Tensor:
    return net.last(functional.group_norm(x, 2))


def excited(net: Net, x: Tensor) -> Tensor:
    return net.last(x * torch.sigmoid(net.linear(x.mean((2, 3))))[:, :, None, None])


def attends(net: Net, x: Tensor) -> Tensor:
    y = x.flatten(2).transpose(1, 2)
    return net.linear(functional.scaled_dot_product_attention(y, y, y))


def mixes(net: Net, x: Tensor) -> Tensor:
    y = x.flatten(2)
    mixed = y @ torch.ones(y.shape[2], y.shape[2], dtype=x.dtype)
    return net.last((mixed + y).view_as(x))


def filters(net: Net, x: Tensor) -> Tensor:
    return net.last(torch.fft.irfft2(torch.fft.rfft2(x) * 2, s=x.shape[2:]) + x)


def sorts(net: Net, x: Tensor) -> Tensor:
    return net.last(x.sort(dim=2).values)


def counts(net: Net, x: Tensor) -> Tensor:
    return net.last(x.cumsum(3))


def picks(net: Net, x: Tensor) -> Tensor:
    return net.last(x.topk(24, dim=2).values)


def scales(net: Net, x: Tensor) -> Tensor:
    return net.last(x / torch.norm(x, dim=(2, 3), keepdim=True))


def adds(net: Net, x: Tensor) -> Tensor:
    flat = x.flatten(1)
    return net.last(torch.addmm(flat, flat, torch.eye(flat.shape[1], dtype=x.dtype)).view_as(x))


def crosses(net: Net, x: Tensor) -> Tensor:
    """Windows meet those of the transposed place in the image."""
    n, c, h, _ = x.shape
    windows = x[..., :16, :16].permute(0, 2, 3, 1).reshape(n, 4, 4, 4, 4, c)
    one = windows.permute(0, 1, 3, 2, 4, 5).reshape(16, 16, c)
    other = windows.permute(0, 3, 1, 2, 4, 5).reshape(16, 16, c)
    both = (one @ other.transpose(1, 2)) @ one
    y = both.view(n, 4, 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, 16, 16, c).permute(0, 3, 1, 2)
    return functional.pad(y, (0, 0, 0, h - 16))


GLOBAL = [
    (instance_norm, "native_batch_norm"),
    (group_norm, "native_group_norm"),
    (excited, "mean"),
    (attends, "bmm"),
    (mixes, "mm"),
    (filters, "_fft_r2c"),
    (sorts, "sort"),
    (counts, "cumsum"),
    (picks, "topk"),
    (scales, "norm"),
    (adds, "addmm"),
    (crosses, "bmm"),
]


@pytest.mark.parametrize(("then", "name"), GLOBAL, ids=[row[0].__name__ for row in GLOBAL])
def test_what_reaches_everywhere_is_named(then: Callable[..., Tensor], name: str) -> None:
    traced = trace(Net(then), ["output"], (2, 24, 16))["output"]
    assert traced.field.infinite
    assert any(name in found for found in traced.field.unbounded_by), traced.field.unbounded_by
    assert traced.feature_shape[1:] == (24, 16)
    assert traced.field.stride == (1, 1)


def test_operators_that_look_at_shapes_only_see_nothing() -> None:
    def noisy(net: Net, x: Tensor) -> Tensor:
        return net.last(x + torch.rand_like(x) + x.new_ones(x.shape))

    traced = trace(Net(noisy), ["output"], (2, 24, 16))["output"]
    assert (traced.field.size, traced.random) == ((5, 5), True)


def test_a_unit_lies_where_its_shortest_way_leads() -> None:
    def deep_and_short(net: Net, x: Tensor, shortcut: bool = True) -> Tensor:
        deep = functional.interpolate(functional.max_pool2d(x, 5, 4, 2), scale_factor=4)
        return deep + x if shortcut else deep

    # Four units share one that is centred on the first of their pixels: on the mean, 1.5 px before themselves.
    deep = trace(Net(lambda net, x: deep_and_short(net, x, False)), ["output"], (2, 24, 16))["output"]
    assert deep.field.center((12, 8)) == (10.5, 6.5)
    both = trace(Net(deep_and_short), ["output"], (2, 24, 16))["output"]
    assert both.field.center((12, 8)) == (12, 8)
    assert both.field.size[0] > 7  # that of the deep way alone


@pytest.mark.parametrize("axes", [1, 3])
def test_fields_along_one_and_three_axes(axes: int) -> None:
    kind = {1: nn.Conv1d, 3: nn.Conv3d}[axes]
    pool = {1: nn.MaxPool1d, 3: nn.AvgPool3d}[axes]
    net = nn.Sequential(kind(1, 2, 5, stride=2, padding=2), pool(2), kind(2, 2, 3, padding=1))
    traced = trace(net, ["2"], (1, *(32,) * axes))["2"]
    # 5, then 2 units 2 px apart: 7, then 3 units 4 px apart: 15.
    assert traced.field.size == (15,) * axes
    assert traced.field.stride == (4,) * axes
    assert traced.feature_shape == (2, *(8,) * axes)


def stale(x: Tensor) -> Tensor:
    """A view that was made before the whole was changed."""
    whole = x * 1
    view = whole[:, :, :]
    whole.add_(x.mean())
    return view


REFUSED = {
    "select": lambda x: torch.stack(x.unbind(2)[::-1], 2),
    "matrix": lambda x: x @ torch.eye(x.shape[3], dtype=x.dtype).flip(0),
    "scrambled": lambda x: x.transpose(2, 3).reshape(*x.shape[:2], 18, 32),
    "gather": lambda x: x.gather(2, torch.arange(x.shape[2] - 1, -1, -1)[:, None].expand(*x.shape)),
    "strides": lambda x: x.contiguous().as_strided(x.shape, (x[0].numel(), x[0, 0].numel(), 1, x.shape[2])),
    "stale": stale,
    "empty": lambda x: x[:, :, 12:-12],
}


@pytest.mark.parametrize("name", [*REFUSED])
def test_an_order_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(LayerError, match="not a map over the input"):
        trace(Net(lambda net, x: REFUSED[name](x)), ["output"], (2, 24, 24))


def test_a_unit_of_a_turned_map_lies_where_its_gradient_is() -> None:
    """Channels are unequal, the image square: nothing but the axes tells (40, 16) from (16, 40)."""
    for way in (
        lambda x: x.transpose(2, 3),
        lambda x: x.flip(2),
        lambda x: torch.rot90(x, 1, (2, 3)),
        lambda x: x.mT.flip(3),
    ):
        net = Net(lambda net, x, way=way: net.last(way(x))).double()
        traced = trace(net, ["output"], (2, 48, 48))["output"]
        top, bottom, left, right = reached(net, traced, (40, 16), (2, 48, 48))
        assert traced.field.center((40, 16)) == ((top + bottom - 1) / 2, (left + right - 1) / 2)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_move_no_centre(mode: str) -> None:
    def build(mode: Any) -> nn.Module:
        return nn.Sequential(*(nn.Conv2d(1, 1, 3, 2, 1, padding_mode=mode) for _ in range(4)))

    zeros, found = (trace(build(each), ["3"], (1, 256, 256))["3"].field for each in ("zeros", mode))
    assert found.kind == "finite"
    assert (found.center((8, 8)), found.size, found.stride) == (zeros.center((8, 8)), zeros.size, zeros.stride)
    assert (found == zeros) == (mode != "circular")
    assert found.y.box(0, 256) == ((0, 256) if mode == "circular" else zeros.y.box(0, 256))
