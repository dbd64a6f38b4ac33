"""A whole run against a slow, obvious loop over images."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import erf
import erf.models
from erf.definitions import DEFINITIONS
from erf.engine import compute, compute_layers
from erf.engine.groups import split_into_rounds
from erf.engine.memory import fitting_batch
from erf.engine.settings import Settings
from erf.errors import ImageWarning, SelfCheckWarning
from erf.gradients.autograd import unit_gradients
from erf.images import Image, ImageSet, from_arrays
from erf.measures import observe
from erf.results import ERF
from erf.uncertainty import Resampling, StoppingRule
from tests.agreement import assert_gradients_agree, assert_statistics_agree
from tests.conftest import SIDES, small_network


def plain_maps(arrays: Sequence[np.ndarray], definition: str) -> np.ndarray:
    """One map per image, by the textbook: batch 1, unit gradient, autograd."""
    model, maps = small_network(), []
    for array in arrays:
        image = torch.from_numpy(array)[None].requires_grad_()
        output = model(image)
        unit = torch.zeros_like(output)
        unit[:, :, output.shape[2] // 2, output.shape[3] // 2] = 1
        output.backward(unit)
        assert image.grad is not None
        maps.append(DEFINITIONS[definition](image.grad[0].numpy()))
    return np.stack(maps)


def run(arrays: Sequence[np.ndarray], **options: Any) -> ERF:
    # The frame holds float32, so the reference starts from the same float32 numbers.
    settings: dict[str, Any] = {"layer": "5", "definitions": tuple(DEFINITIONS), "device": "cpu"} | options
    sides = settings.pop("laterality", SIDES)
    return compute(small_network(), from_arrays(arrays, sides), **settings)


@pytest.fixture
def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.standard_normal((1, 40, 32)).astype(np.float32).astype(np.float64) for _ in range(6)]


MEMBERS = {"all": range(6), "left": (0, 2, 4), "right": (1, 3)}


def test_the_field_box_is_the_support_also_where_up_sampling_shifts_it() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AvgPool2d(2), nn.ConvTranspose2d(2, 1, 2, stride=2))
    result = compute(net.double(), from_arrays([np.ones((1, 24, 20))]), layer="2", unit=(10, 7), device="cpu")
    rows, columns = np.nonzero(result.statistics().mean)
    # Pooling pairs rows 10 and 11, columns 6 and 7; the convolution adds one to each side.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 12, 5, 8)
    assert (result.provenance.unit_center, result.provenance.field_box()) == ((10, 7), (8.5, 4.5, 12.5, 8.5))


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("subset", MEMBERS)
def test_mean_variance_and_curves(arrays: list[np.ndarray], definition: str, subset: str) -> None:
    maps = plain_maps(arrays, definition)[list(MEMBERS[subset])]
    result = run(arrays).statistics(subset, definition)
    assert_statistics_agree(result, maps, rtol=1e-11)


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"workers": 0}, {"workers": 3}, {"deterministic": True}])
def test_the_way_of_running_does_not_matter(arrays: list[np.ndarray], options: dict[str, Any]) -> None:
    plain, other = run(arrays), run(arrays, **options)
    for subset in MEMBERS:
        for name in ("mean", "variance", "across_rows", "across_columns"):
            one, two = (getattr(result.statistics(subset), name) for result in (other, plain))
            assert_gradients_agree(one, two, rtol=1e-12, rounding=1e-16)


def test_what_is_kept_of_each_image(arrays: list[np.ndarray]) -> None:
    result = run(arrays)
    maps = plain_maps(arrays, "abs")
    order = [int(record.id.split(":")[1]) for record in result.images]
    assert sorted(order) == list(range(6))
    profile = result.profiles["abs"]
    for row, map_ in zip(range(len(order)), maps[order], strict=True):
        assert_gradients_agree(profile.across_rows[row], map_.sum(0), rtol=1e-11)
        assert_gradients_agree(profile.across_columns[row], map_.sum(1), rtol=1e-11)
        assert_gradients_agree(profile.small[row].sum(dtype=np.float64), map_.sum(), rtol=1e-7)


def test_provenance(arrays: list[np.ndarray]) -> None:
    origin = run(arrays).provenance
    assert (origin.feature_shape, origin.unit) == ((8, 10, 8), (5, 4))
    # Convolution and pooling with stride 2 each, both padded to keep unit 0 centred on pixel 0; a field of 5, then
    # 5 + 2 * 2, then 9 + 4 * 4.
    assert (origin.unit_center, origin.field_size) == ((20, 16), (25, 25))
    assert origin.definitions == tuple(DEFINITIONS)


def test_one_definition_alone_gives_the_same(arrays: list[np.ndarray]) -> None:
    alone, together = run(arrays, definitions=("square",)), run(arrays)
    assert list(alone.subsets["all"]) == ["square"]
    np.testing.assert_array_equal(alone.statistics("left", "square").mean, together.statistics("left", "square").mean)


def test_gradient_is_zero_outside_the_field_and_infinite_fields_reach_everywhere() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((1, 512, 512)).astype(np.float32) for _ in range(2)]
    gmic = compute(erf.models.create_model("gmic-nyu"), from_arrays(arrays), layer="stage3", device="cpu")
    box = gmic.provenance.field_box()
    assert box is not None
    top, left, bottom, right = (round(edge + 0.5) for edge in box)
    mean = gmic.statistics().mean.copy()
    assert mean[top:bottom, left:right].sum() > 0
    mean[top:bottom, left:right] = 0
    assert not mean.any()
    hct = compute(erf.models.create_model("hct"), from_arrays(arrays), layer="stage4", device="cpu")
    assert hct.provenance.field_box() is None
    assert (hct.statistics().mean > 0).mean() > 0.99


def test_subsets_by_a_column() -> None:
    rng = np.random.default_rng(0)
    base = from_arrays([rng.standard_normal((1, 40, 32)) for _ in range(4)], ["left", "right", "left", "right"])
    views = ["CC", "CC", "MLO", ""]
    images = tuple(
        Image(image.id, image.path, image.decode, image.laterality, view, columns={"site": str(index)})
        for index, (image, view) in enumerate(zip(base.images, views, strict=True))
    )
    result = compute(small_network(), ImageSet(images, base.framing), layer="5", subset_by=("view", "site"))
    counts = {subset: result.count(subset) for subset in result.subsets}
    assert counts == {
        "all": 4,
        "left": 2,
        "right": 2,
        "view=CC": 2,
        "view=MLO": 1,
        "site=0": 1,
        "site=1": 1,
        "site=2": 1,
        "site=3": 1,
    }


def test_a_bad_image_is_passed_over_and_listed(arrays: list[np.ndarray]) -> None:
    arrays[2] = np.full_like(arrays[2], np.nan)
    result = run(arrays)
    assert result.count("all") == 5
    assert result.count("left") == 2
    (failure,) = result.failures
    assert failure.id == "array:2"
    assert "NaN" in failure.message
    row = result.images.index(failure)
    assert np.isnan(result.profiles["abs"].across_rows[row]).all()
    good = [0, 1, 3, 4, 5]
    maps = plain_maps([arrays[index] for index in good], "abs")
    assert_statistics_agree(result.statistics("all", "abs"), maps, rtol=1e-11)


def test_strict_stops_at_a_bad_image(arrays: list[np.ndarray]) -> None:
    arrays[2] = np.full_like(arrays[2], np.nan)
    with pytest.raises(erf.ImageError, match="array 2: found NaN"):
        run(arrays, strict=True)


def test_all_images_bad(arrays: list[np.ndarray]) -> None:
    with pytest.raises(erf.ImageError, match="none of 6 images could be used; the first: array 5: found NaN"):
        run([np.full_like(array, np.inf) for array in arrays])


def test_a_gradient_that_is_not_finite_is_passed_over(arrays: list[np.ndarray]) -> None:
    model: Any = small_network()
    model[3].weight.data.fill_(float("nan"))
    with pytest.raises(
        erf.ImageError, match=r"is NaN or infinite at the output of '2' \(MaxPool2d\).*look at weights and"
    ):
        compute(model, from_arrays(arrays), layer="5")


def test_a_gradient_that_is_zero_is_told(arrays: list[np.ndarray]) -> None:
    model: Any = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU()).double()
    model[0].bias.data.fill_(-100)
    with pytest.warns(ImageWarning, match=r"^6 of 6 images, first array:0: the gradient is zero everywhere") as caught:
        result = compute(model, from_arrays(arrays), layer="1")
    assert len(caught) == 1
    assert {record.message for record in result.images} == {
        "the gradient is zero everywhere: it is zero at the output of '0' (Conv2d) and was not at that of '1' (ReLU); "
        "its output is zero everywhere, as that of a dead ReLU"
    }
    assert np.isnan(result.statistics().centroid).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"definitions": ("absolute",)}, "found absolute; expected some of signed, abs, relu, square"),
        ({"definitions": ()}, "found none"),
        ({"batch_size": 0}, "batch size 0"),
        ({"device": "tpu9"}, "device 'tpu9'"),
        ({"device": "cuda:99"}, "is not available"),
        ({"unit": (99, 0)}, "lies outside"),
        ({"layer": "6"}, "unknown layer '6'"),
    ],
)
def test_options_that_cannot_be_used(arrays: list[np.ndarray], options: dict[str, Any], message: str) -> None:
    with pytest.raises(erf.ErfError, match=message):
        run(arrays, **options)


def test_more_groups_than_the_disk_holds_are_refused(arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erf.engine.memory.disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(erf.OutputError, match=r"3 groups of images set 0.0 GB of sums aside, 0.0 GB are free in"):
        run(arrays)


def test_too_little_memory_is_told_before_the_run(arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erf.engine.memory.available_memory", lambda device: 1000)
    with pytest.raises(
        erf.InsufficientMemoryError, match=r"needs at least .* GB on cpu, 0.0 GB are free; use a smaller"
    ):
        run(arrays)


def test_memory_that_runs_out_on_the_way_is_told(arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*args: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr("erf.gradients.methods.unit_gradients", exhaust)
    with (
        pytest.warns(SelfCheckWarning, match="the run was not checked, as memory ran out in the plain way"),
        pytest.raises(erf.InsufficientMemoryError, match=r"out of memory .* use a smaller `size`"),
    ):
        run(arrays)


def test_progress_counts_images_then_maps(arrays: list[np.ndarray]) -> None:
    calls: list[tuple[str, int, int]] = []
    run(arrays, progress=lambda *call: calls.append(call), definitions=("abs",))
    assert calls == [("images", done, 6) for done in range(1, 7)] + [("maps", done, 3) for done in range(1, 4)]


def test_mirrored_images_give_the_mirrored_map_for_a_mirrored_network() -> None:
    network: Any = nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)).double()
    for module in (network[0], network[2]):
        module.weight.data = (module.weight.data + module.weight.data.flip(3)) / 2
    array = np.random.default_rng(0).standard_normal((1, 21, 21))
    one = compute(network, from_arrays([array]), layer="2").statistics().mean
    other = compute(network, from_arrays([array[:, :, ::-1]]), layer="2").statistics().mean
    assert_gradients_agree(other, one[:, ::-1], rtol=1e-11, rounding=1e-16)


def many(count: int) -> ImageSet:
    rng = np.random.default_rng(3)
    images = [rng.standard_normal((1, 40, 32)) * rng.uniform(0.2, 3) for _ in range(count)]
    return from_arrays(images, ["left", "right"] * (count // 2))


def test_until_stops_when_the_interval_is_narrow() -> None:
    precision = StoppingRule(0.03, "r50", Resampling(resamples=200))
    options: dict[str, Any] = {"layer": "5", "device": "cpu"}
    stopped = compute(small_network(), many(80), until=precision, **options)
    assert 12 <= stopped.count() < 80
    assert precision.is_reached(precision.estimate(observe(stopped)))
    assert abs(stopped.count("left") - stopped.count("right")) <= 1
    # What it holds is what a run over the same images holds.
    chosen = [int(image.id.removeprefix("array:")) for image in stopped.images]
    images = many(80)
    again = compute(small_network(), ImageSet(tuple(images.images[row] for row in chosen), images.framing), **options)
    for subset in ("all", "left", "right"):
        one, two = stopped.statistics(subset), again.statistics(subset)
        assert one.count == two.count
        assert_gradients_agree(one.mean, two.mean, rtol=1e-11, rounding=1e-16)
        assert_gradients_agree(one.variance, two.variance, rtol=1e-11, rounding=1e-16)


def test_rounds_grow_by_half_and_are_balanced() -> None:
    arrays = [np.ones((1, 4, 4))] * 60
    images = from_arrays(arrays, ["left"] * 40 + ["right"] * 20).images
    found = split_into_rounds(images)
    assert [len(members) for members in found] == [12, 6, 9, 13, 20]
    assert [image.laterality for image in found[0]] == ["left", "right"] * 6
    assert sorted(image.id for members in found for image in members) == sorted(image.id for image in images)
    assert [len(members) for members in split_into_rounds(images[:5])] == [5]


def test_until_takes_all_images_where_they_do_not_suffice() -> None:
    precision = StoppingRule(0.0001, "r50", Resampling(resamples=100))
    assert compute(small_network(), many(30), layer="5", device="cpu", until=precision).count() == 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [((2.0,), "half width 2 of the value"), ((0.1, "r51"), "no measure 'r51' with an interval")],
)
def test_a_precision_that_makes_no_sense(settings: tuple[Any, ...], message: str) -> None:
    with pytest.raises(erf.InputError, match=message):
        StoppingRule(*settings)


def test_until_needs_a_definition_that_holds_mass(arrays: list[np.ndarray]) -> None:
    with pytest.raises(erf.InputError, match="'signed' has negative values"):
        run(arrays, definitions=("signed",), until=StoppingRule(0.1))
    assert run(arrays, definitions=("signed", "abs"), until=StoppingRule(0.1)).count() == len(arrays)


def test_several_layers_share_the_forward_pass_and_equal_runs_of_their_own(arrays: list[np.ndarray]) -> None:
    class Counted(nn.Module):
        """Edits the map of its first layer in place, as ReLUs often do."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 3, 5, stride=2), nn.Conv2d(3, 2, 3)
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.second(self.first(x).sub_(0.1).relu_())

    torch.manual_seed(3)
    model = Counted().double()
    images = from_arrays(arrays, SIDES)
    together = compute_layers(model, images, ["first", "second"], Settings(device="cpu", batch_size=1, crop=False))
    assert model.calls == 1 + 2 + 2 + 6  # the trace, two looks at the channels, two for the self-check, each image
    for layer, several in zip(("first", "second"), together, strict=True):
        alone = compute(model, images, layer=layer, device="cpu", batch_size=3)
        assert several.provenance.layer == layer
        for subset in MEMBERS:
            assert_gradients_agree(
                several.statistics(subset).mean, alone.statistics(subset).mean, 1e-11, rounding=1e-16
            )
    assert together[0].provenance.depth < together[1].provenance.depth


