"""Protocols follow the published procedures, transcribed literally in scripts/check_protocols.py and here."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch import nn
from typer.testing import CliRunner

import erf
from erf.cli import app
from erf.errors import InputError
from erf.gradients.blur_path import gaussian_kernel
from erf.measures import pick_measures
from scripts.check_protocols import compare, photographs

SETTINGS: dict[str, Any] = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photographs")
    photographs(path, 3)
    return path


@pytest.mark.filterwarnings("ignore::erf.errors.AssumptionWarning")
@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_convnext"])
@pytest.mark.parametrize("protocol", ["replknet", "vmamba"])
def test_maps_and_ratios_equal_a_literal_transcription(folder: Path, protocol: str, name: str) -> None:
    """In float64: a ReLU whose input is 0 up to rounding would pass a gradient here and not there."""
    difference, alike = compare(protocol, name, folder, size=96, double=True)
    assert difference < 1e-6  # maps are stored in float32
    assert alike


class Restoration(nn.Module):
    """Small network for the restoration of images, (N, 3, H, W) to the same size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 5, padding=2), nn.Conv2d(8, 3, 5, padding=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.last(self.first(image).tanh())


def local_attribution_map(
    model: nn.Module, image: np.ndarray, window: int, sigma: float, steps: int, side: int
) -> np.ndarray:
    """Literal transcription of Gu and Dong's procedure for an image (3, H, W), with SciPy's filter."""
    widths = np.linspace(sigma, 0, steps + 1)
    places = np.arange(side) - side // 2
    kernels = []
    for width in widths:
        kernel = np.exp(-(places[:, None] ** 2 + places**2) / (2 * (width + 1e-5) ** 2))
        kernels.append(kernel / kernel.sum())
    total = np.zeros_like(image)
    for step in range(steps):
        blurred = np.stack([correlate(plane, kernels[step + 1], mode="mirror") for plane in image])
        kernel = (kernels[step + 1] - kernels[step]) * steps
        change = np.stack([correlate(plane, kernel, mode="mirror") for plane in image])
        tensor = torch.from_numpy(blurred)[None].requires_grad_()
        output = model(tensor)
        below = (output[:, :, :-1, :] - output[:, :, 1:, :]) ** 2
        right = (output[:, :, :, :-1] - output[:, :, :, 1:]) ** 2
        edges = (below[:, :, :, :-1] + right[:, :, :-1, :]).sqrt()
        top, left = image.shape[1] // 2 - window // 2, image.shape[2] // 2 - window // 2
        edges[:, :, top : top + window, left : left + window].sum().backward()
        assert tensor.grad is not None
        total += tensor.grad[0].numpy() * change
    return abs((total / steps).sum(0))


def test_lam_equals_a_literal_transcription() -> None:
    torch.manual_seed(0)
    model = Restoration().double()
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 36)).astype(np.uint8)
    images = erf.from_arrays([image], normalisation="unit")
    found = erf.load_protocol("lam").run(model, images, unit="window:8x8", **SETTINGS)
    expected = local_attribution_map(model, image / np.float32(255).astype(float), 8, 1.2, 50, 9)
    map_ = found["all"].mean
    np.testing.assert_allclose(map_, expected, rtol=0, atol=1e-5 * expected.max())
    assert found.provenance.protocol == "lam"
    assert found.provenance.deviations == ("unit window:8x8 instead of window:16x16",)


def test_the_diffusion_index_of_a_uniform_map_is_100() -> None:
    class Sum(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.sum((2, 3), keepdim=True) + 0 * image

    rng = np.random.default_rng(0)
    result = erf.compute(Sum(), [rng.random((1, 20, 24))] * 2, layer="output", **SETTINGS)
    assert result.measure("diffusion_index").value == pytest.approx(100)
    single = erf.compute(nn.Conv2d(1, 1, 1), [rng.random((1, 20, 24))] * 2, layer="output", **SETTINGS)
    assert single.measure("diffusion_index").value == pytest.approx(100 / (20 * 24))


def test_kernels_are_gaussians() -> None:
    kernel = gaussian_kernel(9, 1.2)
    assert float(kernel.sum()) == pytest.approx(1)
    assert float(kernel[4, 6] / kernel[4, 4]) == pytest.approx(np.exp(-(2**2) / (2 * 1.2**2)), rel=1e-4)
    assert gaussian_kernel(9, 0)[4, 4] == 1


@pytest.mark.parametrize("name", erf.list_protocols())
def test_every_protocol_names_options_that_exist(name: str) -> None:
    protocol = erf.load_protocol(name)
    assert protocol.summary
    assert protocol.paper
    assert protocol.defects
    for command in ("compute", "plot", "compare"):
        page = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
        for option in getattr(protocol, command):
            long = f"--{option.replace('_', '-')}" if len(option) > 1 else f"-{option}"
            assert re.search(rf"{long}\b", page), f"erf {command} has no {long}"
    pick_measures(tuple(protocol.compare["measures"].split(",")))


def test_options_beside_a_protocol_win_and_are_recorded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["compute", "-m", "timm:test_resnet", "--protocol", "replknet", "--images", str(folder), "-n", "2"]
    result = CliRunner().invoke(app, [*command, "--size", "64x64", "--fit", "crop", "--device", "cpu", "-o", "a.h5"])
    assert result.exit_code == 0, result.output
    origin = erf.load("a.h5").provenance
    assert origin.protocol == "replknet"
    assert set(origin.deviations) == {
        *("size 64x64 instead of 1024x1024", "fit crop instead of squash", "n 2 instead of 50"),
    }
    assert (origin.activation, origin.definitions, origin.fit) == ("relu", ("relu",), "crop")
    assert origin.normalisation == "imagenet"
    for words in (["compare", "a.h5"], ["plot", "a.h5", "-o", "a.pdf"]):
        result = CliRunner().invoke(app, [*words, "--protocol", "replknet"])
        assert result.exit_code == 0, result.output
    assert "replknet30" in CliRunner().invoke(app, ["compare", "a.h5", "--protocol", "replknet"]).output


def test_a_protocol_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('summary = "mine"\npaper = "none"\n[compute]\nfit = "crop"\n')
    assert erf.load_protocol(str(path)).compute == {"fit": "crop"}
    result = CliRunner().invoke(app, ["protocols", str(path)])
    assert result.exit_code == 0
    assert "erf compute --fit" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("summary = ", "expected a protocol"),
        ('summary = "a"\n', "no paper"),
        ('summary = "a"\npaper = 3\n', "paper is no text"),
        ('summary = "a"\npaper = "b"\ncompute = 3\n', "compute is no table"),
        ('summary = "a"\npaper = "b"\nother = "c"\n', "'other' not known"),
        ("x = '" + "a" * 70000 + "'", "larger than"),
    ],
)
def test_a_file_that_is_no_protocol_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        erf.load_protocol(str(path))


