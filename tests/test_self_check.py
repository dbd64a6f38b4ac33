"""The engine checks itself: networks that are wrong in one way or another of computing get the right gradient.

Each network is right when one image goes through it alone, contiguous, whole and by the library, and wrong in another
way. What is expected is the library's gradient in float64, computed here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import erf
from erf.accumulation.merging import merge
from erf.definitions import DEFINITIONS
from erf.engine import compute_layers
from erf.errors import ImageWarning, InterruptedRunError, SelfCheckWarning
from erf.results import ERF
from erf.storage.checkpoint import Checkpoint
from erf.theory.tracing import theoretical_receptive_field
from tests.agreement import Reference, assert_gradients_agree, plain_gradient
from tests.modules import Applied
from tests.test_cli import call, in_an_empty_folder  # noqa: F401 (a fixture)

SIZE = (128, 96)
CONTRASTS = ((1, 0), (3, 2), (0.3, -1), (1, 1), (2, 0))


class Scaled(torch.autograd.Function):
    """Doubles, and has another backward pass under a condition on its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, is_wrong: Callable[[Tensor], bool], spoil: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.spoil = spoil if is_wrong(x) else lambda gradient: gradient
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.spoil(2 * gradient), None, None


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def at_the_unit(gradient: Tensor) -> Tensor:
    """A hundredth more at a single place: the unit that is measured."""
    changed = gradient.clone()
    changed[..., gradient.shape[-2] // 2, gradient.shape[-1] // 2] *= 1.03
    return changed


class Views(nn.Module):
    """Reads memory as if it were contiguous."""

    def forward(self, x: Tensor) -> Tensor:
        order = torch.empty(x.shape, device="meta").stride()
        return x + torch.as_strided(x, x.shape, order, x.storage_offset())


class Ordered(nn.Module):
    """Takes the last of several maxima where channels are last in memory, the first one otherwise; both are right."""

    def forward(self, x: Tensor) -> Tensor:
        if is_channels_last(x):
            return nn.functional.max_pool2d(x.flip(-1, -2), 3, 1, 1).flip(-1, -2)
        return nn.functional.max_pool2d(x, 3, 1, 1)


class Counting(nn.Module):
    """Is another function at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (1 + 0.01 * self.calls)


def standardised() -> nn.Conv2d:
    """A convolution whose weights are centred by a method that was put on the instance."""
    stem: Any = nn.Conv2d(1, 8, 3, 2, 1)
    inherited = stem._conv_forward
    stem._conv_forward = lambda x, weight, bias: inherited(x, weight - weight.mean((1, 2, 3), True), bias)
    return stem


def between(*parts: nn.Module, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Parts between a stem and a last convolution, all drawn from one seed."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), *parts, activation(), nn.Conv2d(8, 4, 3, 1, 1))


ONE, CONTIGUOUS, WHOLE, LIBRARY = (
    "one image at a time",
    "contiguous memory layout",
    "whole images",
    "the library's backward passes",
)

# What is wrong in some way, by name: a network, and what its run has to do.
HOSTILE: dict[str, tuple[Callable[[], nn.Sequential], tuple[str, ...]]] = {
    "batch statistics": (lambda: between(nn.BatchNorm2d(8, track_running_stats=False)), (ONE,)),
    "less the mean": (lambda: between(Applied(lambda x: x - 0.5 * x.mean(0))), (ONE,)),
    "less the first": (lambda: between(Applied(lambda x: x - 0.5 * x[:1])), (ONE,)),
    "linear, less the first": (lambda: between(Applied(lambda x: x - 0.5 * x[:1]), activation=nn.Identity), (ONE,)),
    "first and second": (lambda: between(Applied(lambda x: torch.cat([x[:1] + x[1:2].sum(0), x[1:]]))), (ONE,)),
    "sorted": (lambda: between(Applied(lambda x: x.sort(0).values), nn.Conv2d(8, 8, 3, 1, 1)), (ONE,)),
    "batch and channels": (lambda: between(Applied(lambda x: x.transpose(0, 1).reshape(x.shape))), (ONE,)),
    "largest of all": (lambda: between(Applied(lambda x: x / x.abs().amax())), (ONE,)),
    "one image only": (lambda: between(Applied(lambda x: x.reshape(1, 8, *x.shape[2:]))), (ONE,)),
    "instance norm": (lambda: between(nn.InstanceNorm2d(8)), (CONTIGUOUS,)),
    "instance norm, affine, tanh": (
        lambda: between(nn.InstanceNorm2d(8, affine=True), activation=nn.Tanh),
        (CONTIGUOUS,),
    ),
    "instance norm, linear": (lambda: between(nn.InstanceNorm2d(8), activation=nn.Identity), (CONTIGUOUS,)),
    "own backward pass": (
        lambda: between(Applied(lambda x: Scaled.apply(x, is_channels_last, lambda g: 1.5 * g))),
        (CONTIGUOUS,),
    ),
    "own backward pass, one unit": (
        lambda: between(nn.SiLU(), Applied(lambda x: Scaled.apply(x, is_channels_last, at_the_unit))),
        (CONTIGUOUS,),
    ),
    "strides": (lambda: between(Views()), (CONTIGUOUS,)),
    "view": (lambda: between(Applied(lambda x: x.view(len(x), -1).view(x.shape))), (CONTIGUOUS,)),
    "size in the backward pass": (
        lambda: between(Applied(lambda x: Scaled.apply(x, lambda x: x.shape[-1] < SIZE[1] // 2, lambda g: 1.5 * g))),
        (WHOLE,),
    ),
    "replaced method": (lambda: nn.Sequential(standardised(), *between()[1:]), (LIBRARY,)),
    "two at once": (
        lambda: between(
            nn.InstanceNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)
        ),
        (ONE, CONTIGUOUS),
    ),
}
HARMLESS: dict[str, Callable[[], nn.Sequential]] = {
    "batch norm": lambda: between(nn.BatchNorm2d(8)),
    "group norm": lambda: between(nn.GroupNorm(2, 8)),
    "maxima": lambda: between(nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)),
    "positions": lambda: between(Applied(lambda x: x * torch.linspace(1, 2, x.shape[-1], dtype=x.dtype))),
    "changes its input": lambda: nn.Sequential(Applied(lambda x: x.mul_(2)), *between()),
}


def images(contrasts: Sequence[tuple[float, float]] = CONTRASTS) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(c * rng.standard_normal((1, *SIZE)) + offset).astype(np.float32) for c, offset in contrasts]


def center(output: Tensor) -> Tensor:
    return output[:, :, output.shape[2] // 2, output.shape[3] // 2]


def expected_map(network: nn.Module, arrays: Sequence[np.ndarray]) -> Reference:
    """The mean absolute gradient of the central unit, each image alone, by the library in float64."""
    network.eval()
    found = [
        plain_gradient(network, torch.from_numpy(array)[None], lambda model, x: center(model(x.clone())), np.float32)
        for array in arrays
    ]
    mean = np.mean([np.abs(each.values[0]).sum(0) for each in found], 0)
    return Reference(mean, max(each.rounding for each in found))


def run(network: nn.Sequential, arrays: Sequence[np.ndarray], **options: Any) -> ERF:
    return erf.compute(
        network, erf.from_arrays(arrays), **({"layer": str(len(network) - 1), "device": "cpu"} | options)
    )


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("count", [1, 5])
def test_a_network_that_is_wrong_in_the_fast_way_gets_the_right_gradient(name: str, count: int) -> None:
    make, plain = HOSTILE[name]
    plain = tuple(words for words in plain if words != ONE or count > 1)
    arrays = images()[:count]
    if plain:
        with pytest.warns(SelfCheckWarning, match="self-check: the fast way .* the run goes on with") as caught:
            found = run(make(), arrays)
        assert len(caught) == 1
        assert "\n" not in str(caught[0].message)
    else:
        found = run(make(), arrays)
    record = found.provenance.self_check
    assert record["result"] == ("fell back" if plain else "agrees")
    changed = set(record["way"].split(", ")) - set(record["compared"].split(", "))
    assert changed == set(plain)
    assert_gradients_agree(found.statistics().mean, expected_map(make(), arrays), rtol=5e-3)


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("count", [1, 5])
def test_a_network_that_is_right_keeps_the_fast_way(name: str, count: int) -> None:
    arrays = images()[:count]
    found = run(HARMLESS[name](), arrays)
    record = found.provenance.self_check
    assert record["result"] == "agrees"
    assert record["way"] == record["compared"]
    assert "channels last" in record["way"]
    assert ("batches of 5" in record["way"]) == (count == 5)
    assert float(record["difference"].split()[0]) < 1e-5
    assert_gradients_agree(found.statistics().mean, expected_map(HARMLESS[name](), arrays), rtol=5e-3)


def test_images_that_are_left_over_go_one_by_one() -> None:
    """Of eleven images, seven and four; only batches of seven and single images were compared with the plain way."""
    sizes: list[int] = []
    network = between()
    network[0].register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    arrays = images([(1, 0)] * 11)
    found = run(network, arrays, batch_size=7, crop=False)
    assert sizes[-5:] == [7, 1, 1, 1, 1]
    assert_gradients_agree(found.statistics().mean, expected_map(between(), arrays), rtol=5e-3)


def stripes() -> np.ndarray:
    """An image that is constant along x, so that maxima over windows are equal, and flat nowhere."""
    rows = np.random.default_rng(0).standard_normal((1, SIZE[0], 1), dtype=np.float32)
    return np.ascontiguousarray(np.broadcast_to(rows, (1, *SIZE)))


def test_other_maxima_of_equal_ones_are_no_defect() -> None:
    found = run(between(nn.ReLU(), Ordered()), [stripes()])
    record = found.provenance.self_check
    assert float(record["difference"].split()[0]) > 0.01  # else there were no ties
    assert record["result"] == "agrees"
    assert record["way"] == record["compared"]


@pytest.mark.parametrize("image", [stripes(), *images([(0, 1), (0, 0)])], ids=["stripes", "ones", "zeros"])
def test_a_defect_does_not_hide_behind_ties(image: np.ndarray) -> None:
    spoilt = Applied(lambda x: Scaled.apply(x, is_channels_last, at_the_unit))
    with pytest.warns(SelfCheckWarning, match="the run goes on with contiguous memory layout"):
        run(between(nn.ReLU(), Ordered(), nn.SiLU(), spoilt), [image])


@pytest.mark.parametrize("blank", [np.s_[:], np.s_[..., : SIZE[1] // 2 + 8]])
def test_a_defect_does_not_hide_behind_a_blank_first_image(blank: Any) -> None:
    def varies(x: Tensor) -> bool:
        row = x[0, :, x.shape[2] // 2, x.shape[3] // 2 - 4 : x.shape[3] // 2 + 4]
        return is_channels_last(x) and bool(row.std(-1).max() > 0.1)

    def network() -> nn.Sequential:
        return between(Applied(lambda x: Scaled.apply(x, varies, lambda g: 1.5 * g)))

    arrays = images()
    arrays[0][blank] = 0
    with pytest.warns(SelfCheckWarning, match="the run goes on with contiguous memory layout"):
        found = run(network(), arrays)
    assert found.provenance.self_check["image"] == "0, also with noise"
    assert_gradients_agree(found.statistics().mean, expected_map(network(), arrays), rtol=5e-3)


def test_a_program_that_reads_values_gets_whole_images_one_by_one() -> None:
    """What a batch, a crop or the first image does at an `if` is not what other images do."""

    def network() -> nn.Sequential:
        return between(Applied(lambda x: 2 * x if x.mean() > 0.1 else x.tanh()))

    assert theoretical_receptive_field(network(), "2", (1, *SIZE)).unbounded_by == ("item",)
    assert theoretical_receptive_field(network(), "0", (1, *SIZE)).kind == "finite"
    found = run(network(), images())
    assert {ONE, WHOLE} <= set(found.provenance.self_check["way"].split(", "))
    assert_gradients_agree(found.statistics().mean, expected_map(network(), images()), rtol=5e-3)


def test_a_plain_way_that_is_wrong_is_not_taken() -> None:
    part = Applied(lambda x: Scaled.apply(x, lambda x: not is_channels_last(x), lambda g: 1.5 * g))
    found = run(between(part), images())
    assert found.provenance.self_check["plain way"] == "wrong, by differences of values"
    assert found.provenance.self_check["way"] == found.provenance.self_check["compared"]
    assert "batches of 5, channels last, crops" in found.provenance.self_check["way"]
    assert_gradients_agree(
        found.statistics().mean, expected_map(between(Applied(lambda x: 2 * x)), images()), rtol=5e-3
    )


def test_a_sum_over_channels_that_is_rounding_is_no_defect() -> None:
    class Normed(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    network = nn.Sequential(*between(), Normed(4))
    with pytest.warns(ImageWarning, match="^array:0: the channels of a unit sum to a constant"):
        found = run(network, images(), allow_rounding=True)
    assert "sum to a constant" in found.images[0].message
    assert found.provenance.self_check["result"] == "agrees"
    one = run(network, images(), channel=0)
    assert float(one.provenance.self_check["difference"].split()[0]) < 1e-4


def test_in_half_precision_too() -> None:
    found = run(between(nn.GroupNorm(2, 8)), images(), precision="bfloat16")
    assert found.provenance.self_check["result"] == "agrees"
    assert found.provenance.self_check["way"].endswith(LIBRARY)
    for part in (Applied(lambda x: Scaled.apply(x, is_channels_last, at_the_unit)), Views()):
        with pytest.warns(SelfCheckWarning, match="contiguous memory layout"):
            run(between(part), images(), precision="bfloat16")
    with pytest.warns(SelfCheckWarning, match=ONE):
        run(between(nn.BatchNorm2d(8, track_running_stats=False)), images(), precision="bfloat16")


def test_a_network_that_is_another_at_each_call_is_named() -> None:
    with pytest.warns(SelfCheckWarning, match="gives another gradient at every call"):
        found = run(between(Counting()), images())
    assert found.provenance.self_check["result"] == "the network gives another gradient at every call"
    assert found.provenance.self_check["way"] == f"{ONE}, {CONTIGUOUS}, {WHOLE}, {LIBRARY}"


UNITS: dict[str, dict[str, Any]] = {
    "several units": {"unit": [(3, 3), (20, 30)]},
    "aligned": {"unit": "grid:2x2", "aligned": True},
    "strongest": {"unit": "max"},
    "signs": {"channel": "signs", "definitions": ("square",)},
    "one channel": {"channel": 2},
    "captum": {"method": "integrated-gradients", "method_options": {"n_steps": 2}},
}


@pytest.mark.parametrize("name", UNITS)
def test_whatever_is_measured_is_checked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = erf.Settings(device="cpu", **UNITS[name])
    lines: list[str] = []

    def both_layers() -> tuple[ERF, ...]:
        torch.manual_seed(0)
        chosen = erf.from_arrays(images()[:1])
        return compute_layers(between(nn.InstanceNorm2d(8)), chosen, ["0", "3"], settings, warn=lines.append)

    found = both_layers()
    assert len(lines) == 1
    assert all(CONTIGUOUS in each.provenance.self_check["way"] for each in found)
    monkeypatch.setattr("erf.engine.plan.memory_layout", lambda _: None)
    plain = both_layers()
    assert len(lines) == 1
    for one, other in zip(found, plain, strict=True):
        definition = one.provenance.definitions[0]
        np.testing.assert_array_equal(one.statistics("all", definition).mean, other.statistics("all", definition).mean)


@pytest.mark.parametrize("count", [1, 5])
def test_it_costs_one_plain_pass(count: int) -> None:
    plain: list[bool] = []
    network = between(nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, 1, 1))

    def note(module: Any, args: tuple[Tensor, ...]) -> None:
        plain.append(torch.is_grad_enabled() and module.weight.is_contiguous() and len(args[0]) == 1)

    network[3].register_forward_pre_hook(note)
    assert run(network, images()[:count]).provenance.self_check["result"] == "agrees"
    assert sum(plain) == 1
    plain.clear()
    found = run(network, images()[:count], self_check=False)
    assert sum(plain) == 0
    assert found.provenance.self_check["result"] == "not checked: not asked for"


def test_a_run_that_goes_on_computes_as_it_began(tmp_path: Path) -> None:
    settings = erf.Settings(device="cpu", batch_size=2, definitions=tuple(DEFINITIONS))
    chosen, layers = erf.from_arrays(images()), ["3"]
    lines: list[str] = []
    network = between(nn.BatchNorm2d(8, track_running_stats=False))
    (whole,) = compute_layers(network, chosen, layers, settings, warn=lines.append)
    asked = iter(range(10))
    with pytest.raises(InterruptedRunError), Checkpoint(tmp_path / "p") as checkpoint:
        compute_layers(
            network, chosen, layers, settings, checkpoint=checkpoint, stop=lambda: next(asked) == 2, warn=lines.append
        )
    assert len(lines) == 2
    with Checkpoint(tmp_path / "p", resume=True) as checkpoint:
        (found,) = compute_layers(network, chosen, layers, settings, checkpoint=checkpoint, warn=lines.append)
    assert len(lines) == 2  # it was said before
    assert found.provenance.self_check == whole.provenance.self_check
    for definition in DEFINITIONS:
        np.testing.assert_array_equal(
            found.statistics("all", definition).mean, whole.statistics("all", definition).mean
        )


def test_parts_that_were_computed_in_other_ways_are_merged() -> None:
    chosen = erf.from_arrays(images())
    network = HOSTILE["size in the backward pass"][0]
    with pytest.warns(SelfCheckWarning):
        first = erf.compute(network(), chosen.shard(1, 2), layer="3", device="cpu")
    other = erf.compute(between(Applied(lambda x: 2 * x)), chosen.shard(2, 2), layer="3", device="cpu")
    assert other.provenance.crop != first.provenance.crop
    for parts in ((first, other), (other, first)):
        merged = merge(parts)
        assert merged.provenance.crop == (0, 0, *SIZE)
        assert merged.provenance.self_check["result"] == "fell back"


def test_what_does_not_fit_into_memory_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    network, settings = between(nn.Conv2d(8, 64, 1), nn.Conv2d(64, 8, 1)), erf.Settings(device="cpu")
    for free in np.geomspace(1e5, 1e8, 60):
        for module in ("memory", "choice"):
            monkeypatch.setattr(f"erf.engine.{module}.available_memory", lambda _, free=free: int(free))
        try:
            (found,) = compute_layers(network, erf.from_arrays(images()[:1]), ["4"], settings, warn=lines.append)
            break
        except erf.InsufficientMemoryError:
            continue
    assert len(lines) == 1
    assert "the run was not checked, as the whole image takes" in lines[0]
    assert found.provenance.self_check["result"].startswith("not checked: as the whole image takes")


NET = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.InstanceNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, 2, 1))
"""


@pytest.mark.usefixtures("in_an_empty_folder")
def test_the_command_line_says_it_in_one_line_and_the_file_keeps_it() -> None:
    Path("net.py").write_text(NET)
    words = ["-m", "net.py:build", "--size", "128x128", "--layer", "3"]
    result = call("compute", *words, "-n", 1, "--no-picture", "--device", "cpu", "-o", "net.h5")
    assert result.exit_code == 0
    (line,) = (line for line in result.stderr.splitlines() if "self-check" in line)
    assert "is off by" in line
    assert line.endswith("the run goes on with contiguous memory layout, which agrees with the plain way")
    shown = " ".join(call("show", "net.h5").stdout.split())
    assert "self check" in shown
    assert "result fell back" in shown
    assert "the run goes on with contiguous memory layout" in " ".join(call("check", *words).stdout.split())
    call("compute", *words, "-n", 1, "--no-picture", "--device", "cpu", "--no-self-check", "-o", "wrong.h5")
    right, wrong = (erf.load(name).statistics().mean for name in ("net.h5", "wrong.h5"))
    assert np.abs(right - wrong).max() > 0.1 * right.max()


def test_the_strongest_unit_of_a_blank_image_is_not_that_of_the_noise_compared() -> None:
    arrays = images()
    arrays[0][:] = 0
    record = run(between(), arrays, unit="max").provenance.self_check
    assert record["image"] == "0, also with noise"
    assert record["result"] == "agrees"
    assert record["way"] == record["compared"]


def test_a_defect_on_flat_backgrounds_does_not_hide_behind_noise() -> None:
    """The batch size leaks in where an image is exactly flat, which noise would remove."""

    def leaking(x: Tensor) -> Tensor:
        is_flat = (x[..., :3, :3].amax((1, 2, 3)) == x[..., :3, :3].amin((1, 2, 3))).to(x.dtype).view(-1, 1, 1, 1)
        return x * (1 + is_flat * (len(x) - 1))

    def network() -> nn.Sequential:
        return nn.Sequential(Applied(leaking), *between())

    arrays = [np.zeros((1, *SIZE), np.float32) for _ in range(4)]
    for array, other in zip(arrays, images(), strict=False):
        array[..., -20:, :] = other[..., -20:, :]
    with pytest.warns(SelfCheckWarning, match="one image at a time"):
        found = run(network(), arrays)
    assert_gradients_agree(found.statistics().mean, expected_map(network(), arrays), rtol=5e-3)
