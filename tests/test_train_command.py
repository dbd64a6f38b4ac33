"""`erf train` and what follows it, as a user runs them: folders, matrices, series, several processes."""

import json
import math
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from typer.testing import CliRunner

import erf.engine
from erf.cli import app
from erf.datasets import load_examples
from erf.errors import FormatError, InputError
from erf.models import create_model
from erf.results import ERF
from erf.storage import load
from erf.storage.series import Moment, Series, load_series, save_series
from tests.agreement import assert_gradients_agree

ROOT = Path(__file__).parent.parent
CPU = ["--device", "cpu"]


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of tissue at two magnifications, in the folders of BreakHis."""
    folder = tmp_path_factory.mktemp("tissue")
    draw_set = runpy.run_path(str(ROOT / "scripts" / "synthetic_breakhis.py"))["draw_set"]
    assert draw_set(folder, 6, 4, 32, (40, 400), 0) == 96
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training of hct on small phantoms, with the ERF at every epoch."""
    folder = tmp_path_factory.mktemp("run") / "hct"
    call(
        "train", "-m", "hct", "--size", "96x80", "-n", 16, *CPU, "--split", "50:25:25", "--erf-every", 1, "--erf-n", 4,
        "--set", "patch.patch=48", "--set", "epochs=1", "--set", "batch_size=8", "-o", folder,
    )  # fmt: skip
    return folder


def test_a_magnification_matrix_from_images_to_picture(tissue: Path, tmp_path: Path) -> None:
    """MobileNet and a narrow WaveMix, each trained on one magnification and tested on both."""
    folders = []
    for model, options in (
        ("mobilenetv3-small-050", []),
        ("wavemix", ["--model-arg", "dim=16", "--model-arg", "depth=2"]),
    ):
        for zoom in ("40X", "400X"):
            folders.append(tmp_path / f"{model}-{zoom}")
            call(
                "train", "-m", model, *options, "--images", tissue, "--preset", "magnification", "--size", "32x32", *CPU,
                "--where", f"magnification={zoom}", "--split", "70:10:20", "--set", "epochs=1", "--set", "batch_size=8",
                "-o", folders[-1],
            )  # fmt: skip
    output = call(
        "evaluate", *folders, "--matrix", "magnification", "-o", tmp_path / "m.csv", "--picture", tmp_path / "m.png"
    )
    title = "accuracy [%] by magnification in training (rows) and in testing (columns, 8 images each)"
    assert f"mobilenetv3-small-050: {title}" in output
    rows = (tmp_path / "m.csv").read_text().splitlines()
    assert rows[0] == "label,measure,trained_on,tested_on,value,images"
    told = [row.split(",") for row in rows[1:]]
    assert [(row[0], row[2], row[3]) for row in told] == [
        (model, a, b)
        for model in ("mobilenetv3-small-050", "wavemix")
        for a in ("40X", "400X")
        for b in ("40X", "400X")
    ]
    assert all(0 <= float(row[4]) <= 1 and row[5] == "8" for row in told)
    assert (tmp_path / "m.png").stat().st_size > 10_000
    predictions = (folders[0] / "predictions.csv").read_text()
    assert predictions.count(",magnification=40X") == 16  # of both magnifications, by the patients that were left out
    again = call("evaluate", *folders, "--matrix", "magnification")
    assert "written" not in again  # the files of predictions are read again


def test_the_folder_of_a_training_is_all_that_evaluation_needs(trained: Path, tmp_path: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "checkpoints", "curves.png", "epochs.json", "erf.h5", "erf.png", "final.safetensors", "log.csv", "run.json",
    }  # fmt: skip
    about = json.loads((trained / "run.json").read_text())
    assert about["data"]["source"] == "phantom"
    assert about["command"].startswith("erf")
    output = call(
        "evaluate", trained, "--images", "phantom", "-n", 12, "--image-seed", 4, "--predictions", tmp_path / "p.csv"
    )
    assert re.search(r"all │ 6 \+ 6 │ \d", output)
    weights = call("evaluate", "-m", "hct", "--weights", trained / "final.safetensors", "--size", "96x80", "-n", 12, "--image-seed", 4,
                   "--predictions", tmp_path / "q.csv")  # fmt: skip
    assert "6 + 6" in weights
    one, other = ((tmp_path / name).read_text().splitlines() for name in ("p.csv", "q.csv"))
    assert [line.split(",")[:9] for line in one] == [line.split(",")[:9] for line in other]


