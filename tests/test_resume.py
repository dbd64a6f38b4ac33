"""Runs that end at any moment and go on: no image is lost or counted twice, and no bit differs."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import erf
from erf.cli import app
from erf.engine import compute_layers
from erf.engine.settings import Settings
from erf.errors import CheckpointError, InterruptedRunError, OutputError
from erf.images import from_arrays
from erf.storage import FileSink
from erf.storage.checkpoint import Checkpoint
from erf.uncertainty import Resampling, StoppingRule
from tests.conftest import SMALL_RUN, small_network

ROOT = Path(__file__).parent.parent
SIDES = ["left", "right", "left", "", "right", "left", "right", "right", "left", "left", "", "right"]
TAPS = ("2", "5")


def arrays(count: int = 12) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    found = [rng.standard_normal((1, 40, 32)) for _ in range(count)]
    found[6][0, 0, 0] = np.nan  # one that cannot be used
    return found


def run(
    folder: Path, stop_after: int | None = None, resume: bool = False, in_memory: bool = False, **settings: Any
) -> None:
    """Two layers into two files; asked to stop after some batches."""
    calls = iter(range(1, 10**6))
    given: dict[str, Any] = {"batch_size": 2, "definitions": ("abs", "signed")} | settings
    options = Settings(device="cpu", **given)
    with (
        Checkpoint(folder / "progress", resume=resume, every=0) as checkpoint,
        FileSink(folder / "2.h5") as first,
        FileSink(folder / "5.h5") as second,
    ):
        compute_layers(
            small_network(),
            from_arrays(arrays(), SIDES),
            TAPS,
            options,
            sinks=None if in_memory else [first, second],
            checkpoint=checkpoint,
            stop=lambda: next(calls) == stop_after,
        )


def contents(path: Path) -> dict[str, Any]:
    """Everything in an HDF5 file but when and by which command it was made."""
    found: dict[str, Any] = {}

    def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for key, value in item.attrs.items():
            if key not in ("created", "command", "REFERENCE_LIST", "DIMENSION_LIST"):
                found[f"{name}@{key}"] = np.asarray(value).tolist()
        if isinstance(item, h5py.Dataset):
            found[name] = item[()].tobytes() if item.dtype.kind != "O" else item.asstr()[()].tolist()

    with h5py.File(path) as file:
        note("", file)
        file.visititems(note)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The files of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    assert sorted(os.listdir(folder)) == ["2.h5", "5.h5"]  # no progress is left
    return {name: contents(folder / f"{name}.h5") for name in TAPS}


BATCHES = 2 + 3 + 3  # of 2 images without a side (1 batch), 5 left ones (3) and 5 right ones (3), and one more ask


@pytest.mark.parametrize("stop_after", range(1, 8))
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    stop_after: int, whole: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError, match=r"interrupted after \d+ of 12 images"):
        run(tmp_path, stop_after)
    assert os.listdir(tmp_path) == ["progress"]
    run(tmp_path, resume=True)
    assert sorted(os.listdir(tmp_path)) == ["2.h5", "5.h5"]
    for name in TAPS:
        assert contents(tmp_path / f"{name}.h5") == whole[name]


def test_a_run_can_be_stopped_again_and_again(whole: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    for attempt in range(20):
        try:
            run(tmp_path, stop_after=1, resume=attempt > 0)
        except InterruptedRunError:
            continue
        break
    assert attempt == 7  # one batch each time
    assert contents(tmp_path / "5.h5") == whole["5"]


def test_projections_and_until_go_on_too(tmp_path: Path) -> None:
    from erf.models import create_model

    def hct(folder: Path, stop_after: int | None, resume: bool = False) -> None:
        calls = iter(range(1, 100))
        images = [array[:, :1].repeat(256, 1).repeat(6, 2) for array in arrays(8) if np.isfinite(array).all()]
        settings = Settings(
            device="cpu", projections=2, batch_size=2, until=StoppingRule(0.5, resampling=Resampling(resamples=100))
        )
        with Checkpoint(folder / "progress", resume=resume, every=0) as checkpoint, FileSink(folder / "a.h5") as sink:
            compute_layers(
                create_model("hct"),
                from_arrays(images, SIDES[: len(images)]),
                ["final"],
                settings,
                sinks=[sink],
                checkpoint=checkpoint,
                stop=lambda: next(calls) == stop_after,
            )

    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    hct(tmp_path / "whole", None)
    with pytest.raises(InterruptedRunError):
        hct(tmp_path / "parts", 3)
    hct(tmp_path / "parts", None, resume=True)
    assert contents(tmp_path / "parts" / "a.h5") == contents(tmp_path / "whole" / "a.h5")


def test_a_run_that_goes_on_says_when_it_began(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path, 3)
    state = json.loads((tmp_path / "progress" / "state.json").read_text())
    began = json.loads(state["payload"])["provenance"][0]["created"]
    time.sleep(1.1)  # times are in whole seconds
    run(tmp_path, resume=True)
    assert erf.load(tmp_path / "2.h5").provenance.created == began


def test_progress_is_not_forgotten_by_mistake(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path, 3)
    with pytest.raises(CheckpointError, match="an interrupted run left its progress"):
        run(tmp_path)
    assert (tmp_path / "progress" / "state.json").exists()
    with Checkpoint(tmp_path / "progress", fresh=True):
        assert not (tmp_path / "progress" / "state.json").exists()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"definitions": ("abs",)}, "definitions abs, signed and abs"),
        ({"unit": (0, 0)}, "unit "),
        ({"batch_size": 3}, "batch size"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(tmp_path: Path, settings: dict[str, Any], found: str) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path, 3)
    with pytest.raises(CheckpointError, match=f"is of another run: other .*{found}"):
        run(tmp_path, resume=True, **settings)
    run(tmp_path, resume=True)  # nothing was spoilt


def test_progress_that_is_half_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "progress"
    folder.mkdir()
    for name in ("images-0000000.npz", "state.json", "running-0000007.npz"):
        (folder / name).write_bytes(b"")
    removed, unlink = [], Path.unlink

    def killed(self: Path, missing_ok: bool = False) -> None:
        removed.append(self.name)
        unlink(self, missing_ok=missing_ok)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt), Checkpoint(folder, resume=True):
        pass
    assert removed == ["state.json"]
    monkeypatch.undo()
    with Checkpoint(folder) as again:
        assert not again.exists()
    assert not folder.exists()


def test_damaged_progress_is_told(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path, 3)
    rng = random.Random(0)
    files = [path for path in (tmp_path / "progress").iterdir() if path.stat().st_size]
    assert {path.name.split("-")[0] for path in files} >= {"group", "images", "running", "state.json"}
    for path in files:
        good = path.read_bytes()
        for damage in ("cut", "flip", "gone"):
            if damage == "cut":
                path.write_bytes(good[: rng.randrange(len(good))])
            elif damage == "flip":
                place = rng.randrange(len(good))
                path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
            else:
                path.unlink()
            if path.name == "state.json" and damage == "gone":
                path.write_bytes(good)
                continue  # then there is no progress
            try:
                run(tmp_path, resume=True)
            except CheckpointError as error:
                assert "is damaged" in str(error)  # noqa: PT017 (a flip in padding is harmless)
            else:
                assert damage == "flip"
                pytest.fail(f"a flipped bit in {path.name} went unnoticed")
            path.write_bytes(good)
    state = tmp_path / "progress" / "state.json"
    good = state.read_bytes()
    changed = re.sub(rb'(visited\\": )(\d)', rb"\g<1>9", good)  # well-formed, but not what was written
    assert changed != good
    state.write_bytes(changed)
    with pytest.raises(CheckpointError, match="its checksum does not fit"):
        run(tmp_path, resume=True)
    state.write_bytes(good)
    run(tmp_path, resume=True)


# The command line, in processes of its own.

WORDS = [*SMALL_RUN, "-n", "150", "--no-picture"]


def command(folder: Path, *words: str, every: float = 0.0) -> subprocess.Popen[str]:
    """`erf` with progress saved after each batch."""
    program = f"import erf.storage.checkpoint; erf.storage.checkpoint.EVERY = {every}; from erf.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *WORDS, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def complete(folder: Path, *words: str) -> tuple[int, str]:
    process = command(folder, *words)
    _, errors = process.communicate(timeout=600)
    return process.returncode, errors


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until a process has written a file, however slow the machine is."""
    while not path.exists():
        assert process.poll() is None, f"{path} did not appear"
        time.sleep(0.02)


