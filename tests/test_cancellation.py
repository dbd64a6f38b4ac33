"""Layers whose channels sum to a constant: how they are found, passed over as a default, and refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import erf
from erf.errors import AssumptionWarning, ImageWarning, LayerError
from erf.gradients.autograd import Target
from erf.gradients.cancellation import channels_cancel
from tests.modules import Applied
from tests.test_cli import call, complaint, in_an_empty_folder  # noqa: F401 (a fixture)

CHANNELS = 8

NET = """
import torch
from torch import nn

class Norm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Sequential(Norm(8))

    def forward(self, x):
        return self.last(self.body(torch.tanh(self.stem(x))))
"""


class Norm(nn.LayerNorm):
    """A layer norm of maps (N, C, H, W); `spread` is that of its weights around 1, as after a training."""

    def __init__(self, spread: float = 0.0) -> None:
        super().__init__(CHANNELS)
        nn.init.normal_(self.weight, 1, spread)
        nn.init.normal_(self.bias)  # a sum that is constant, but not zero

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class NormedTwice(nn.Module):
    """Norms on the main path and at the end of the branch that is added, as in Swin v2."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.branch = Norm(), nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), Norm())

    def forward(self, x: Tensor) -> Tensor:
        main = self.norm(x)
        return main + self.branch(main)


ENDS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "untrained layer norm": (Norm, True),
    "softmax": (lambda: nn.Softmax(1), True),
    "softmax of two": (lambda: nn.Sequential(nn.Conv2d(CHANNELS, 2, 1), nn.Softmax(1)), True),
    "centred": (lambda: Applied(lambda x: x - x.mean(1, keepdim=True)), True),
    "norms on the main path": (NormedTwice, True),
    "trained layer norm": (lambda: Norm(0.1), False),
    "hardly trained layer norm": (lambda: Norm(1e-3), False),
    "batch norm": (lambda: nn.BatchNorm2d(CHANNELS), False),
    "group norm": (lambda: nn.GroupNorm(1, CHANNELS), False),
    "instance norm": (lambda: nn.InstanceNorm2d(CHANNELS), False),
    "unit length": (lambda: Applied(lambda x: nn.functional.normalize(x, dim=1)), False),
    "root mean square": (lambda: Applied(lambda x: x / x.square().mean(1, keepdim=True).sqrt()), False),
    "nothing": (nn.Identity, False),
    "one channel": (lambda: nn.Conv2d(CHANNELS, 1, 1), False),
    "dead": (lambda: Applied(lambda x: (x - 1e3).relu()), False),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("end", ENDS)
def test_which_ends_cancel(end: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    build, cancels = ENDS[end]
    network = nn.Sequential(nn.Conv2d(1, CHANNELS, 5), nn.Tanh(), nn.Conv2d(CHANNELS, CHANNELS, 3), build())
    network = network.to(dtype).eval()
    inputs = torch.randn(1, 1, 24, 20, dtype=dtype)
    assert channels_cancel(network, inputs, [Target("output", ((5, 5),))]) == [cancels]


@pytest.mark.parametrize("end", [name for name, (_, cancels) in ENDS.items() if cancels])
def test_constant_sums_are_found_in_the_rounding_of_half_precision(end: str) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        head = nn.Sequential(nn.Conv2d(1, CHANNELS, 5), nn.Tanh(), nn.Conv2d(CHANNELS, CHANNELS, 3))
        network = nn.Sequential(head, ENDS[end][0]()).to(torch.bfloat16).eval()
        inputs = torch.randn(1, 1, 24, 20, dtype=torch.bfloat16)
        assert channels_cancel(network, inputs, [Target("output", ((5, 5),))]) == [True]


def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).standard_normal((2, 1, 24, 20)).astype(np.float32))


@pytest.fixture
def network() -> nn.Module:
    names: dict[str, type[nn.Module]] = {}
    exec(NET, names)
    torch.manual_seed(0)
    return names["Net"]().eval()