def test_the_series_has_the_erf_of_every_epoch(trained: Path, tmp_path: Path) -> None:
    series = load_series(trained / "erf.h5")
    assert [(one.epoch, one.stage) for one in series.moments] == [(0, "initial"), (1, "patch"), (2, "image")]
    call(
        "compute", "-m", "hct", "--size", "96x80", "-n", 4, "--image-seed", 1, *CPU, "--no-picture",
        "--weights", trained / "checkpoints" / "001-patch.safetensors", "-o", tmp_path / "one.h5",
    )  # fmt: skip
    alone = load(tmp_path / "one.h5").profiles["abs"]
    here, later = (series.moments[epoch].profiles["abs"].across_rows for epoch in (1, 2))
    assert_gradients_agree(here, alone.across_rows, rtol=1e-4)
    with pytest.raises(AssertionError, match="values differ"):
        assert_gradients_agree(later, alone.across_rows, rtol=1e-3)
    scores = json.loads((trained / "epochs.json").read_text())
    assert [one.scores["validation_loss"] for one in series.moments] == [row["validation_loss"] for row in scores]
    shown = call("show", trained / "erf.h5")
    assert "AUC" in shown
    assert "lean" in shown
    call("plot", "--over-training", trained / "erf.h5", "-o", tmp_path / "series.png", "--subsets", "left,right")
    assert (tmp_path / "series.png").stat().st_size > 50_000
    with pytest.raises(InputError, match=r"x\.html: suffix '\.html' not known; expected one of \.png, \.svg, \.pdf"):
        erf.plot_series(series, tmp_path / "x.html")
    assert "read it with `erf show` or `erf plot --over-training`" in call(
        "plot", trained / "erf.h5", "-o", tmp_path / "x.png", code=2
    )
    assert "expected 'erf-toolkit series'" in call(
        "plot", "--over-training", tmp_path / "one.h5", "-o", tmp_path / "x.png", code=2
    )


@pytest.mark.parametrize("quoted", [True, False])
def test_finished_trainings_are_followed_from_their_weights(trained: Path, tmp_path: Path, quoted: bool) -> None:
    """A pattern, or the names that a shell makes of it; epochs are those of the headers."""
    files = sorted((trained / "checkpoints").iterdir())
    weights = [trained / "checkpoints" / "*"] if quoted else [files[2], files[0], files[1]]
    call(
        "compute",
        "-m",
        "hct",
        "--size",
        "96x80",
        "-n",
        4,
        "--image-seed",
        1,
        *CPU,
        *([] if quoted else ["--no-picture"]),
        "-o",
        tmp_path / "s.h5",
        "--weights",
        *weights,
    )
    found, watched = load_series(tmp_path / "s.h5"), load_series(trained / "erf.h5")
    assert [(one.epoch, one.stage) for one in found.moments] == [(one.epoch, one.stage) for one in watched.moments]
    for one, other in zip(found.moments, watched.moments, strict=True):
        assert_gradients_agree(one.profiles["abs"].small, other.profiles["abs"].small, rtol=1e-4)
    assert found.moments[0].provenance.weights == str(files[0])
    assert (tmp_path / "s.png").exists() == quoted


