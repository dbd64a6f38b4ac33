"""The engine on a GPU against the plain gradient on the CPU in float64.

Skipped where there is no CUDA. `ERF_DEVICE=cpu pytest tests/test_cuda.py` runs what does not ask CUDA itself, so that
these tests are tested too.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import erf
from erf.accumulation.running import RunningMoments
from erf.engine import compute_layers
from erf.engine.settings import Settings
from erf.errors import InterruptedRunError
from erf.gradients.units import center_unit
from erf.images import ImageSet, from_arrays
from erf.models import create_model, model_card
from erf.models.layers.residual import initialise
from erf.network.layers import forward_to
from erf.storage.checkpoint import Checkpoint
from erf.theory.tracing import trace
from tests.agreement import assert_gradients_agree, assert_statistics_agree, plain_gradient
from tests.conftest import SMALL_RUN, small_network
from tests.models.test_registry import small_size
from tests.test_cli import call
from tests.test_moments import check_profile, grid_of

DEVICE = torch.device(os.environ.get("ERF_DEVICE", "cuda"))
if DEVICE.type == "cuda" and not torch.cuda.is_available():
    pytest.skip("no CUDA device at hand; scripts/gpu.sh runs these where there is one", allow_module_level=True)

needs_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="asks CUDA itself, and ERF_DEVICE is another device")

NETWORKS = ("hct", "gmic", "def-gmic", "unet-srb-f", "resnet50", "swin-tiny")
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Of the largest value. Devices sum in other orders: of some thousand float32 terms about 1e-5 is rounding."""
MOVING = ("def-gmic",)
"""Networks whose taps lie where the image tells: rounding moves these too, in float32 by 1e-4 of the largest value."""


