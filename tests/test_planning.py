"""Planning of a run: what it fixes before the first image, and the memory and disk space that it expects."""

import math
from collections import namedtuple
from dataclasses import FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import erf
from erf.accumulation.running import RunningMoments
from erf.definitions import DEFINITIONS
from erf.engine import compute_layers
from erf.engine.plan import Plan, plan_run
from erf.engine.settings import Settings
from erf.errors import SelfCheckWarning
from erf.gradients.way import PLAIN
from erf.images import ImageSet
from tests.conftest import small_network
from tests.test_self_check import HOSTILE

SIZE = (512, 384)
FRAME = SIZE[0] * SIZE[1]
SUMS = 2 * 8 * len(DEFINITIONS)
"""Bytes of the sums of a pixel."""


def large_images(count: int = 1) -> ImageSet:
    rng = np.random.default_rng(0)
    return erf.from_arrays([rng.standard_normal((1, *SIZE)).astype(np.float32) for _ in range(count)])


def planned(layers: tuple[str, ...] = ("5",), **changes: Any) -> Plan:
    settings = Settings(device="cpu", definitions=tuple(DEFINITIONS), **changes)
    return plan_run(small_network(), large_images(), layers, settings, erf.Origin())


def pixels_of_crops(plan: Plan) -> list[int]:
    gradients = plan.gradients(plan.fastest())
    return [math.prod(gradients.box(unit).shape) for unit in plan.units]


def test_a_plan_does_not_change() -> None:
    plan = planned()
    for item in fields(plan):
        with pytest.raises(FrozenInstanceError):
            setattr(plan, item.name, None)


@pytest.mark.parametrize("layers", [("5",), ("0", "5")])
def test_sums_are_estimated_for_the_crop_that_is_allocated(layers: tuple[str, ...]) -> None:
    plan = planned(layers)
    gradients, allocated = plan.gradients(plan.fastest()), 0
    for unit in plan.units:
        box = gradients.box(unit)
        grid = plan.description.of(unit, box, {}).grid
        state = RunningMoments(tuple(DEFINITIONS), grid, torch.device("cpu"), box=box).state()
        allocated += state["mean"].nbytes + state["deviations"].nbytes
    rings = 2 * sum(pixels_of_crops(plan))
    assert plan.memory.sums(plan.passes.fast) == allocated + rings
    assert plan.memory.sums(plan.passes.whole) == len(layers) * (SUMS + 2) * FRAME > 10 * allocated


def test_gradients_are_estimated_for_all_units_and_draws() -> None:
    plan = planned(unit="grid:2x2", aligned=True)
    assert plan.memory.gradients(plan.passes.fast) == 4 * 4 * FRAME
    assert plan.memory.sums(plan.passes.fast) == (SUMS + 2) * FRAME  # of one aligned map
    plan = planned(unit="0,0;40,40")
    assert plan.memory.gradients(plan.passes.fast) == 4 * sum(pixels_of_crops(plan))


def test_a_run_that_fits_in_its_crop_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erf.engine.memory.available_memory", lambda device: SUMS * FRAME // 2)
    images = large_images()
    options: dict[str, Any] = {"layer": "5", "device": "cpu", "definitions": tuple(DEFINITIONS)}
    assert erf.compute(small_network(), images, **options).count() == 1
    with pytest.raises(erf.InsufficientMemoryError, match="a run at 512x384 needs at least"):
        erf.compute(small_network(), images, crop=False, **options)


def test_a_run_that_falls_back_to_whole_images_has_to_fit_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    network = HOSTILE["size in the backward pass"][0]()
    settings = Settings(device="cpu", definitions=tuple(DEFINITIONS))
    plan = plan_run(network, large_images(), ["3"], settings, erf.Origin())
    monkeypatch.setattr("erf.engine.memory.available_memory", lambda device: SUMS * FRAME // 2)
    plan.check_memory(plan.fastest())
    with pytest.raises(erf.InsufficientMemoryError):
        plan.check_memory(PLAIN)
    with pytest.warns(SelfCheckWarning), pytest.raises(erf.InsufficientMemoryError, match="needs at least"):
        compute_layers(network, large_images(), ["3"], settings)


def test_a_disk_that_holds_the_sums_of_the_crop_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = SUMS * sum(pixels_of_crops(planned()))
    images = large_images()
    options: dict[str, Any] = {"layer": "5", "device": "cpu", "definitions": tuple(DEFINITIONS)}
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("erf.engine.memory.disk_usage", lambda folder: usage(needed))
    assert erf.compute(small_network(), images, **options).count() == 1
    monkeypatch.setattr("erf.engine.memory.disk_usage", lambda folder: usage(needed - 1))
    with pytest.raises(erf.OutputError, match="1 groups of images set"):
        erf.compute(small_network(), images, **options)


def test_an_error_names_the_layer_of_several_from_which_no_gradient_arrives() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).detach())

    images = erf.from_arrays([np.random.default_rng(0).standard_normal((1, 24, 20)).astype(np.float32)])
    with pytest.raises(erf.LayerError, match=r"layer 'second' passes no gradient .*: what 'second' .* is cut"):
        compute_layers(Cut(), images, ["first", "second"], Settings(device="cpu"))