def test_an_interrupted_run_over_weights_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights that are not done; the file is that of a run in one go."""
    (tmp_path / "w").mkdir()
    for seed in range(3):
        torch.save(create_model("gmic", seed=seed).state_dict(), tmp_path / "w" / f"{seed}.pt")
    words = ["compute", "-m", "gmic", "--size", "64x48", "-n", 2, *CPU, "--weights", tmp_path / "w" / "*"]
    call(*words, "-o", tmp_path / "whole.h5", "--no-picture")
    counted: list[int] = []
    measure = erf.engine.compute_layers

    def interrupted(*arguments: Any, **options: Any) -> Any:
        counted.append(1)
        if len(counted) == 2:
            raise KeyboardInterrupt
        return measure(*arguments, **options)

    monkeypatch.setattr("erf.tracking.snapshots.compute_layers", interrupted)
    again = [*words, "-o", tmp_path / "s.h5"]
    assert "--resume goes on" in call(*again, code=130)
    assert "left its progress" in call(*again, code=2)
    assert "of another run: other n 2 and 3" in call(*again, "-n", 3, "--resume", code=2)
    call(*again, "--resume")
    assert len(counted) == 4  # one before the interruption, the interrupted one, and the two that were left
    assert "finished before" in call(*again, "--resume")
    one, other = load_series(tmp_path / "whole.h5"), load_series(tmp_path / "s.h5")
    for first, second in zip(one.moments, other.moments, strict=True):
        assert (first.epoch, first.stage) == (second.epoch, second.stage)
        np.testing.assert_array_equal(first.profiles["abs"].small, second.profiles["abs"].small)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.h5", "s.png", "w", "whole.h5"]


def test_a_series_takes_the_same_images_and_layer_only(trained: Path, tmp_path: Path) -> None:
    for name, seed, layer in (("a", 1, "final"), ("b", 2, "final"), ("c", 1, "stage4")):
        call("compute", "-m", "hct", "--size", "96x80", "-n", 2, "--image-seed", seed, "--layer", layer, *CPU, "--no-picture",
             "--weights", "none", "-o", tmp_path / f"{name}.h5")  # fmt: skip
    a, b, c = (load(tmp_path / f"{name}.h5") for name in "abc")
    series = Series.of(a, Moment.of(a, 3))
    with pytest.raises(InputError, match="measured on different images"):
        series.added(b, Moment.of(b, 4))
    with pytest.raises(InputError, match="moments of one series differ in layer final and stage4"):
        series.added(c, Moment.of(c, 4))
    twice = series.added(a, Moment.of(a, 1, "patch", {"validation_auc": 0.5})).added(a, Moment.of(a, 3, "image"))
    save_series(twice, tmp_path / "s.h5")
    back = load_series(tmp_path / "s.h5")
    assert [(one.epoch, one.stage, one.scores) for one in back.moments] == [
        (1, "patch", {"validation_auc": 0.5}), (3, "image", {}),
    ]  # fmt: skip
    assert repr(back.images) == repr(a.images)  # spacings are NaN, which equals nothing
    assert back.moments[0].provenance == a.provenance
    np.testing.assert_array_equal(back.observe(back.moments[0]).small, a.profiles["abs"].small)
    kept, own = back.overview, a.overview()
    assert kept is not None
    assert own is not None
    np.testing.assert_array_equal(kept.tissue, own.tissue)
    damaged = bytearray((tmp_path / "s.h5").read_bytes())
    damaged[len(damaged) // 2 :] = b"\0" * (len(damaged) - len(damaged) // 2)
    (tmp_path / "d.h5").write_bytes(damaged)
    with pytest.raises(FormatError, match=r"d\.h5: cannot be read as a series"):
        load_series(tmp_path / "d.h5")


def test_masks_are_learned_from_a_public_folder(tmp_path: Path) -> None:
    """The layout of ISIC 2018; bright discs are found after some updates, and the table has the four scores."""
    rng = np.random.default_rng(0)
    for part, count in (("Training", 12), ("Validation", 2), ("Test", 4)):
        pictures = tmp_path / f"ISIC2018_Task1-2_{part}_Input"
        masks = tmp_path / f"ISIC2018_Task1_{part}_GroundTruth"
        pictures.mkdir()
        masks.mkdir()
        for number in range(count):
            y, x = np.mgrid[:32, :32]
            disc = np.hypot(y - rng.uniform(10, 22), x - rng.uniform(10, 22)) < 7
            pixels = 60 + 120 * disc[..., None] + rng.normal(0, 10, (32, 32, 3))
            name = f"ISIC_{part == 'Test':d}{part == 'Validation':d}{number:05d}"
            Pillow.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(pictures / f"{name}.jpg")
            Pillow.fromarray(disc.astype(np.uint8) * 255).save(masks / f"{name}_segmentation.png")
    call(
        "train", "-m", "unet-srb-f", "--images", tmp_path, "--preset", "srb-segmentation", "--size", "32x32", *CPU,
        "--set", "epochs=6", "--set", "batch_size=4", "-o", tmp_path / "run",
    )  # fmt: skip
    output = call("evaluate", tmp_path / "run", "-o", tmp_path / "t.json", "--draws", 200)
    assert "unet-srb-f" in output
    records = {record["measure"]: record["value"] for record in json.loads((tmp_path / "t.json").read_text())}
    assert records["mean_iou"] > 0.6, records
    (parts,) = {len(json.loads((tmp_path / "run" / "epochs.json").read_text()))}
    assert parts == 7


def test_several_labels_are_learned_from_a_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["path,label,patient_id"]
    for number in range(24):
        left, right = rng.integers(0, 2, 2)
        pixels = rng.normal(90, 10, (32, 32))
        pixels[:, :16] += 60 * left
        pixels[:, 16:] += 60 * right
        Pillow.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'|'.join(['left'] * left + ['right'] * right)},p{number}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    call(
        "train", "-m", "mobilenetv3-small-050", "--images", tmp_path / "m.csv", "--preset", "srb-multilabel", "--size", "32x32",
        *CPU, "--set", "epochs=1", "--set", "batch_size=8", "--split", "60:20:20", "-o", tmp_path / "run",
    )  # fmt: skip
    output = call("evaluate", tmp_path / "run", "--part", "train", "--draws", 200)
    assert "left" in output
    assert "right" in output


NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 5, 4), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
"""


