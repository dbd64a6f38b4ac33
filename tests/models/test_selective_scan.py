"""The selective scan in plain PyTorch, and a network that imports it from mamba_ssm."""

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import erf
from erf.errors import AssumptionWarning
from erf.models.layers.selective_scan import selective_scan
from tests.test_cli import call, in_an_empty_folder  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mamba_ssm") is not None, reason="mamba_ssm is installed")

NET = """
import torch
from torch import nn
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

class CrossScan(nn.Module):
    def __init__(self, channels=6, states=3):
        super().__init__()
        self.steps = nn.Linear(channels, 4 * channels)
        self.reads = nn.Linear(channels, 4 * 2 * states)
        self.states, self.channels = states, channels
        self.decay = nn.Parameter(-torch.rand(4 * channels, states))
        self.skip = nn.Parameter(torch.ones(4 * channels))

    def forward(self, x):
        n, c, h, w = x.shape
        rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
        u = torch.cat([rows, columns, rows.flip(2), columns.flip(2)], 1)
        delta, reads = self.steps(rows.mT).mT, self.reads(rows.mT).mT.unflatten(1, (4, 2, self.states))
        y = selective_scan_fn(
            u, delta, self.decay, reads[:, :, 0].contiguous(), reads[:, :, 1].contiguous(), self.skip, delta_softplus=True
        )
        one, two, three, four = y.chunk(4, 1)
        rows, columns = one + three.flip(2), two + four.flip(2)
        return rows.unflatten(2, (h, w)) + columns.unflatten(2, (w, h)).transpose(2, 3)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.scan, self.last = nn.Conv2d(1, 6, 4, 4), CrossScan(), nn.Conv2d(6, 6, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.last(x + self.scan(x))
"""