def test_a_run_refuses_rounding_and_writes_nothing(network: nn.Module) -> None:
    words = r"layer 'last': the channels of a unit sum to a constant.*one `channel`, or `channel=signs`"
    with pytest.raises(LayerError, match=words) as caught:
        erf.compute(network, images(), layer="last", device="cpu", output="x.h5", progress=False)
    assert "\n" not in str(caught.value)
    assert list(Path().glob("*x.h5*")) == []
    settings = erf.Settings(device="cpu")
    with pytest.raises(LayerError, match=r"layer 'last': "):
        erf.compute_layers(network, erf.from_arrays(images()), ["body", "last"], settings)


def test_what_may_be_asked_for_instead(network: nn.Module) -> None:
    with pytest.warns(ImageWarning, match="sum to a constant"):
        allowed = erf.compute(network, images(), layer="last", device="cpu", allow_rounding=True, progress=False)
    one = erf.compute(network, images(), layer="last", device="cpu", channel=0, progress=False)
    signs = erf.compute(
        network, images(), layer="last", device="cpu", channel="signs", definitions="square", progress=False
    )
    assert "sum to a constant" in allowed.images[0].message
    assert not one.images[0].message
    assert not signs.images[0].message
    assert allowed["all"].mean.max() < 1e-4 * one["all"].mean.max()
    assert signs["all", "square"].mean.max() > 0.01 * one["all"].mean.max() ** 2


def test_the_default_is_the_last_layer_before_that_does_not_cancel(network: nn.Module) -> None:
    words = r"'body' is taken, the last map of several units before 'output', where the channels of a unit sum to"
    with pytest.warns(AssumptionWarning, match=words):
        found = erf.compute(network, images(), device="cpu", progress=False)
    assert found.provenance.layer == "body"
    expected = erf.compute(network, images(), layer="body", device="cpu", progress=False)
    np.testing.assert_array_equal(found["all"].mean, expected["all"].mean)
    table = erf.layers(network, size=(24, 20))
    assert table.default == "body"
    assert "before 'output', where" in str(table)
    nn.init.normal_(network.get_parameter("last.0.weight"))
    table = erf.layers(network, size=(24, 20))
    assert (table.default, table.note) == ("output", "")


@pytest.mark.filterwarnings("ignore::erf.errors.AssumptionWarning")
def test_a_network_that_cancels_everywhere_keeps_its_default_and_is_refused() -> None:
    network = nn.Sequential(nn.Softmax(1))
    pixels = [np.random.default_rng(0).standard_normal((3, 24, 20)).astype(np.float32)]
    assert erf.layers(network, size=(24, 20)).default == "output"
    with pytest.raises(LayerError, match="sum to a constant"):
        erf.compute(network, pixels, device="cpu", progress=False)


def test_on_the_command_line() -> None:
    Path("net.py").write_text(NET)
    network = ["-m", "net.py:Net", "--size", "24x20"]
    run = ["compute", *network, "-n", 2, "--device", "cpu", "--no-picture"]
    refused = complaint(*run, "--layer", "last", "-o", "x.h5")
    assert "channels of a unit sum to a constant" in refused
    assert "or --channel signs with --definitions square; --allow-rounding computes it nevertheless" in refused
    assert not list(Path().glob("*.h5"))
    for options in (["--allow-rounding"], ["--channel", 3], ["--channel", "signs", "--definitions", "square"]):
        assert call(*run, "--layer", "last", "-o", "x.h5", "--overwrite", *options).exit_code == 0
    result = call(*run, "-o", "d.h5")
    assert "layer 'body' is taken, the last map of several units before 'output'" in " ".join(result.stderr.split())
    assert erf.load("d.h5").provenance.layer == "body"
    listed = " ".join(call("layers", *network).stdout.split())
    assert "body*" in listed
    assert "before 'output', where the channels of a unit sum to a constant" in listed
    checked = call("check", *network, "--layer", "last")
    assert checked.exit_code == 2
    assert "sum over channels" in checked.stdout
    assert call("check", *network).exit_code == 0


def test_the_activation_of_the_unit_counts(network: nn.Module) -> None:
    found = erf.compute(network, images(), layer="last", activation="relu", device="cpu", progress=False)
    assert not found.images[0].message