@dataclass(frozen=True)
class Subject:
    """A network in float64 with weights that fade nowhere, images of it, and where its unit lies."""

    model: nn.Module
    layer: str
    arrays: np.ndarray
    unit: tuple[int, ...]
    channel: int = 0

    @classmethod
    def of(cls, name: str, count: int = 3) -> "Subject":
        card = model_card(name)
        size = small_size(card)
        model = create_model(name, size=size).double()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            initialise(model)
        shape = (card.in_channels, *size)
        y, x = center_unit(trace(model, [card.default_layer], shape)[card.default_layer].feature_shape[1:])
        arrays = np.random.default_rng(0).standard_normal((count, *shape), dtype=np.float32)
        subject = cls(model, card.default_layer, arrays, (y, x))
        with torch.no_grad():
            values = subject.values(model, torch.from_numpy(arrays).double())
        return replace(subject, channel=int(values.abs().amin(0).argmax()))  # one that no ReLU shuts off

    @property
    def images(self) -> ImageSet:
        return from_arrays(list(self.arrays), normalisation="none")

    def values(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Of all channels of the unit."""
        found = forward_to(model, [self.layer], (inputs,), lambda _, output: output)[self.layer]
        return found[:, :, self.unit[0], self.unit[1]]

    def terms(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return self.values(model, inputs)[:, self.channel]


def run(subject: Subject, **changes: Any) -> erf.ERF:
    settings: dict[str, Any] = {"device": str(DEVICE), "channel": subject.channel} | changes
    (found,) = compute_layers(subject.model, subject.images, [subject.layer], Settings(**settings))
    return found


def absolute(gradients: np.ndarray) -> np.ndarray:
    return np.abs(gradients).sum(1)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_those_of_the_cpu(name: str, dtype: torch.dtype) -> None:
    subject = Subject.of(name)
    precision = np.float64 if dtype == torch.float64 else np.float32
    expected = plain_gradient(subject.model, torch.from_numpy(subject.arrays), subject.terms, precision).map(absolute)
    subject.model.to(dtype)
    found = run(subject)
    assert found.provenance.self_check["result"] == "agrees", found.provenance.self_check
    looser = 30 if name in MOVING and dtype == torch.float32 else 1
    assert_statistics_agree(found.statistics(), expected, looser * TOLERANCES[dtype])


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_batches_crops_and_layouts(
    batch_size: int, crop: bool, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crops of a unit that sees a part of the image."""
    if not channels_last:
        monkeypatch.setattr("erf.engine.plan.memory_layout", lambda _: None)
    arrays = np.random.default_rng(1).standard_normal((6, 1, 160, 128), dtype=np.float32)
    subject = Subject(small_network(), "5", arrays, center_unit((40, 32)))
    expected = plain_gradient(subject.model, torch.from_numpy(arrays), subject.terms).map(absolute)
    found = run(subject, batch_size=batch_size, crop=crop)
    top, left, bottom, right = found.provenance.crop
    assert ((bottom - top) * (right - left) < 160 * 128 / 4) == crop
    assert_statistics_agree(found.statistics(), expected, 1e-6)


@pytest.mark.filterwarnings("ignore::erf.errors.SelfCheckWarning")
def test_half_precision_is_near_and_says_how_near() -> None:
    subject = Subject.of("gmic", 1)
    full = run(subject).statistics().mean
    subject.model.float()
    half = run(subject, precision="bfloat16")
    off = float(np.abs(half.statistics().mean - full).sum() / full.sum())
    assert 0 < half.provenance.precision_error < 0.5
    assert 0 < off < 0.5


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    subject = Subject(small_network(), "5", rng.standard_normal((6, 1, 40, 32), dtype=np.float32), (5, 4))
    asked = Settings(device=str(DEVICE), batch_size=2, deterministic=True)

    def go(resume: bool, stop: Callable[[], bool]) -> erf.ERF:
        with Checkpoint(tmp_path / "progress", resume=resume, every=0) as checkpoint:
            (found,) = compute_layers(
                subject.model, subject.images, [subject.layer], asked, checkpoint=checkpoint, stop=stop
            )
        return found

    with pytest.raises(InterruptedRunError, match="after 2 of 6"):
        go(False, lambda: True)
    found, (whole,) = go(True, lambda: False), compute_layers(subject.model, subject.images, ["5"], asked)
    np.testing.assert_array_equal(found.statistics().mean, whole.statistics().mean)
    np.testing.assert_array_equal(found.statistics().variance, whole.statistics().variance)


def test_sums_in_double_precision_are_those_of_numpy() -> None:
    gradients = 1e3 + np.random.default_rng(1).standard_normal((7, 2, 300, 257))
    grid = grid_of(gradients)
    running = RunningMoments(("abs",), grid, DEVICE)
    profile = [running.add([torch.from_numpy(one).to(DEVICE)]) for one in gradients][-1]["abs"]
    moments, maps = running.moments("abs"), absolute(gradients)
    np.testing.assert_allclose(moments.mean, maps.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.variance, maps.var(0, ddof=1), rtol=1e-11)
    check_profile(profile, maps[-1], grid)


@needs_cuda
def test_a_batch_that_does_not_fit_is_visited_image_by_image() -> None:
    subject = Subject.of("gmic", 8)
    subject.model.float()

    def peak(batch_size: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(DEVICE)
        run(subject, batch_size=batch_size, self_check=False, crop=False)
        return torch.cuda.max_memory_reserved(DEVICE)

    run(subject, batch_size=8, self_check=False, crop=False)  # libraries take their workspaces
    expected = run(subject, batch_size=1, self_check=False, crop=False)
    one, eight = peak(1), peak(8)
    assert eight > 1.5 * one
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(
        (one + eight) / 2 / torch.cuda.get_device_properties(DEVICE).total_memory, DEVICE
    )
    try:
        found = run(subject, batch_size=8, self_check=False, crop=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
    assert_gradients_agree(found.statistics().mean, expected.statistics().mean.astype(np.float64), rtol=1e-4)


@needs_cuda
def test_the_device_is_named() -> None:
    assert run(Subject.of("gmic", 1)).provenance.device == torch.cuda.get_device_name(DEVICE)


def test_the_command_line(mammograms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = [word for word in SMALL_RUN if word not in ("--device", "cpu")]
    for device, name in (("cpu", "cpu.h5"), (str(DEVICE), "found.h5")):
        asked = ["--images", mammograms, "-n", 4, "--device", device, "--no-picture", "-o", name]
        assert call(*command, *asked).exit_code == 0
    expected, found = (erf.load(tmp_path / name).statistics().mean for name in ("cpu.h5", "found.h5"))
    assert_gradients_agree(found, expected.astype(np.float64), rtol=1e-4)
