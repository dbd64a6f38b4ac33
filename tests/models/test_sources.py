"""Networks from elsewhere: what is built, what is refused, and that nothing else is run."""

import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from erf.models import ModelError, create_model, model_card
from erf.models.sources import input_axes, input_channels, input_names

NETS = """
import torch
from torch import nn
import beside

def build(width=4, fail=False):
    if fail:
        raise RuntimeError("no luck\\nsecond line")
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, beside.WIDTH, 3)

    def forward(self, fixed, moving, scale=1.0):
        return self.conv(fixed - moving)

made = build()
number = 3

class inner:
    factory = build
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "usernets.py").write_text(NETS)
    (tmp_path / "beside.py").write_text("WIDTH = 5\n")
    (tmp_path / "other.py").write_text("raise SystemExit('other.py was run')\n")
    monkeypatch.chdir(tmp_path)
    for name in ("usernets", "beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "usernets.py"


@pytest.mark.parametrize("place", ["usernets", "usernets.py", "./usernets.py"])
def test_factories_of_modules_and_files(nets: Path, place: str) -> None:
    before = list(sys.path)
    model: Any = create_model(f"{place}:build", width=7)
    assert model[0].out_channels == 7
    assert not model.training
    assert isinstance(create_model(f"{place}:Net"), nn.Module)
    assert isinstance(create_model(f"{place}:made"), nn.Sequential)
    assert isinstance(create_model(f"{place}:inner.factory"), nn.Sequential)
    assert sys.path == before


def test_weights_are_drawn_from_the_seed_and_read_from_files(nets: Path) -> None:
    models: list[Any] = [create_model("usernets:build", seed=seed) for seed in (1, 1, 2)]
    one, same, other = models
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    torch.save(one.state_dict(), "w.pt")
    read: Any = create_model("usernets:build", "w.pt", seed=2)
    assert torch.equal(read[0].weight, one[0].weight)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("usernets:buidl", {}, "usernets has no 'buidl'; did you mean build"),
        ("usernets:number", {}, "usernets:number is int; expected a function or class"),
        ("usernets:build", {"fail": True}, r"cannot be built with fail=True \(RuntimeError: no luck\)"),
        ("usernets:build", {"depth": 3}, r"cannot be built with depth=3 \(TypeError"),
        ("nowhere:build", {}, "no module 'nowhere' to import; expected timm:NAME"),
        ("nowhere.py:build", {}, "nowhere.py: no such file"),
        ("other.py:build", {}, None),
        ("gmicc", {}, "did you mean gmic"),
        ("zzz", {}, "expected one that `list_models` lists, or timm:NAME"),
        ("timm:", {}, "names nothing behind the colon"),
        ("timm:resnet51", {}, "timm has no network 'resnet51'; did you mean resnet5"),
        ("torchvision:resnet51", {}, "torchvision has no network 'resnet51'; did you mean resnet5"),
        ("smp:unett", {}, "smp:unett cannot be built"),
        ("missing.pt2", {}, "missing.pt2: no such file"),
        ("timm:resnet18", {"checkpoint_path": "w.pt"}, "by timm's option checkpoint_path; give them as `weights`"),
        (
            "torchvision:fcn_resnet50",
            {"weights_backbone": "DEFAULT"},
            "by its option weights_backbone; give them as `weights`",
        ),
        ("smp:unet", {"encoder_weights": "imagenet"}, "by its option encoder_weights; give them as `weights`"),
    ],
)
def test_what_cannot_be_built_is_one_line(nets: Path, name: str, options: dict[str, Any], message: str | None) -> None:
    if message is None:
        with pytest.raises(SystemExit):  # only the file that is named is run
            create_model(name)
        return
    with pytest.raises(ModelError, match=message) as caught:
        create_model(name, **options)
    assert "\n" not in str(caught.value)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ModelError, match="cannot be read as an archive"):
        create_model(str(tmp_path / "a.pt2"), trust=True)


@pytest.mark.filterwarnings("ignore")
def test_an_archive_runs_code_only_where_it_is_trusted(tmp_path: Path) -> None:
    batch = {0: torch.export.Dim("batch", min=1, max=9)}
    program = torch.export.export(nn.Conv2d(1, 2, 3), (torch.zeros(2, 1, 9, 9),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "good.pt2")
    evil, ran = tmp_path / "evil.pt2", tmp_path / "ran"
    expression = f"\"open('{ran}', 'w')\"".encode()
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(evil, "w") as changed:
        for name in good.namelist():
            text = good.read(name)
            changed.writestr(name, re.sub(rb'(?<="expr_str": )"[^"]*"', expression, text))
    with pytest.raises(ModelError, match=r"evil.pt2 is code: .*ask for `trust=True`") as caught:
        create_model(str(evil))
    assert "\n" not in str(caught.value)
    assert not ran.exists()
    with pytest.raises(ModelError, match="cannot be read as an archive"):
        create_model(str(evil), trust=True)
    assert ran.exists()  # else the expression would not have been code at all


@pytest.mark.filterwarnings("ignore")
def test_an_exported_network_has_its_modules(nets: Path) -> None:
    model = create_model("usernets:build")
    torch.export.save(torch.export.export(model, (torch.zeros(1, 3, 16, 12),)), "net.pt2")
    loaded: Any = create_model("net.pt2", trust=True)
    image = torch.randn(1, 3, 16, 12)
    torch.testing.assert_close(loaded(image), model(image))
    assert {"0", "1"} <= set(dict(loaded.named_modules()))
    assert (input_channels(loaded), loaded.input_size, input_axes(loaded), input_names(loaded)) == (3, (16, 12), 2, ())


def test_what_a_network_takes(nets: Path) -> None:
    model = create_model("usernets:Net")
    assert (input_names(model), input_axes(model), input_channels(model)) == (("fixed", "moving"), 3, 1)
    model = create_model("timm:resnet18", in_chans=1)
    assert (input_names(model), input_axes(model), input_channels(model)) == ((), 2, 1)


def test_timm_networks_are_built_for_the_size() -> None:
    model = create_model("timm:vit_tiny_patch16_224", size=(96, 64))
    assert model(torch.zeros(1, 3, 96, 64)).shape == (1, 1000)
    # A network that does not know its size is built all the same.
    assert create_model("timm:resnet18", size=(96, 64))(torch.zeros(1, 3, 96, 64)).shape == (1, 1000)
    assert model_card("timm:convmixer_768_32").input_size == (224, 224)


def test_no_weights_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: Any) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision._internally_replaced_utils.load_state_dict_from_url", refuse)
    create_model("torchvision:lraspp_mobilenet_v3_large")
    create_model("smp:unet:resnet18")