def test_an_unknown_protocol_gets_one_line() -> None:
    with pytest.raises(InputError, match="protocol 'replk' not known; expected replknet"):
        erf.load_protocol("replk")
    result = CliRunner().invoke(app, ["compute", "-m", "gmic", "--protocol", "replk"])
    assert result.exit_code == 2
    assert "expected replknet" in result.output


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text('summary = "mine"\npaper = "none"\n' + text)
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        *("[compute]\ntrust = true", "[compute]\noverwrite = true", '[compute]\noutput = "a.h5"', "[compute]\nn = [1]"),
        *('[plot]\noutput = "a.png"', "[compute]\nsize = 64", "[compute]\ndefinitions = 3", 'defects = "one"'),
        *('name = "replknet"', "compute = 1", "notes = 3", "[other]\na = 1"),
    ],
)
def test_a_protocol_sets_nothing_but_how_maps_are_made(tmp_path: Path, text: str) -> None:
    """A file that somebody sends must not choose code, trust it, or replace files."""
    path = written(tmp_path, text)
    for words in (["protocols", path], ["compute", "-m", "net.py:build", "--protocol", path]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, result.output
        assert len(result.output.splitlines()) == 1
        assert "internal" not in result.output
    with pytest.raises(InputError):
        erf.load_protocol(path)


def test_a_protocol_that_changes_is_read_again_and_a_pipe_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, '[compute]\nfit = "crop"')
    assert erf.load_protocol(path).compute == {"fit": "crop"}
    assert erf.load_protocol(written(tmp_path, '[compute]\nfit = "pad"')).compute == {"fit": "pad"}
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(InputError, match="no file"):
        erf.load_protocol(str(tmp_path / "pipe.toml"))


@pytest.mark.filterwarnings("ignore::erf.errors.AssumptionWarning")
def test_the_documented_protocol_runs_in_python_too(folder: Path, tmp_path: Path) -> None:
    page = Path("docs/protocols.md").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0].replace("512", "64"))
    found = erf.load_protocol(str(path)).run("timm:test_resnet", folder, layer="output", n=2, **SETTINGS)
    assert (found.provenance.channel, found.provenance.activation) == ("3", "softmax")
    assert (found.provenance.protocol, found.provenance.deviations) == ("mine.toml", ())


def test_all_that_changes_a_map_is_a_deviation() -> None:
    model = nn.Conv2d(3, 4, 3, padding=1)
    nn.init.ones_(model.weight)  # so that no unit is negative
    arrays = list(np.random.default_rng(0).integers(0, 255, (2, 3, 32, 32)).astype(np.uint8))
    images = erf.from_arrays(arrays, normalisation="unit")
    found = erf.load_protocol("replknet").run(model, images, layer="output", **SETTINGS)
    assert set(found.provenance.deviations) == {
        "size 32x32 instead of 1024x1024", "n 2 instead of 50", "normalise unit instead of imagenet",
        "fit pad instead of squash", "interpolation bilinear instead of bicubic",
    }  # fmt: skip
    lam = erf.load_protocol("lam").deviations({"method_arg": {"steps": 2}, "precision": "bfloat16", "mirror": True})
    assert lam == (
        "method_arg steps=2 instead of none",
        "precision bfloat16 instead of float32",
        "mirror True instead of False",
    )
    assert not erf.load_protocol("replknet").deviations({"size": 1024, "mirror": False, "method_arg": None})


def test_a_finished_run_that_followed_no_protocol_does_not_count_as_one_that_did(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, '[compute]\nn = 2\nsize = "64x64"')
    command = ["compute", "-m", "timm:test_resnet", "--images", str(folder), "--device", "cpu", "-o", "a.h5"]
    assert CliRunner().invoke(app, [*command, "-n", "2", "--size", "64x64"]).exit_code == 0
    result = CliRunner().invoke(app, [*command, "--protocol", path, "--resume"])
    assert result.exit_code == 2
    assert "protocol" in result.output
    result = CliRunner().invoke(app, [*command, "--protocol", path, "--overwrite"])
    assert result.exit_code == 0, result.output
    assert erf.load("a.h5").provenance.protocol == "mine.toml"  # no folder, which may name a person
