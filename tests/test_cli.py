"""The command line as a user meets it: what is printed, what is written, which exit code."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from typer.testing import CliRunner, Result

import erf
from erf.cli import app
from erf.models import create_model
from erf.profiling import STAGES

SMALL = ["--size", "256x192", "--device", "cpu"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def call(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def complaint(*words: object) -> str:
    """The one line that a refused command prints."""
    result = call(*words)
    assert result.exit_code == 2
    lines = [line for line in result.stderr.strip().splitlines() if ": images " not in line]  # progress
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("erf: ")
    return lines[0]


def test_weights_and_images_have_seeds_of_their_own() -> None:
    for name, seed, image_seed in (("a", 0, 0), ("b", 5, 0), ("c", 0, 5)):
        found = call(
            "compute", "-m", "gmic", "--weights", "none", "-n", 2, "--seed", seed, "--image-seed", image_seed, *SMALL,
            "--no-picture", "-o", f"{name}.h5",
        )  # fmt: skip
        assert found.exit_code == 0
    a, b, c = (erf.load(f"{name}.h5") for name in "abc")
    assert [(one.provenance.seed, one.provenance.image_seed) for one in (a, b, c)] == [(0, 0), (5, 0), (0, 5)]
    ids = [[image.id for image in one.images] for one in (a, b, c)]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])
    assert not np.allclose(a.statistics().mean, b.statistics().mean, rtol=0.1)


def test_the_main_job_writes_a_file_and_a_picture() -> None:
    result = call("compute", "--model", "hct", "-n", 4, *SMALL)
    assert result.exit_code == 0
    assert "written: hct.h5, hct.png" in result.stdout
    loaded = erf.load("hct.h5")
    assert {subset: loaded.count(subset) for subset in loaded.subsets} == {"all": 4, "left": 2, "right": 2}
    y, x = loaded.statistics("left").centroid
    assert f"{x:.1f}" in result.stdout
    assert f"{y:.1f}" in result.stdout
    assert sorted(os.listdir()) == ["hct.h5", "hct.png"]
    with Pillow.open("hct.png") as picture:
        assert picture.size[0] > 1000
    origin = loaded.provenance
    assert (origin.model, origin.layer, origin.source, origin.seed) == ("hct", "final", "phantom", 0)
    assert origin.versions["torch"]


def test_options_reach_the_run(mammograms: Path) -> None:
    torch.save(create_model("gmic", seed=9).state_dict(), "w.pt")
    result = call(
        "compute", "-m", "gmic", "--images", mammograms / "manifest.csv", "-n", 6, "--layer", "stage2", "--unit", "3,4",
        "--definitions", "all", "--subset-by", "view", "--weights", "w.pt", "--seed", 5, "--normalise", "unit",
        "--size", "128x96", "--fit", "letterbox", "--batch-size", 2, "--workers", 0, "--deterministic", "-o", "out.h5",
        "--no-picture", "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    loaded = erf.load("out.h5")
    origin = loaded.provenance
    assert (origin.layer, origin.unit, origin.seed, origin.normalisation) == ("stage2", (3, 4), 5, "unit")
    assert origin.definitions == tuple(erf.DEFINITIONS)
    assert origin.input_shape == (1, 128, 96)
    assert origin.fit == "letterbox"
    assert origin.deterministic
    assert len(origin.weights_sha256) == 64
    assert set(loaded.subsets) == {"all", "left", "right", "view=CC", "view=MLO"}
    assert not Path("out.png").exists()


def test_the_same_command_gives_the_same_numbers() -> None:
    for name in ("a.h5", "b.h5"):
        assert call("compute", "-m", "hct", "-n", 2, "-o", name, "--no-picture", *SMALL).exit_code == 0
    one, other = erf.load("a.h5"), erf.load("b.h5")
    np.testing.assert_array_equal(one.statistics().mean, other.statistics().mean)


def bad_folder(*kinds: str) -> Path:
    """A folder with the named images."""
    folder = Path("images")
    folder.mkdir()
    pixels = erf.draw_phantom(0, size=(64, 48)).pixels
    for kind in kinds:
        path = folder / f"{kind}_L.png"
        Pillow.fromarray(np.full_like(pixels, 3) if kind == "constant" else pixels).save(path)
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:-500])
        if kind == "colour":
            Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)).save(path)
    return folder


def test_remarks_on_images_are_summed_up(tmp_path: Path) -> None:
    for name in ("a_L", "b_L", "c_R"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).random((1, 40, 30)))
    result = call("compute", "-m", "gmic", "--images", tmp_path, "-n", 3, "--no-picture", *SMALL)
    assert result.exit_code == 0
    (line,) = [line for line in result.stderr.splitlines() if "less than half" in line]
    assert line.startswith("erf: 3 of 3 images, first ")
    assert line.endswith("use a smaller --size, or --fit letterbox")


def test_a_bad_image_among_good_ones_is_skipped_and_told() -> None:
    folder = bad_folder("good", "other", "truncated")
    result = call("compute", "-m", "gmic", "--images", folder, *SMALL, "--no-picture")
    assert result.exit_code == 3
    assert "1 of 3 images were skipped" in result.stderr
    assert "truncated_L.png: cannot be decoded" in result.stderr
    (failure,) = erf.load("gmic.h5").failures
    assert failure.path == "truncated_L.png"
    shown = call("show", "gmic.h5")
    assert "3 images, 1 of them skipped" in shown.stdout
    assert "truncated_L.png" in shown.stdout


def test_strict_makes_a_bad_image_fatal() -> None:
    assert "truncated_L.png" in complaint(
        "compute", "-m", "gmic", "-n", 2, "--images", bad_folder("good", "truncated"), "--strict", *SMALL
    )
    assert not Path("gmic.h5").exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "none of 1 images could be used; the first: images/truncated_L.png: cannot be decoded"),
        ("constant", "constant image (every pixel is 3)"),
        ("colour", "found 3 channels, expected 1"),
    ],
)
def test_a_single_bad_image(kind: str, message: str) -> None:
    assert message in complaint("compute", "-m", "gmic", "-n", 1, "--images", bad_folder(kind), *SMALL)
    assert os.listdir() == ["images"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "hcd"], "unknown model 'hcd'; did you mean hct"),
        (["-m", "hct", "--layer", "stage9"], "unknown layer 'stage9' in HCT; the nearest are stage"),
        (["-m", "hct", "--unit", "99,0"], "unit 99,0 lies outside layer 'final'"),
        (["-m", "hct", "--unit", "middle"], "unit 'middle' not understood; expected center"),
        (["-m", "hct", "--definitions", "absolute"], "definitions: found absolute"),
        (["-m", "hct", "--size", "big"], "size 'big' not understood; expected HEIGHTxWIDTH"),
        (["-m", "hct", "--size", "0x5"], "expected a positive height and width"),
        (["-m", "hct", "--size", "4x4"], "HCT cannot run on an input of 1x4x4"),
        (["-m", "hct", "--normalise", "max"], "normalisation 'max' not known"),
        (["-m", "hct", "--device", "warp"], "device 'warp' not understood"),
        (["-m", "hct", "--images", "nowhere"], "nowhere: found nothing, expected a folder"),
        (["-m", "hct", "--images", "."], "found no images"),
        (["-m", "hct", "--weights", "w.pt"], "weights w.pt not found"),
        (["-m", "hct", "--weights", "timm:tag"], "model 'hct' has no weights 'timm:tag'; expected a weights file"),
        (["-m", "hct", "--model-arg", "stages"], "--model-arg 'stages' not understood; expected NAME=VALUE"),
        (["-m", "hct", "--model-arg", "seed=1"], "--model-arg 'seed=1' not understood; use --seed"),
        (
            ["-m", "hct", "--model-arg", "weights=w.pt"],
            "'weights' is no option of a network; give it as --weights",
        ),
        (["-m", "hct", "--model-arg", "name=w"], "model 'hct' does not take these options"),
        (["-m", "hct", "--model-arg", "stages=2"], "model 'hct' does not take these options"),
        (["-m", "gmic", "--projections", "2"], "2 projections: GMIC has no random projection"),
        (["-m", "unet", "--size", "100x96"], "expected height and width divisible by 16, found 100x96"),
        (["-m", "unet-srb-f", "--model-arg", "size=64,64"], "parameters for 4x3 frequencies, found 8x4: build the"),
        (["-m", "unet-srb-a", "--model-arg", "size=64,64"], "learned transforms for maps of 4x4, found 8x6"),
        (["-m", "hct", "--until", "2"], "half width 2 of the value"),
        (["-m", "hct", "-o", "no/where.h5"], "no/where.h5 cannot be written (No such file or directory)"),
    ],
)
def test_bad_input_gives_one_clear_line(words: list[str], message: str) -> None:
    size = [] if "--size" in words else ["--size", "128x96"]
    assert message in complaint("compute", "-n", 1, *words, *size)
    assert os.listdir() == []


def test_a_manifest_row_without_a_file() -> None:
    Path("m.csv").write_text("path,laterality\nlost.png,L\n")
    assert "lost.png: No such file or directory" in complaint(
        "compute", "-m", "gmic", "-n", 1, "--images", "m.csv", *SMALL
    )


@pytest.mark.parametrize("existing", ["gmic.h5", "gmic.png"])
def test_existing_output_is_refused_without_overwrite(existing: str) -> None:
    Path(existing).write_text("precious")
    assert f"{existing} exists" in complaint("compute", "-m", "gmic", "-n", 1, *SMALL)
    assert Path(existing).read_text() == "precious"
    words = ["--no-picture"] if existing == "gmic.h5" else []
    assert call("compute", "-m", "gmic", "-n", 1, "--overwrite", *SMALL, *words).exit_code == 0
    assert Path(existing).stat().st_size > 1000


def test_fewer_images_than_asked_for_is_told(mammograms: Path) -> None:
    result = call("compute", "-m", "gmic", "--images", mammograms, *SMALL, "--no-picture")
    assert result.exit_code == 0
    assert "6 images, 100 were asked for; all of them are used" in result.stderr


def test_several_files_in_one_picture() -> None:
    for model in ("gmic", "hct"):
        call("compute", "-m", model, "-n", 2, "--no-picture", *SMALL)
    for name, subsets in (("fig.png", "all,left,right"), ("fig.svg", "all"), ("fig.pdf", "left"), ("fig.html", "all")):
        result = call("plot", "gmic.h5", "hct.h5", "-o", name, "--subsets", subsets)
        assert (result.exit_code, result.stdout) == (0, f"written: {name}\n")
        assert Path(name).stat().st_size > 10_000
    assert "fig.png exists" in complaint("plot", "gmic.h5", "-o", "fig.png")
    assert "suffix '.bmp' not known" in complaint("plot", "gmic.h5", "-o", "fig.bmp")
    assert "no such file" in complaint("plot", "lost.h5")
    assert "no subset 'both'" in complaint("plot", "gmic.h5", "--subsets", "both")
    assert "no definition 'relu'" in complaint("plot", "gmic.h5", "--definition", "relu")


def test_options_of_the_network_reach_it_and_the_file() -> None:
    words = ["compute", "--model", "unet-srb-f", "-n", 2, *SMALL, "--no-picture"]
    assert call(*words, "-o", "off.h5").exit_code == 0
    assert call(*words, "-o", "on.h5", "--model-arg", "alpha=1.5", "--model-arg", "places=before-up4").exit_code == 0
    off, on = erf.load("off.h5"), erf.load("on.h5")
    assert on.provenance.model_options == {"alpha": 1.5, "places": "before-up4"}
    assert on.provenance.title == "unet-srb-f, alpha 1.5, places before-up4"
    # At alpha 0 the blocks are the identity, and the field is that of the convolutions; otherwise it is the image.
    assert np.count_nonzero(off.statistics().mean) < 188 * 192
    assert np.count_nonzero(on.statistics().mean) == 256 * 192


def test_projections_are_averaged_and_their_spread_is_printed() -> None:
    result = call("compute", "--model", "hct", "-n", 2, "--projections", 3, *SMALL, "--no-picture")
    assert result.exit_code == 0
    assert "spread over 3 random projections" in result.stdout
    assert erf.load("hct.h5").provenance.projections == 3


def test_a_run_can_end_when_it_is_precise() -> None:
    words = ["compute", "--model", "unet", "--size", "64x48", "-n", 40, "--device", "cpu", "--no-picture"]
    result = call(*words, "--until", 0.2)
    assert result.exit_code == 0
    count = len(erf.load("unet.h5").images)
    assert f"after {count} images: r50 " in result.stdout
    assert 12 <= count < 40
    result = call(*words, "--until", 0.00001, "--measure", "fwhm_y", "-o", "all.h5")
    assert "after 40 images: fwhm_y " in result.stdout
    assert "which these images do not reach; ask for more with -n" in result.stderr


def test_several_layers_give_a_file_each_and_a_picture_of_growth() -> None:
    result = call("compute", "--model", "gmic", "--layer", "stem,final", "-n", 2, *SMALL)
    assert result.exit_code == 0
    assert "growth over 2 layers" in result.stdout
    assert sorted(os.listdir()) == ["gmic.final.h5", "gmic.png", "gmic.stem.h5"]
    assert [erf.load(f"gmic.{layer}.h5").provenance.layer for layer in ("stem", "final")] == ["stem", "final"]
    assert "gmic.stem.h5 exists" in complaint("compute", "--model", "gmic", "--layer", "all", "--no-picture", *SMALL)
    assert "unknown layer 'final2'" in complaint("compute", "-m", "hct", "--layer", "stem,final2", *SMALL)


def test_bench_prints_both_ways_and_every_stage() -> None:
    result = call("bench", "--model", "gmic", "--size", "256x192", "--rounds", 1, "--device", "cpu")
    assert result.exit_code == 0
    rows = [[cell.strip() for cell in line.split("│")] for line in result.stdout.splitlines() if "│" in line]
    calls = {row[1]: int(row[4]) for row in rows if row[1] in STAGES}
    assert list(calls) == list(STAGES)
    assert calls["read"] == calls["decode"] == 5  # four images, the first of them also for the self-check
    assert calls["pass"] == 4
    for words in ("autograd loop", "erf", "speed-up", "gmic, layer final, 256x192"):
        assert words in result.stdout


def test_the_mirror_test() -> None:
    for words in (["-o", "as-is.h5"], ["-o", "turned.h5", "--mirror"]):
        assert call("compute", "--model", "hct", "-n", 4, "--no-picture", *words, *SMALL).exit_code == 0
    result = call("compare", "--mirror", "as-is.h5", "turned.h5")
    assert result.exit_code == 0
    assert "turning" in result.stdout
    assert "differ in mirroring False / True" in complaint("compare", "as-is.h5", "turned.h5")
    assert "found 1 files; expected two" in complaint("compare", "--mirror", "as-is.h5")
    assert "in this order" in complaint("compare", "--mirror", "turned.h5", "as-is.h5")


def test_networks_of_an_extra_that_is_missing_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.models.resnet", None)
    for name in ("resnet18", "swin-tiny", "resnet50-srb-f", "spm", "danet", "pspnet", "deeplabv3"):
        assert "pip install 'erf-toolkit[timm]'" in complaint("compute", "--model", name, "-n", 1)
    assert "resnet18" in call("models").stdout


def test_a_tag_of_timm_is_asked_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    asked = []

    def create(name: str, **options: Any) -> torch.nn.Module:
        asked.append((name, options))
        return plain(name.split(".", maxsplit=1)[0], **(options | {"pretrained": False}))

    plain = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    words = ["compute", "--model", "resnet18", "--weights", "timm:a1_in1k", "--size", "64x64", "-n", 1]
    assert call(*words, "--device", "cpu", "--no-picture").exit_code == 0
    ((name, options),) = asked
    assert (name, options["pretrained"]) == ("resnet18.a1_in1k", True)
    assert "num_classes" not in options  # as many as the weights have
    assert erf.load("resnet18.h5").provenance.weights_text == "weights timm:a1_in1k"


def test_count_tables_show_ours_beside_the_papers() -> None:
    shown = call("models", "--table", "srb").stdout
    for expected in ("2,076,038", "31.70", "N log2 N per Fourier transform", "0.0278", "33.024"):
        assert expected in shown
    assert "1.7370" not in call("models", "--table", "hct").stdout  # one digit more than the paper's two
    assert "1.737" in call("models", "--table", "hct").stdout


def test_models_are_listed() -> None:
    result = call("models")
    for name, count in (("gmic", "2,800,050"), ("gmic-nyu", "2,800,048"), ("hct", "1,737,010")):
        assert name in result.stdout
        assert count in result.stdout
    assert "no model matches 'vgg*'" in complaint("models", "vgg*")


@pytest.mark.parametrize("verb", ["compute", "compare", "plot", "report", "show", "models"])
def test_every_verb_has_help_and_is_in_the_readme(verb: str) -> None:
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5
    assert f"erf {verb}" in (Path(__file__).parent.parent / "README.md").read_text()


def python(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, text=True, env=environment, timeout=600, **options
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, erf.cli\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'plotly', 'h5py', 'rich.progress', 'PIL', 'pydicom'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert python("-c", code).stdout.strip() == "[]"


def test_python_m_and_the_launcher() -> None:
    root = Path(__file__).parent.parent
    for words in (["-m", "erf", "--help"], [str(root / "cli.py"), "--help"]):
        result = python(*words)
        assert result.returncode == 0
        assert "compute" in result.stdout


def test_a_run_that_cannot_fit_is_refused_at_once() -> None:
    assert "a run at 90000x90000 needs at least" in complaint("compute", "-m", "gmic", "-n", 1, "--size", "90000x90000")
    assert os.listdir() == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits of file sizes are Linux's")
@pytest.mark.parametrize("kilobytes", [20, 300, 2000])
def test_a_full_disk_ends_with_one_line_and_leaves_nothing(kilobytes: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))

    words = ["-m", "erf", "compute", "-m", "hct", "-n", "6", "--size", "512x384", "--definitions", "all"]
    result = python(*words, preexec_fn=limit)
    assert result.returncode == 2
    lines = [line for line in result.stderr.strip().splitlines() if line.startswith("erf: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.stderr
    assert os.listdir() == []


LIMITED = """
import resource, sys
import erf.engine, erf.images, erf.models, erf.plotting
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, taken + 2**30))
sys.argv = ["erf", "compute", "-m", "gmic", "-n", "1", "--size", "9000x9000", "--device", "cpu"]
from erf.cli import main
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_memory_that_runs_out_ends_with_one_line() -> None:
    result = python("-c", LIMITED)
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("erf: ")
    assert "memory" in line
    assert "--size" in line
    assert os.listdir() == []
