"""Networks from any source for users of Python, their checks, and ERFs over a training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import AxesImage
from torch import nn

import erf
from erf.errors import AssumptionWarning, InputError, LayerError
from erf.models import ModelError, WeightsError, create_model
from erf.storage.series import load_series, save_series
from erf.tracking import Snapshot
from erf.training.folder import pack_weights


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1))


def pictures(count: int = 3) -> erf.images.ImageSet:
    rng = np.random.default_rng(0)
    return erf.from_arrays([rng.standard_normal((1, 16, 12)).astype(np.float32) for _ in range(count)])


def test_a_network_of_the_registry() -> None:
    network = erf.build_network("gmic", "none", size=(64, 48), seed=3)
    assert network.input_shape == (1, 64, 48)
    assert network.layers() == ("final",)
    same = create_model("gmic", seed=3).state_dict()
    assert all(torch.equal(value, same[key]) for key, value in network.model.state_dict().items())
    assert network.origin(source="here") == erf.Origin(model="gmic", source="here")


def test_options_and_weights(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(pack_weights(create_model("gmic", seed=5, in_channels=2).state_dict(), {}))
    network = erf.build_network("gmic", file, size=(64, 48), model_args={"in_channels": 2})
    assert network.input_shape == (2, 64, 48)
    assert network.weights == str(file)
    assert len(network.weights_sha256) == 64
    with pytest.raises(InputError, match="'weights' is no option of a network; give it as `weights`"):
        erf.build_network("gmic", model_args={"weights": "w"})
    with pytest.raises(WeightsError, match="no weights are shipped with options"):
        erf.build_network("gmic", "shipped", model_args={"in_channels": 2})
    with pytest.raises(ModelError, match=r"did you mean|expected one that `list_models` lists"):
        erf.build_network("nothing")


def test_a_module_is_a_network_too() -> None:
    module = small()
    network = erf.build_network(module, size=(16, 12))
    assert network.model is module
    assert (network.name, network.input_shape) == ("Sequential", (1, 16, 12))
    with pytest.warns(AssumptionWarning, match="layer 'output' is taken"):
        assert network.layers() == ("output",)
    assert network.layers(("*",)) == ("0", "1", "2", "output")
    with pytest.raises(LayerError, match=r"no layer matches 'x\*'; `erf\.layers` lists them"):
        network.layers(("x*",))
    with pytest.warns(AssumptionWarning, match="found 4 units; the first is taken"):
        assert network.locate("0", "grid:2x2")[2] == (4, 3)


def test_sizes_that_are_assumed_are_told() -> None:
    found: list[str] = []
    assert erf.build_network(small(), warn=found.append).size == (512, 512)
    assert found == ["Sequential does not tell the size of its input; 512x512 is taken, `size` changes it"]


def test_the_digest_of_a_module_is_of_its_weights() -> None:
    one, other = (erf.build_network(small(), size=(16, 12)) for _ in range(2))
    assert one.weights_sha256 == other.weights_sha256
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    assert erf.build_network(other.model, size=(16, 12)).weights_sha256 != one.weights_sha256
    assert erf.build_network(small().to(torch.bfloat16), size=(16, 12)).weights_sha256


def test_a_gradient_is_checked() -> None:
    network = erf.build_network(small(), size=(16, 12))
    report = erf.check(network, "2")
    assert report.passed
    assert (report.layer, report.unit, report.input_shape) == ("2", (8, 6), (1, 16, 12))
    names = [check.name for check in report.checks]
    assert "finite differences, random pixels" in names
    assert "gradient inside the theoretical field (finite)" in names


class Wrong(torch.autograd.Function):
    """The identity, whose gradient is twice too large."""

    @staticmethod
    def forward(ctx, pixels):  # type: ignore[no-untyped-def] # noqa: ARG004
        return pixels.clone()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def] # noqa: ARG004
        return 2 * gradient


class Faulty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.conv(Wrong.apply(pixels))


def test_a_wrong_gradient_fails() -> None:
    report = erf.check(erf.build_network(Faulty(), size=(16, 12)), "conv")
    assert not report.passed
    assert {check.name for check in report.checks if not check.passed} == {
        "finite differences, random directions",
        "finite differences, random pixels",
    }
    assert len(report.checks) == 6  # theory is not compared with a gradient that is wrong


def checkpoints(folder: Path, epochs: tuple[int, ...]) -> list[Path]:
    files = []
    for epoch in epochs:
        torch.manual_seed(epoch)
        files.append(folder / f"{9 - epoch}.safetensors")
        weights = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3)).state_dict()
        files[-1].write_bytes(pack_weights(weights, {"epoch": epoch, "stage": "image"}))
    return files


def test_snapshots_are_in_the_order_of_their_epochs(tmp_path: Path) -> None:
    files = checkpoints(tmp_path, (3, 1))
    assert [(one.epoch, one.stage, one.file) for one in erf.find_snapshots(files)] == [
        (1, "image", files[1]),
        (3, "image", files[0]),
    ]
    assert [one.epoch for one in erf.find_snapshots([files[0], files[0]])] == [0, 1]


def test_a_series_equals_single_runs_and_goes_on(tmp_path: Path) -> None:
    snapshots = erf.find_snapshots(checkpoints(tmp_path, (0, 2)))
    network, images = erf.build_network(small(), size=(16, 12)), pictures()
    notes: list[str] = []
    settings = erf.Settings(device="cpu")
    series = erf.compute_series(network, images, snapshots, "2", settings, folder=tmp_path, note=notes.append)
    assert [moment.epoch for moment in series.moments] == [0, 2]
    assert notes[0].startswith("1/2: ")
    for snapshot, moment in zip(snapshots, series.moments, strict=True):
        alone = erf.compute(network.with_weights(snapshot.file).model, images, layer="2", device="cpu")
        found = series.observe(moment).all()
        expected = erf.measures.observe(alone).all()
        assert erf.MEASURES["rms_radius"].of(found) == pytest.approx(erf.MEASURES["rms_radius"].of(expected), rel=1e-6)
        assert moment.provenance.weights == str(snapshot.file)
    with torch.no_grad():
        next(network.model.parameters()).zero_()
    again = erf.compute_series(network, images, snapshots, "2", settings, folder=tmp_path)
    save_series(series, tmp_path / "one.h5")
    save_series(again, tmp_path / "two.h5")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    assert not next(network.model.parameters()).any()  # nothing was computed again


def test_series_that_cannot_be(tmp_path: Path) -> None:
    network = erf.build_network(small(), size=(16, 12))
    with pytest.raises(InputError, match="found no snapshots"):
        erf.compute_series(network, pictures(), [], "2")
    snapshots = erf.find_snapshots(checkpoints(tmp_path, (0,)))
    several = erf.Settings(unit="grid:2x2", device="cpu")
    with pytest.raises(InputError, match="found 4 units over training; expected one; choose one `unit`"):
        erf.compute_series(network, pictures(), snapshots, "2", several)
    with pytest.raises(WeightsError, match="not found"):
        erf.compute_series(network, pictures(), [Snapshot(0, "", tmp_path / "gone", "0" * 64)], "2")


def test_a_monitor_adds_an_erf_when_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[nn.Module] = []

    def compute(model: nn.Module, *arguments: Any, **options: Any) -> erf.ERF:
        measured.append(model)
        return erf.compute(model, *arguments, **options)

    monkeypatch.setattr("erf.tracking.monitor.compute", compute)
    network = erf.build_network(small(), size=(16, 12))
    monitor = erf.TrainingMonitor(network, pictures(), tmp_path / "series.h5", layer="2", every=2)
    for epoch in range(4):
        monitor(network.model, {"epoch": epoch, "stage": "image", "validation_auc": 0.5, "loss": 1.0})
    series = load_series(tmp_path / "series.h5")
    assert [(one.epoch, one.scores) for one in series.moments] == [
        (0, {"validation_auc": 0.5}),
        (2, {"validation_auc": 0.5}),
    ]
    assert [one.provenance.weights for one in series.moments] == ["", "002-image.safetensors"]
    figure = erf.plot_series(series, subsets=["all"])
    assert len(figure.findobj(AxesImage)) == 2
    (bar,) = (axis for axis in figure.axes if axis.get_xlabel().startswith("share of the map's maximum"))
    assert bar.get_xlim() == (-4, 0)  # powers of ten
    assert len(measured) == 2
    assert network.model not in measured  # a run moves the network to its own device