def drawn(groups: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Arguments of a scan of 2 sequences of 4 channels with 3 states and 5 steps."""
    torch.manual_seed(0)
    shape = (2, groups, 3, 5) if groups else (2, 3, 5)
    values = {
        "u": torch.randn(2, 4, 5), "delta": torch.randn(2, 4, 5), "A": -torch.rand(4, 3), "B": torch.randn(shape),
        "C": torch.randn(shape), "D": torch.randn(4), "z": torch.randn(2, 4, 5), "delta_bias": torch.randn(4),
    }  # fmt: skip
    return {name: value.to(dtype) for name, value in values.items()}


def slow(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, delta_bias: Any) -> np.ndarray:  # noqa: N803
    """The formula, number by number."""
    y = np.zeros(u.shape)
    for image, channel in np.ndindex(*u.shape[:2]):
        group = (slice(None),) if B.ndim == 3 else (channel // (u.shape[1] // B.shape[1]), slice(None))
        state = np.zeros(A.shape[1])
        for step in range(u.shape[2]):
            at = np.log1p(np.exp(delta[image, channel, step] + delta_bias[channel]))
            for number in range(A.shape[1]):
                state[number] *= np.exp(at * A[channel, number])
                state[number] += at * B[(image, *group, step)][number] * u[image, channel, step]
                y[image, channel, step] += state[number] * C[(image, *group, step)][number]
            y[image, channel, step] += D[channel] * u[image, channel, step]
            y[image, channel, step] *= z[image, channel, step] / (1 + np.exp(-z[image, channel, step]))
    return y


@pytest.mark.parametrize("groups", [0, 1, 2])
def test_a_scan_is_the_formula(groups: int) -> None:
    values = drawn(groups)
    expected = slow(**{name: value.numpy() for name, value in values.items()})
    found = selective_scan(**values, delta_softplus=True)
    assert isinstance(found, Tensor)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-13)


def test_constant_parameters_give_a_geometric_sum() -> None:
    length, step, decay = 12, 0.3, -0.7
    one = torch.ones(1, 1, length, dtype=torch.float64)
    number = torch.full((1, 1), decay, dtype=torch.float64)
    found, state = selective_scan(one, step * one, number, one, one, return_last_state=True)
    ratio = np.exp(step * decay)
    expected = step * (1 - ratio ** np.arange(1, length + 1)) / (1 - ratio)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=1e-13)
    np.testing.assert_allclose(float(state), expected[-1], rtol=1e-13)


@pytest.mark.parametrize("groups", [0, 2])
def test_gradients_agree_with_finite_differences(groups: int) -> None:
    values = {name: value.requires_grad_() for name, value in drawn(groups).items()}

    def scan(*given: Any) -> Any:
        return selective_scan(**dict(zip(values, given, strict=True)), delta_softplus=True, return_last_state=True)

    assert torch.autograd.gradcheck(scan, tuple(values.values()))


def test_matrices_that_do_not_change_along_the_sequence() -> None:
    values = drawn()
    fixed = {"B": torch.randn(4, 3, dtype=torch.float64), "C": torch.randn(4, 3, dtype=torch.float64)}
    along = {name: value[None, :, :, None].expand(2, 4, 3, 5) for name, value in fixed.items()}
    one, other = selective_scan(**values | fixed), selective_scan(**values | along)
    assert isinstance(one, Tensor)
    assert isinstance(other, Tensor)
    torch.testing.assert_close(one, other)


def test_the_stand_in_is_there_only_within() -> None:
    before = set(sys.modules)
    with erf.plain_selective_scan() as stand_in:
        module: Any = import_module("mamba_ssm.ops.selective_scan_interface")
        assert module.selective_scan_fn is selective_scan
        with pytest.raises(AttributeError, match=r"stand-in .* has no 'mamba_inner_fn'"):
            _ = module.mamba_inner_fn
        is_used: bool = stand_in.is_used
        assert is_used
    assert not {name for name in set(sys.modules) - before if name.startswith("mamba_ssm")}
    with pytest.raises(ModuleNotFoundError):
        import_module("mamba_ssm")


def test_a_package_that_is_installed_stays() -> None:
    importlib.invalidate_caches()
    Path("mamba_ssm").mkdir()
    Path("mamba_ssm/__init__.py").write_text("own = True")
    sys.path.insert(0, str(Path.cwd()))
    try:
        with erf.plain_selective_scan():
            assert import_module("mamba_ssm").own
    finally:
        sys.path.remove(str(Path.cwd()))
        sys.modules.pop("mamba_ssm", None)


def test_a_network_of_cross_scans() -> None:
    Path("scans.py").write_text(NET)
    with pytest.warns(AssumptionWarning, match="asks for mamba_ssm, which is not installed"):
        network = erf.build_network("scans.py:Net", size=(32, 24))
    arrays = list(np.random.default_rng(0).standard_normal((3, 1, 32, 24)).astype(np.float32))
    found = erf.compute(network, arrays, layer="last", normalisation="none", device="cpu", progress=False)
    assert found.provenance.feature_shape == (6, 8, 6)
    maps = []
    for pixels in arrays:
        source = torch.from_numpy(pixels)[None].requires_grad_()
        network.model(source)[0, :, 4, 3].sum().backward()
        assert source.grad is not None
        maps.append(source.grad[0, 0].abs().numpy())
    mean = np.mean(maps, 0)
    assert np.abs(found["all"].mean - mean).max() < 1e-5 * mean.max()
    # Four scans reach every pixel; along the row and column of the unit they are near.
    blocks = functional.avg_pool2d(torch.from_numpy(mean)[None], 4)[0]
    assert (blocks > 0).all()
    assert blocks[4].sum() + blocks[:, 3].sum() > 2 * blocks.sum() * (8 + 6) / (8 * 6)
    assert erf.check(network, "last").passed


def test_on_the_command_line() -> None:
    Path("net.py").write_text(NET)
    result = call("compute", "-m", "net.py:Net", "--size", "32x24", "-n", 2, "--device", "cpu", "--no-picture")
    assert result.exit_code == 0, result.stderr
    assert "computed in plain PyTorch" in " ".join(result.stderr.split())