def test_layers_are_each_named_once(arrays: list[np.ndarray]) -> None:
    for layers, found in ((["5", "5"], "5, 5"), ([], "none")):
        with pytest.raises(erf.InputError, match=f"layers: found {found}; expected one or more, each once"):
            compute_layers(small_network(), from_arrays(arrays), layers)


def test_settings_are_the_arguments_of_compute() -> None:
    arguments = inspect.signature(compute).parameters
    steering = [
        item for item in fields(Settings) if item.name not in ("arguments", "seed")
    ]  # None: those of the network
    assert {item.name: item.default for item in steering} == {
        item.name: arguments[item.name].default for item in steering
    }


def test_half_precision_only_on_request_and_with_its_error(arrays: list[np.ndarray]) -> None:
    model, images = small_network().float(), from_arrays(arrays)
    full = compute(model, images, layer="5", device="cpu")
    half = compute(model, images, layer="5", device="cpu", precision="bfloat16")
    assert (full.provenance.precision, full.provenance.precision_error) == ("float32", 0)
    told = half.provenance.precision_error
    ours, theirs = full.statistics().mean, half.statistics().mean
    # bfloat16 has 8 bits: products are off by up to 2^-9; noise and images are of one kind here.
    assert 2**-12 < told < 2**-3
    assert 0 < np.abs(ours - theirs).sum() / ours.sum() < 3 * told
    assert "in bfloat16, which changes the gradient on noise by" in half.provenance.target
    with pytest.raises(erf.InputError, match="precision 'float8' not known"):
        Settings(precision="float8")


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images of the passes, of which none takes more than two; nothing is left for three."""
    sizes: list[int] = []

    def gradients(model: nn.Module, inputs: torch.Tensor, *rest: Any) -> Iterator[torch.Tensor]:
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return unit_gradients(model, inputs, *rest)

    monkeypatch.setattr("erf.gradients.methods.unit_gradients", gradients)
    return sizes


def test_a_batch_that_is_too_large_is_halved_before_the_run(arrays: list[np.ndarray], limited: list[int]) -> None:
    expected = run(arrays, batch_size=1)
    limited.clear()
    found = run([*arrays, *arrays], batch_size=4, laterality=[""] * 12)
    # The plain way; 4 are too many, 2 are not; one that is left over; its companion alone; the run.
    assert limited == [1, 4, 2, 1, 1] + [2] * 6
    for definition in DEFINITIONS:
        assert_gradients_agree(
            found.statistics(definition=definition).mean,
            expected.statistics(definition=definition).mean,
            rtol=1e-5,
            rounding=1e-9,
        )


def test_where_memory_runs_out_during_the_run_images_go_one_by_one(
    arrays: list[np.ndarray], limited: list[int]
) -> None:
    expected = run(arrays, batch_size=1)
    limited.clear()
    found = run(arrays, batch_size=3, self_check=False)
    # One without a side; of three left ones, 3 are too many; from then on one by one.
    assert limited == [1, 3] + [1] * 5
    for subset in MEMBERS:
        np.testing.assert_array_equal(found.statistics(subset).mean, expected.statistics(subset).mean)


def test_small_images_are_batched_and_large_ones_are_not() -> None:
    for size, expected in (((224, 224), 5), ((64, 48), 16), ((1024, 1024), 1)):
        assert fitting_batch(size[0] * size[1], torch.device("cpu"), per_image=1) == expected
    assert fitting_batch(64 * 48, torch.device("cpu"), per_image=10**15) == 1
