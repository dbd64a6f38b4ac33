"""Random small networks, each determined by a seed, with one to three axes and many operations that move positions."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 4
LARGEST = {1: 64, 2: 40, 3: 16}
"""Most units along an axis, by the number of axes."""

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
ACTIVATIONS = (nn.ReLU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.Softplus, nn.LeakyReLU, nn.Hardswish, nn.Mish)
SHARP = (nn.ReLU, nn.Hardswish, nn.LeakyReLU)


class Step(nn.Module):
    """One operation of a network: its description, and a function of modules and a map (N, C, *axes)."""

    def __init__(
        self,
        words: str,
        run: Callable[..., Tensor],
        *parts: nn.Module,
        is_global: bool = False,
        is_sharp: bool = False,
        is_even: bool = True,
        is_crop: bool = False,
    ) -> None:
        super().__init__()
        self.words, self.run, self.parts = words, run, nn.ModuleList(parts)
        self.is_global = is_global
        """Whether theory may call the receptive field infinite."""
        self.is_sharp = is_sharp
        """Whether gradients may vanish within the receptive field for some images, as after a maximum."""
        self.is_even = is_even
        """Whether a unit is centred in its receptive field, which is a box without holes."""
        self.is_crop = is_crop
        """Whether some units are removed: units padded afterwards count as the removed ones."""

    @property
    def is_plain(self) -> bool:
        """Whether gradients cover exactly the box that theory predicts."""
        return self.is_even and not self.is_sharp and not self.is_global

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.run(*self.parts, x)
        return result


@dataclass
class Draw:
    """Random choices for an operation on a map."""

    rng: random.Random
    axes: int
    sizes: list[int] = field(default_factory=list)

    def each(self, *choices: int) -> tuple[int, ...]:
        """Draw one choice for each axis."""
        return tuple(self.rng.choice(choices) for _ in range(self.axes))

    def one(self, *choices: Any) -> Any:
        return self.rng.choice(choices)

    def axis(self) -> int:
        """Draw a dimension of the map that is a spatial axis."""
        return 2 + self.rng.randrange(self.axes)

    def kind(self, name: str) -> type[nn.Module]:
        """Return the class of `torch.nn` for this number of axes."""
        return getattr(nn, f"{name}{self.axes}d")

    def conv(self, channels: int = CHANNELS, kernel: int | tuple[int, ...] | None = None, **options: Any) -> nn.Module:
        kernel = kernel or self.rng.choice((1, 2, 3, 3, 3, 4, 5))
        return self.kind("Conv")(channels, CHANNELS, kernel, **options)


def convolution(draw: Draw) -> Step:
    kernel, stride, dilation = draw.each(1, 2, 3, 3, 4, 5), draw.each(1, 1, 2, 3), draw.each(1, 1, 1, 2, 3)
    padding = tuple(draw.rng.randint(0, size * wide // 2) for size, wide in zip(kernel, dilation, strict=True))
    mode, groups = draw.one(*PADDING_MODES), draw.one(1, 1, 2, 4)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "padding_mode": mode, "groups": groups}
    words = f"conv {kernel} " + " ".join(f"{name} {value}" for name, value in options.items())
    return Step(words, lambda conv, x: conv(x), draw.conv(kernel=kernel, **options), is_even=is_dense(kernel, dilation))


def is_dense(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> bool:
    return all(size == 1 or wide == 1 for size, wide in zip(kernel, dilation, strict=True))


def convolution_of_same_size(draw: Draw) -> Step:
    kernel, mode = draw.each(1, 2, 3, 5), draw.one(*PADDING_MODES)
    conv = draw.conv(kernel=kernel, padding="same", padding_mode=mode)
    return Step(f"conv {kernel} padding same, {mode}", lambda conv, x: conv(x), conv)


def transposed_convolution(draw: Draw) -> Step:
    kernel, stride, dilation = draw.each(1, 2, 3, 4, 5), draw.each(1, 2, 2, 3), draw.each(1, 1, 2)
    padding = tuple(draw.rng.randint(0, size // 2) for size in kernel)
    extra = tuple(draw.rng.randrange(max(step, wide)) for step, wide in zip(stride, dilation, strict=True))
    conv = draw.kind("ConvTranspose")(CHANNELS, CHANNELS, kernel, stride, padding, extra, 2, dilation=dilation)
    words = f"transposed conv {kernel} stride {stride} padding {padding}+{extra} dilation {dilation}"
    return Step(words, lambda conv, x: conv(x), conv, is_even=False)


def pooling(draw: Draw) -> Step:
    name = draw.one("MaxPool", "AvgPool", "LPPool")
    kernel, stride = draw.rng.choice((2, 3, 4)), draw.rng.choice((1, 2, 2, 3))
    options: dict[str, Any] = {"stride": stride, "ceil_mode": draw.one(False, True)}
    if name != "LPPool":
        options["padding"] = draw.rng.randint(0, kernel // 2)
    if name == "MaxPool":
        options["dilation"] = draw.one(1, 1, 2)
    if name == "AvgPool":
        options["count_include_pad"] = draw.one(False, True)
    args = (3.0, kernel) if name == "LPPool" else (kernel,)
    words = f"{name} {kernel} " + " ".join(f"{key} {value}" for key, value in options.items())
    is_even = options.get("dilation") != 2
    return Step(
        words,
        lambda pool, x: pool(x),
        draw.kind(str(name))(*args, **options),
        is_sharp=name != "AvgPool",
        is_even=is_even,
    )


def adaptive_pooling(draw: Draw) -> Step:
    sizes = tuple(draw.rng.randint(2, size) for size in draw.sizes)
    name = draw.one("AdaptiveAvgPool", "AdaptiveMaxPool")
    pool = draw.kind(str(name))(sizes)
    return Step(f"{name} to {sizes}", lambda pool, x: pool(x), pool, is_sharp=name == "AdaptiveMaxPool", is_even=False)


def unpooling(draw: Draw) -> Step:
    pool, unpool = draw.kind("MaxPool")(2, return_indices=True), draw.kind("MaxUnpool")(2)
    return Step(
        "max pooling and unpooling",
        lambda pool, unpool, x: unpool(*pool(x)),
        pool,
        unpool,
        is_global=True,
        is_sharp=True,
    )


def interpolation(draw: Draw) -> Step:
    smooth = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}[draw.axes]
    mode = draw.one("nearest", "nearest-exact", "area", *smooth, *smooth)
    options: dict[str, Any] = {"mode": mode}
    if draw.one(False, True):
        options["size"] = tuple(draw.rng.randint(max(2, size // 2), size * 2) for size in draw.sizes)
    else:
        options["scale_factor"] = tuple(draw.one(0.4, 0.5, 0.7, 1.3, 1.5, 2.0, 2.6) for _ in draw.sizes)
        options["recompute_scale_factor"] = draw.one(None, True)
    if mode in smooth:
        options["align_corners"] = draw.one(False, True)
    if mode in ("bilinear", "bicubic") and not options["align_corners"]:
        options["antialias"] = draw.one(False, True)
    return Step(f"interpolate {options}", lambda x: functional.interpolate(x, **options), is_even=False)


def padding(draw: Draw) -> Step:
    mode = draw.one("constant", "constant", "reflect", "replicate", "circular")
    low = -2 if mode != "reflect" else 0
    sides = [draw.rng.randint(low, 3) for _ in range(2 * draw.axes)]
    return Step(
        f"pad {sides} {mode}",
        lambda x: functional.pad(x, sides, str(mode)),
        is_even=mode == "constant",
        is_crop=min(sides) < 0,
    )


def slicing(draw: Draw) -> Step:
    ranges = [slice(draw.rng.randint(0, 3), -draw.rng.randint(1, 3), draw.rng.choice((1, 1, 2, 3))) for _ in draw.sizes]
    return Step(f"slice {ranges}", lambda x: x[(..., *ranges)], is_crop=True)


def flipping(draw: Draw) -> Step:
    place = draw.axis()
    return Step(f"flip {place}", lambda x: x.flip(place))


def turning(draw: Draw) -> Step:
    order = [0, 1, *draw.rng.sample(range(2, 2 + draw.axes), draw.axes)]
    conv = draw.conv(kernel=draw.each(1, 2, 3, 5))
    return Step(f"permute {order}, conv {conv.kernel_size}", lambda conv, x: conv(x.permute(order)), conv)


def quarter_turns(draw: Draw) -> Step:
    turns, places = draw.rng.randint(1, 3), draw.rng.sample(range(2, 2 + draw.axes), 2)
    return Step(f"{turns} quarter turns in {places}", lambda x: torch.rot90(x, turns, places))


def rolling(draw: Draw) -> Step:
    place, shift = draw.axis(), draw.rng.randint(-3, 3)
    return Step(f"roll {shift} along {place}", lambda x: torch.roll(x, shift, place), is_even=False)


def channels_last(draw: Draw) -> Step:
    linear, norm = nn.Linear(CHANNELS, CHANNELS), nn.LayerNorm(CHANNELS)
    return Step("linear and norm, channels last", lambda a, b, x: b(a(x.movedim(1, -1))).movedim(-1, 1), linear, norm)


def activation(draw: Draw) -> Step:
    kind = draw.rng.choice(ACTIVATIONS)
    return Step(kind.__name__, lambda act, x: act(x), kind(), is_sharp=kind in SHARP)


def norm(draw: Draw) -> Step:
    kinds = {
        "BatchNorm": lambda: draw.kind("BatchNorm")(CHANNELS),
        "BatchNorm of the batch": lambda: draw.kind("BatchNorm")(CHANNELS, track_running_stats=False),
        "GroupNorm": lambda: nn.GroupNorm(2, CHANNELS),
        "InstanceNorm": lambda: draw.kind("InstanceNorm")(CHANNELS),
        "LayerNorm over axes": lambda: nn.LayerNorm(draw.sizes),
        "LocalResponseNorm": lambda: nn.LocalResponseNorm(3),
    }
    name = draw.rng.choice([*kinds])
    act = draw.rng.choice(ACTIVATIONS)
    is_global = name not in ("BatchNorm", "LocalResponseNorm")
    words = f"{name}, {act.__name__}"
    return Step(words, lambda a, b, x: b(a(x)), kinds[name](), act(), is_global=is_global, is_sharp=act in SHARP)


def residual(draw: Draw) -> Step:
    """Residual branch with a stride, brought back to the size of the shortcut."""
    stride, mode = draw.rng.choice((1, 2, 3)), draw.one("nearest", "nearest-exact", "crop")
    first, second = draw.conv(stride=stride, padding=1), draw.conv(kernel=3, padding=1)

    def run(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
        y = second(first(x))
        if mode != "crop":
            return x + functional.interpolate(y, size=x.shape[2:], mode=str(mode))
        least: list[Any] = [slice(min(sizes)) for sizes in zip(x.shape[2:], y.shape[2:], strict=True)]
        return x[(..., *least)] + y[(..., *least)]

    return Step(f"residual, stride {stride}, {mode}", run, first, second, is_even=False)


def concatenation(draw: Draw) -> Step:
    one, two, last = draw.conv(kernel=3, padding=1), draw.conv(kernel=1), draw.conv(2 * CHANNELS, kernel=1)
    return Step(
        "branches side by side", lambda a, b, c, x: c(torch.cat([a(x), b(x)], 1)), one, two, last, is_even=False
    )


def end_to_end(draw: Draw) -> Step:
    place, many = draw.axis(), draw.rng.choice((2, 3))

    def run(x: Tensor) -> Tensor:
        pieces = list(x.chunk(many, place))
        return torch.cat([*pieces[1:], pieces[0].flip(place), x.new_zeros(pieces[0].shape)], place)

    return Step(f"{many} pieces put together along {place}", run, is_even=False)


def picking(draw: Draw) -> Step:
    place = draw.axis()
    size = draw.sizes[place - 2]
    units = torch.tensor([draw.rng.randrange(size) for _ in range(draw.rng.randint(2, size))])
    return Step(f"units {units.tolist()} of {place}", lambda x: x.index_select(place, units), is_even=False)


def repeating(draw: Draw) -> Step:
    place, way = draw.axis(), draw.one("repeat_interleave", "repeat")
    times = [1] * (place) + [2] + [1] * (draw.axes + 1 - place)
    if way == "repeat":
        return Step(f"repeat {times}", lambda x: x.repeat(times), is_even=False)
    return Step(f"repeat_interleave along {place}", lambda x: x.repeat_interleave(2, place), is_even=False)


def shifting(draw: Draw) -> Step:
    """Shift of some channels by one or two units, written into a tensor of zeros."""
    place, by = draw.axis(), draw.rng.randint(1, 2)

    def run(x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        y[:, 2:] = x[:, 2:]
        y.narrow(place, by, x.shape[place] - by)[:, :2] = x.narrow(place, 0, x.shape[place] - by)[:, :2]
        return y

    return Step(f"channels shifted by {by} along {place}", run, is_even=False)


def overwriting(draw: Draw) -> Step:
    place = draw.axis()

    def run(x: Tensor) -> Tensor:
        y = x.clone()
        view = y.narrow(place, 1, x.shape[place] - 1)
        view += x.narrow(place, 0, x.shape[place] - 1)
        return y

    return Step(f"a neighbour added in place along {place}", run, is_even=False)


def windows(draw: Draw) -> Step:
    """Attention within windows, after a shift, as in Swin."""
    side, shift = draw.rng.choice((2, 4)), draw.rng.choice((0, 1, 2))
    places = [*range(2, 2 + draw.axes)]

    def run(x: Tensor) -> Tensor:
        x = torch.roll(x, [-shift] * draw.axes, places)
        n, c, *sizes = x.shape
        cut = x.view(n, c, *[part for size in sizes for part in (size // side, side)])
        outer, inner = [2 + 2 * axis for axis in range(draw.axes)], [3 + 2 * axis for axis in range(draw.axes)]
        y = cut.permute(0, *outer, *inner, 1).reshape(-1, side**draw.axes, c)
        y = torch.softmax(y @ y.transpose(1, 2), -1) @ y
        y = y.view(n, *[size // side for size in sizes], *[side] * draw.axes, c)
        back = [part for axis in range(draw.axes) for part in (1 + axis, 1 + draw.axes + axis)]
        y = y.permute(0, 1 + 2 * draw.axes, *back).reshape(n, c, *sizes)
        return torch.roll(y, [shift] * draw.axes, places)

    return Step(f"attention in windows of {side} shifted by {shift}", run, is_even=False)


def shuffle(draw: Draw) -> Step:
    wide, back = draw.conv(kernel=1), nn.Conv2d(CHANNELS * 4, CHANNELS, 1)
    if draw.one(False, True):
        return Step(
            "pixel shuffle", lambda a, x: functional.pixel_shuffle(a(x).repeat(1, 4, 1, 1), 2), wide, is_even=False
        )
    return Step("pixel unshuffle", lambda a, x: a(functional.pixel_unshuffle(x, 2)), back)


def unfolding(draw: Draw) -> Step:
    place, size, step = draw.axis(), draw.rng.randint(2, 4), draw.rng.randint(1, 2)
    return Step(f"unfold {size} step {step} of {place}", lambda x: x.unfold(place, size, step).mean(-1))


def excitation(draw: Draw) -> Step:
    places = [*range(2, 2 + draw.axes)]
    return Step(
        "squeeze and excite",
        lambda gate, x: x * gate(x.mean(places, keepdim=True)).sigmoid(),
        draw.conv(kernel=1),
        is_global=True,
    )


def attention(draw: Draw) -> Step:
    def run(x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        return x + functional.scaled_dot_product_attention(y, y, y).transpose(1, 2).reshape(x.shape)

    return Step("attention", run, is_global=True)


def mixing(draw: Draw) -> Step:
    place = draw.axis()
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "cumsum": lambda x: x.cumsum(place),
        "softmax": lambda x: x.softmax(place),
        "sort": lambda x: x.sort(place).values,
        "fft": lambda x: x + torch.fft.fft(x, dim=place).real,
        "mean": lambda x: x - x.mean(place, keepdim=True),
        "maximum": lambda x: x + x.amax(place, keepdim=True),
        "matrix": lambda x: x + torch.einsum("...i,ij->...j", x, torch.ones(x.shape[-1], x.shape[-1], dtype=x.dtype)),
        "gather": lambda x: x + x.gather(place, x.argsort(place)),
    }
    name = draw.rng.choice([*ways])
    return Step(f"{name} along {place}", ways[name], is_global=True, is_sharp=True)


STEPS: list[Callable[[Draw], Step]] = [
    *[convolution] * 5, convolution_of_same_size, *[transposed_convolution] * 2, *[pooling] * 2, adaptive_pooling,
    unpooling, *[interpolation] * 4, *[padding] * 2, slicing, flipping, turning, quarter_turns, rolling, channels_last,
    *[activation] * 2, norm, *[residual] * 2, concatenation, end_to_end, picking, repeating, shifting, overwriting,
    windows, shuffle, unfolding, excitation, attention, mixing,
]  # fmt: skip


class RandomNetwork(nn.Module):
    """Random network determined by a seed, in double precision."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        torch.manual_seed(seed)
        axes = rng.choice((1, 2, 2, 2, 2, 3))
        largest = LARGEST[axes]
        self.seed = seed
        self.shape = (1, *(rng.randint(largest // 2, largest * 3 // 4) for _ in range(axes)))
        draw = Draw(rng, axes)
        steps = [Step("conv 3", lambda conv, x: conv(x), draw.conv(1, kernel=3, padding=1))]
        with torch.no_grad():
            sample = steps[0](torch.randn(1, *self.shape))
            wanted = rng.randint(2, 6)
            is_plain = rng.random() < 0.4
            while len(steps) <= wanted:
                draw.sizes = list(sample.shape[2:])
                step, result = self._tried(rng.choice(STEPS), draw, sample)
                if step is not None and result is not None and (step.is_plain or not is_plain):
                    steps, sample = [*steps, step], result
        self.steps = nn.Sequential(*steps)
        self.double().eval()

    @staticmethod
    def _tried(make: Callable[[Draw], Step], draw: Draw, sample: Tensor) -> tuple[Step | None, Tensor | None]:
        """Try a step on a sample; return it with its result if it runs and the map is neither tiny nor large."""
        try:
            step = make(draw).eval()
            result = step(sample)
        except (RuntimeError, ValueError, IndexError, NotImplementedError, AttributeError, KeyError):
            return None, None
        fits = all(2 <= size <= LARGEST[draw.axes] for size in result.shape[2:])
        return (step, result) if fits and result.isfinite().all() else (None, None)

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x)

    @property
    def description(self) -> str:
        lines = [f"seed {self.seed}, input {self.shape}", *(str(step.words) for step in self.steps)]
        return "\n  ".join(lines)

    def every(self, name: str) -> bool:
        return all(getattr(step, name) for step in self.steps)

    def some(self, name: str) -> bool:
        return any(getattr(step, name) for step in self.steps)

    @property
    def wraps(self) -> bool:
        """Whether neighbouring units may come from distant positions, so that a kernel over them spans all between."""
        words = ("circular", "pieces", "roll", "shifted", "units")
        return any(word in str(step.words) for step in self.steps for word in words)