def call(*words: str) -> Result:
    """The same command in this process and folder."""
    return CliRunner().invoke(app, [*WORDS, *words])


@dataclass(frozen=True)
class Uninterrupted:
    """What a process made that nobody interrupted, and how long it took."""

    contents: dict[str, Any]
    seconds: float


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    folder = tmp_path_factory.mktemp("uninterrupted")
    started = time.monotonic()
    assert complete(folder)[0] == 0
    return Uninterrupted(contents(folder / "gmic.h5"), time.monotonic() - started)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_keep_what_was_done(
    number: signal.Signals, code: int, uninterrupted: Uninterrupted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    process = command(tmp_path)
    wait_for(tmp_path / ".gmic.h5.progress" / "1-of-1" / "state.json", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == code
    assert "the same command with --resume goes on from there" in errors
    assert os.listdir(tmp_path) == [".gmic.h5.progress"]
    refused = call()
    assert refused.exit_code == 2
    assert "go on with --resume" in refused.stderr
    assert call("--resume").exit_code == 0
    assert os.listdir(tmp_path) == ["gmic.h5"]
    assert contents(tmp_path / "gmic.h5") == uninterrupted.contents


def test_two_runs_do_not_write_one_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    process = command(tmp_path, "-n", "5000")
    wait_for(tmp_path / ".gmic.h5.progress" / "1-of-1" / "state.json", process)
    refused = call()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    assert refused.exit_code == 2
    assert "another run is writing the same output" in refused.stderr
    assert process.returncode == 143


def kill_moments(count: int) -> Sequence[float]:
    rng = random.Random(11)
    return [rng.uniform(0.0, 1.0) for _ in range(count)]


def test_kill_at_any_moment(uninterrupted: Uninterrupted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded moments, from before the first image to after the last; 50 in all with `ERF_KILLS=50`."""
    monkeypatch.chdir(tmp_path)
    kills = int(os.environ.get("ERF_KILLS", "3"))
    seconds, survived = uninterrupted.seconds, 0
    for moment in kill_moments(kills):
        started = time.monotonic()
        process = command(tmp_path, "--resume")
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment * seconds)
            seconds = time.monotonic() - started  # it finished first, as the machine is less busy than before
        process.kill()
        process.communicate()
        survived += process.returncode == -signal.SIGKILL
        if (tmp_path / "gmic.h5").exists():
            assert contents(tmp_path / "gmic.h5") == uninterrupted.contents
            (tmp_path / "gmic.h5").unlink()
    assert survived > 0
    assert call("--resume").exit_code == 0
    assert contents(tmp_path / "gmic.h5") == uninterrupted.contents
    assert os.listdir(tmp_path) == ["gmic.h5"]  # nor are parts of killed runs left


def change_nothing(folder: Path) -> None:
    """The images as they were."""


def remove_one(folder: Path) -> None:
    (folder / "a03_R.npy").unlink()


def change_one(folder: Path) -> None:
    np.save(folder / "a00_L.npy", np.ones((1, 40, 32)) + np.eye(40, 32))


@pytest.mark.parametrize(
    ("change", "found"), [(change_nothing, ""), (remove_one, "other images"), (change_one, "content of .*a00_L.npy")]
)
def test_images_that_changed_in_between(change: Callable[[Path], None], found: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index, array in enumerate(arrays(8)):
        if np.isfinite(array).all():
            np.save(folder / f"a{index:02d}_{'LR'[index % 2]}.npy", array)
    torch.manual_seed(0)

    def attempt(stop_after: int | None, resume: bool) -> None:
        calls = iter(range(1, 100))
        images = erf.load_images(folder, n=7, size=(40, 32), normalisation="none")
        with Checkpoint(tmp_path / "progress", resume=resume, every=0) as checkpoint:
            compute_layers(
                small_network(),
                images,
                ["5"],
                Settings(device="cpu", batch_size=1),
                checkpoint=checkpoint,
                stop=lambda: next(calls) == stop_after,
            )

    with pytest.raises(InterruptedRunError):
        attempt(5, resume=False)
    change(folder)
    for path in folder.iterdir():
        os.utime(path)
    if not found:
        attempt(None, resume=True)
        return
    with pytest.raises(CheckpointError, match=found):
        attempt(None, resume=True)


def test_other_weights_do_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from safetensors.torch import save_file

    from erf.models import create_model

    for seed, stops in ((0, True), (1, False)):
        save_file(create_model("gmic", seed=seed).state_dict(), "w.safetensors")
        if stops:
            process = command(tmp_path, "--weights", "w.safetensors")
            wait_for(tmp_path / ".gmic.h5.progress" / "1-of-1" / "state.json", process)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=600)
            assert process.returncode == 143
    refused = call("--weights", "w.safetensors", "--resume")
    assert refused.exit_code == 2
    assert "weights sha256" in refused.stderr


def test_a_full_disk_keeps_the_progress_before(whole: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    with pytest.raises(InterruptedRunError):
        run(tmp_path, 3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "progress").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    sums = len(next(content for name, content in before.items() if name.startswith("running")))
    for limit, in_memory in ((0, False), (1000, False), (1000, True), (sums // 2, True), (sums - 1, True)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(OutputError, match=r"cannot be (written|set aside)"):
                run(tmp_path, resume=True, in_memory=in_memory)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert os.listdir(tmp_path) == ["progress"]
        after = {path.name: path.read_bytes() for path in (tmp_path / "progress").iterdir()}
        assert after | before == after  # beside files that nobody names yet, all is as it was
    run(tmp_path, resume=True)
    for name in TAPS:
        assert contents(tmp_path / f"{name}.h5") == whole[name]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    for folder in ("/proc/self", str(tmp_path / "nowhere")):
        result = CliRunner().invoke(app, [*WORDS, "-o", f"{folder}/a.h5"])
        assert result.exit_code == 2
        (line,) = result.stderr.strip().splitlines()
        assert "cannot be written" in line