def test_two_processes_train_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without batch norm, gradients averaged over two processes are those of the whole batch, to float32's rounding."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    common = [
        "train", "-m", "net.py:make", "--size", "64x48", "-n", "16", "--device", "cpu", "--split", "50:50:0", "--set",
        "patch.patch=32", "--set", "epochs=1", "--set", "batch_size=4", "--set", "patch.patches=1",
    ]  # fmt: skip
    call(*common, "-o", "one")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "erf"]
    done = subprocess.run([*launcher, *common, "-o", "two"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    logs = [
        np.genfromtxt(tmp_path / name / "log.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
        for name in ("one", "two")
    ]
    assert len(logs[0]) == 4
    np.testing.assert_allclose(logs[1]["loss"], logs[0]["loss"], rtol=1e-5)
    scores = [json.loads((tmp_path / name / "epochs.json").read_text())[-1] for name in ("one", "two")]
    assert scores[1]["validation_loss"] == pytest.approx(scores[0]["validation_loss"], rel=1e-5)
    assert scores[1]["validation_auc"] == scores[0]["validation_auc"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "quick"], "preset 'quick' not known; expected one of hct-paper, phantom-small"),
        (["--set", "speed=3"], "the recipe has no 'speed'"),
        (["--split", "8:2"], "split '8:2' not understood; expected three shares"),
        (["--preset", "srb-segmentation"], "phantoms have one label and no masks; give another --images"),
        (["--images", "nowhere"], "nowhere: found nothing, expected a folder"),
        (["--where", "magnification=7X"], "no images with magnification '7X'"),
        (["--size", "64x48"], "patches of 512 pixels from a frame of 64x48"),
        (["--stages", "head"], "the recipe 'phantom-small' has no stage 'head'; expected of patch, image"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = call(
        "train", "-m", "gmic", "-n", 4, *([] if "--size" in arguments else ["--size", "96x80"]), *arguments, code=2
    )
    assert message in output
    assert not list(tmp_path.rglob("*.safetensors"))


def test_half_and_full_resolution_are_compared_on_the_same_images(tmp_path: Path) -> None:
    """Fig. 5 of the HCT paper in small: one manifest, two frames, paired differences."""
    lines = ["path,label,patient_id"]
    for number, one in enumerate(load_examples("phantom", n=16, size=(96, 80))):
        Pillow.fromarray(one.image.decode().pixels[0]).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{one.labels[0]},p{number}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    for name, size in (("full", ["--size", "96x80"]), ("half", ["--size", "48x40", "--fit", "letterbox"])):
        call(
            "train", "-m", "gmic", "--images", tmp_path / "m.csv", *size, *CPU, "--stages", "image", "--split", "50:0:50",
            "--set", "epochs=1", "-o", tmp_path / name,
        )  # fmt: skip
    output = call("evaluate", tmp_path / "full", tmp_path / "half", "--draws", 200, "-o", tmp_path / "t.json")
    assert "half − full" in output
    assert [json.loads((tmp_path / name / "run.json").read_text())["size"] for name in ("full", "half")] == [
        [96, 80],
        [48, 40],
    ]
    told = [record for record in json.loads((tmp_path / "t.json").read_text()) if record["measure"] == "auc"]
    assert [record["label"] for record in told] == ["full", "half"]
    assert told[0]["positives"] + told[0]["negatives"] == 8


def test_a_folder_runs_code_only_where_it_is_trusted(tmp_path: Path) -> None:
    """What run.json names is built with the options that it names: any function of any module, with any argument."""
    about = {
        "model": "os:mkdir", "model_options": {"path": str(tmp_path / "ran"), "mode": 511},
        "data": {"source": "phantom", "n": 4}, "classes": ["negative", "positive"], "size": [64, 64],
        "fit": "pad", "interpolation": "bilinear", "normalisation": "standardise", "trained_on": "",
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(about))
    (tmp_path / "final.safetensors").touch()
    refusal = call("evaluate", tmp_path, code=2)
    assert "its network os:mkdir is code" in refusal
    assert "give --trust" in refusal
    assert not (tmp_path / "ran").exists()
    assert "returned NoneType" in call("evaluate", tmp_path, "--trust", "--images", "phantom", "-n", 4, code=2)
    assert (tmp_path / "ran").exists()  # else it would not have been code at all


@pytest.mark.parametrize("text", ["[1]", "[" * 5000, '{"model": 5}', '{"model": "gmic", "size": 5}'])
def test_run_files_from_elsewhere_are_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    (tmp_path / "final.safetensors").touch()
    assert "expected the folder of a training" in call("evaluate", tmp_path, code=2)


def test_a_series_holds_what_trainings_give(small_erf: ERF, tmp_path: Path) -> None:
    """Scores that are not finite, such as an AUC of one class, and an image that has no gradient at some moment."""

    def without_first(array: np.ndarray) -> np.ndarray:
        return np.concatenate([np.full_like(array[:1], np.nan), array[1:]])

    first, others = small_erf.images[0], small_erf.images[1:]
    later = replace(small_erf, images=(replace(first, status="failed"), *others))
    moment = Moment.of(later, 1, "patch", {"validation_auc": math.nan, "validation_loss": math.inf})
    moment = replace(moment, profiles={"abs": moment.profiles["abs"].each(without_first)})
    save_series(Series.of(small_erf, Moment.of(small_erf, 0)).added(later, moment), tmp_path / "s.h5")
    found = load_series(tmp_path / "s.h5")
    assert math.isnan(found.moments[1].scores["validation_auc"])
    for each in found.moments:
        assert len(found.observe(each).small) == len(others)
        assert np.isfinite(found.observe(each).small).all()
