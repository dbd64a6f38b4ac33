"""Fixtures that several test modules share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn

import erf
from erf.results import ERF

mpl.use("Agg")

if "PYTEST_XDIST_WORKER" in os.environ and "OMP_NUM_THREADS" not in os.environ:
    # Tests run side by side, so that each has its share of the cores, as have the processes that it starts.
    _THREADS = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ["OMP_NUM_THREADS"] = str(_THREADS)
    torch.set_num_threads(_THREADS)


def small_network(seed: int = 0, channels: int = 1) -> nn.Sequential:
    """Convolution, pooling, norm and ReLU in float64; layers are named by their index."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(channels, 6, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(6, 8, 3, padding=2, dilation=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    )
    return network.double().eval()


@pytest.fixture
def arrays() -> list[np.ndarray]:
    """Six random images (1, 40, 32)."""
    rng = np.random.default_rng(7)
    return [rng.standard_normal((1, 40, 32)) for _ in range(6)]


SMALL_RUN = ["compute", "-m", "gmic", "--layer", "stage1", "--size", "96x80", "--device", "cpu"]
"""A command that visits an image in some milliseconds."""

SIDES = ["left", "right", "left", "right", "left", ""]


@pytest.fixture
def small_erf(arrays: list[np.ndarray]) -> ERF:
    """An ERF of six small images: three left, two right, one unknown."""
    return erf.compute(small_network(), erf.from_arrays(arrays, SIDES), layer="5")


@pytest.fixture(scope="session")
def mammograms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six phantoms as 16-bit PNG (256x192) with a manifest; names and rows tell the side."""
    folder = tmp_path_factory.mktemp("mammograms")
    lines = ["path,laterality,view,patient_id"]
    for index in range(6):
        phantom = erf.draw_phantom(index, seed=3, size=(256, 192))
        name = f"p{index // 4}_{phantom.laterality[0].upper()}_{phantom.view}.png"
        Pillow.fromarray(phantom.pixels).save(folder / name)
        lines.append(f"{name},{phantom.laterality[0].upper()},{phantom.view},{phantom.patient_id}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium; tests are skipped without one."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()
