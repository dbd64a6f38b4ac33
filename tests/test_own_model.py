"""A user's own network on the command line, as docs/own-model.md tells it."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import erf
from tests.agreement import assert_gradients_agree
from tests.test_cli import call, complaint, in_an_empty_folder  # noqa: F401 (a fixture)

PAGE = (Path(__file__).parent.parent / "docs" / "own-model.md").read_text()

TWO = """
import torch
from torch import nn


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 2, 5, 2, 2), nn.Conv2d(1, 2, 5, 2, 2)

    def forward(self, cc, mlo):
        return torch.tanh(self.one(cc)) * self.two(mlo)
"""


def test_ten_lines_are_enough() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    Path("net.py").write_text(code)
    commands = re.search(r"```sh\n(.*?)```", PAGE, re.S)
    assert commands
    results = [call(*line.split()[1:], *_extra(line)) for line in commands[1].strip().splitlines()]
    assert [result.exit_code for result in results] == [0] * 4
    listed, theory, checked, computed = (result.stdout for result in results)
    # 7; pooled 9 and 4 px apart; 17; 25.
    assert re.search(r"│ 5 +│ Conv2d .* 4 │ +27 │", listed)
    assert "27 × 27 px" in theory
    assert "27 × 27" in theory
    assert "WRONG" not in checked
    assert "differ by" in checked
    assert "written: net-build.h5, net-build.png" in computed
    found = erf.load("net-build.h5")
    assert (found.provenance.field_size, found.provenance.model) == ((27, 27), "net.py:build")
    assert found.provenance.weights_text == "its own weights"
    assert len(found.provenance.weights_sha256) == 64


def _extra(line: str) -> list[str]:
    return ["--device", "cpu"] if " compute " in line else []


def test_units_on_the_command_line() -> None:
    small = ["-m", "gmic", "--layer", "stage2", "--size", "128x96", "-n", 2, "--device", "cpu"]
    result = call("compute", *small, "--unit", "grid:2x1")
    assert "written: gmic.2-3.h5, gmic.6-3.h5, gmic.png" in result.stdout
    assert "2 units of stage2" in result.stdout
    assert erf.load("gmic.6-3.h5").provenance.unit == (6, 3)
    result = call("compute", *small, "--unit", "grid:2x2", "--align", "-o", "a.h5", "--no-picture")
    assert "written: a.h5\n" in result.stdout
    origin = erf.load("a.h5").provenance
    assert (origin.aligned, origin.units, origin.unit) == (True, "grid:2x2", (4, 3))
    result = call("compute", *small, "--unit", "max", "-o", "m.h5", "--no-picture")
    assert result.exit_code == 0
    assert all(record.columns["unit"] for record in erf.load("m.h5").images)
    result = call("compute", *small, "--layer", "stage[12]", "--unit", "0,0;1,1", "-o", "s.h5", "--no-picture")
    assert "s.stage1.0-0.h5, s.stage1.1-1.h5, s.stage2.0-0.h5" in result.stdout
    shown = call("show", "a.h5").stdout
    assert "grid:2x2" in shown


def test_methods_and_channels_on_the_command_line() -> None:
    small = ["-m", "gmic", "--layer", "stage2", "--size", "128x96", "-n", 2, "--device", "cpu", "--no-picture"]
    words = ["--method", "integrated-gradients", "--method-arg", "n_steps=4", "--channel", 1, "-o", "i.h5"]
    assert call("compute", *small, *words).exit_code == 0
    origin = erf.load("i.h5").provenance
    assert (origin.method, origin.method_options, origin.channel) == ("integrated-gradients", {"n_steps": 4}, "1")
    assert "method 'magic' not known" in complaint("compute", *small, "--method", "magic", "-o", "x.h5")
    assert "--method-arg 'n'" in complaint("compute", *small, "--method-arg", "n", "-o", "x.h5")
    assert "ask for --definitions square" in complaint("compute", *small, "--channel", "signs", "-o", "x.h5")


def test_two_inputs_from_a_manifest(tmp_path: Path) -> None:
    Path("two.py").write_text(TWO)
    rng = np.random.default_rng(0)
    rows = ["path:cc,path:mlo,view:cc,view:mlo,patient_id,laterality"]
    for case, side in enumerate("LRL"):
        for view in ("cc", "mlo"):
            Pillow.fromarray(rng.integers(0, 255, (40, 32), dtype=np.uint8)).save(f"{case}_{view}.png")
        rows.append(f"{case}_cc.png,{case}_mlo.png,CC,MLO,p{case},{side}")
    Path("m.csv").write_text("\n".join(rows))
    words = ["compute", "-m", "two.py:Two", "--layer", "output", "--size", "40x32", "--device", "cpu", "--no-picture"]
    result = call(*words, "--images", "m.csv", "-n", 3, "-o", "two.h5")
    assert result.exit_code == 0, result.stderr
    found = erf.load("two.h5")
    counts = {subset: found.count(subset) for subset in found.subsets}
    assert counts == {"all": 6, "left": 4, "right": 2, "input=cc": 3, "input=mlo": 3}
    for record in found.images:
        assert record.path.endswith(f"_{record.columns['input']}.png")
        assert record.view == record.columns["input"].upper()
        assert len(record.sha256) == 64
    assert found.provenance.input_shape == (2, 40, 32)
    # Shards that are merged, and a run that was interrupted, are the same.
    for shard in ("1/2", "2/2"):
        assert call(*words, "--images", "m.csv", "-n", 3, "--shard", shard, "-o", f"{shard[0]}.h5").exit_code == 0
    assert call("merge", "1.h5", "2.h5", "-o", "merged.h5").exit_code == 0
    merged = erf.load("merged.h5")
    assert [record.id for record in merged.images] == [record.id for record in found.images]
    assert [*merged.subsets] == [*found.subsets]
    for subset in found.subsets:
        assert_gradients_agree(merged.statistics(subset).mean, found.statistics(subset).mean, rtol=1e-4)
    assert "the network takes 2 inputs; expected a manifest" in complaint(*words, "--images", ".", "-o", "x.h5")
    Path("bad.csv").write_text("path:cc\na.png\n")
    assert "expected a column 'path:mlo'" in complaint(*words, "--images", "bad.csv", "-o", "x.h5")


def test_a_run_with_two_inputs_and_units_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    from erf.errors import InterruptedRunError
    from erf.storage.checkpoint import Checkpoint
    from tests.test_matrix import TwoViews

    model = TwoViews().double()
    arrays = list(np.random.default_rng(0).standard_normal((6, 2, 32, 24)))
    images = erf.from_arrays(arrays, ["left", "right"] * 3)
    settings = erf.Settings(unit="2,2;9,5", arguments=erf.Arguments(("cc", "mlo")), device="cpu", batch_size=1)
    whole = erf.compute_layers(model, images, ["output:logits"], settings)
    for stop_after in range(1, 6):
        folder = tmp_path / str(stop_after)
        answers = itertools.chain([False] * (stop_after - 1), itertools.repeat(True))
        with (
            pytest.raises(InterruptedRunError),
            Checkpoint(folder, resume=True) as checkpoint,
        ):
            erf.compute_layers(
                model, images, ["output:logits"], settings, checkpoint=checkpoint,
                stop=answers.__next__,
            )  # fmt: skip
        with Checkpoint(folder, resume=True) as checkpoint:
            assert checkpoint.exists()
            found = erf.compute_layers(model, images, ["output:logits"], settings, checkpoint=checkpoint)
        for one, other in zip(found, whole, strict=True):
            assert repr(one.images) == repr(other.images)  # spacings are NaN
            for subset in other.subsets:
                np.testing.assert_array_equal(one.statistics(subset).mean, other.statistics(subset).mean)
                np.testing.assert_array_equal(one.statistics(subset).variance, other.statistics(subset).variance)


def test_what_layers_theory_and_check_refuse_and_find() -> None:
    Path("bad.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Cut(nn.Sequential):\n"
        "    def forward(self, x):\n        return super().forward(x).detach() + self[0].bias[0]\n"
        "def cut(): return Cut(nn.Conv2d(1, 2, 3))\n"
        "def pooled(): return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))\n"
    )
    assert "no layer of the network yields a map" in complaint("layers", "-m", "bad.py:pooled", "--size", "4x4")
    result = call("check", "-m", "bad.py:cut", "--size", "16x16", "--layer", "output")
    assert result.exit_code == 2
    assert "WRONG" in result.stdout
    assert "gives their slices" not in result.stdout
    Path("volume.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Conv3d(1, 2, 3, padding=1))\n"
    )
    assert "give the number of their slices as --depth" in complaint("layers", "-m", "volume.py:net", "--size", "16x16")
    shown = call("theory", "-m", "volume.py:net", "--size", "16x16", "--depth", 8)
    assert "3 × 3 × 3 px" in shown.stdout
    Path("folded.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Unfold(3))\n"
    )
    assert "is not a map" in complaint("theory", "-m", "folded.py:net", "--layer", "1", "--size", "16x16")
    assert "infinite: every pixel" in call("theory", "-m", "timm:resnet18", "--layer", "fc", "--size", "64x64").stdout


def test_advice_of_the_theory() -> None:
    shown = call("theory", "-m", "gmic", "--layer", "stage2", "--size", "512x384", "--share", "1").stdout
    reach = re.search(r"an overlap of (\d+) px \((\d+) px on each side\) keeps 100 %.*, (\d+) px all of it", shown)
    assert reach
    assert int(reach[1]) <= int(reach[3])
    assert "border layer" in call("theory", "-m", "gmic", "--size", "512x384").stdout
