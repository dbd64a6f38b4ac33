"""Runs in parts, by shards and by processes: the whole is that of a single run but for rounding."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import erf
from erf.accumulation.merging import merge
from erf.cli import app
from erf.engine import compute
from erf.images import from_arrays
from erf.measures import observe
from erf.results import ERF
from tests.agreement import assert_gradients_agree
from tests.conftest import SMALL_RUN, small_network

ROOT = Path(__file__).parent.parent
SIDES = ["left", "right", "left", "", "right", "left", "right", "right", "left", "left", "", "right"]


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    found = [rng.standard_normal((1, 40, 32)) for _ in SIDES]
    found[6][0, 0, 0] = np.nan  # one that cannot be used
    return found


def run(part: tuple[int, int] = (1, 1)) -> ERF:
    images = from_arrays(arrays(), SIDES)
    chosen = images if part == (1, 1) else images.shard(*part)
    return compute(small_network(), chosen, layer="5", definitions=("abs", "signed"), device="cpu", batch_size=1)


def assert_alike(one: ERF, two: ERF) -> None:
    assert [record.id for record in one.images] == [record.id for record in two.images]
    assert list(one.subsets) == list(two.subsets)
    for subset in two.subsets:
        for definition in two.provenance.definitions:
            ours, other = one.statistics(subset, definition), two.statistics(subset, definition)
            assert ours.count == other.count
            assert ours.mean.dtype == other.mean.dtype == np.float32
            for name in ("mean", "variance", "across_rows", "across_columns"):  # merged in float64
                assert_gradients_agree(getattr(ours, name), getattr(other, name), rtol=1e-12, rounding=1e-17)
    for name in ("small", "across_rows", "across_columns"):
        np.testing.assert_array_equal(getattr(observe(one), name), getattr(observe(two), name))


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_merged_shards_are_the_whole(count: int) -> None:
    whole, shards = run(), []
    for index in range(1, count + 1):
        try:
            shards.append(run((index, count)))
        except erf.ImageError:
            assert count == 12  # a shard that holds nothing but the image that cannot be used
    merged = merge(shards[::-1], allow_missing=count == 12)
    assert merged.count() == whole.count() == 11
    if count == 12:  # but for the record of the image that cannot be used
        assert_gradients_agree(merged.statistics().mean, whole.statistics().mean, rtol=1e-12, rounding=1e-17)
        return
    assert merged.provenance.shard == (1, 1)
    assert_alike(merged, whole)


def test_what_cannot_be_merged() -> None:
    one, two, other = run((1, 3)), run((2, 3)), run((1, 2))
    for shards, message in (
        ([], "nothing to merge"),
        ([one, two], "shards 3 of 3 are missing; add them, or ask for `allow_missing`"),
        ([one, other], "shards of 2 and 3"),
        ([one, one, two, run((3, 3))], "is in two of the files"),
        ([one, replace(two, provenance=replace(two.provenance, layer="2"))], "differ in layer 5 and 2"),
        ([one, replace(two, provenance=replace(two.provenance, seed=1))], "differ in seed 0 and 1"),
    ):
        with pytest.raises(erf.InputError, match=message):
            merge(shards)
    assert merge([one, two], allow_missing=True).count() == one.count() + two.count()


def test_shards_take_every_image_once() -> None:
    images = from_arrays(arrays(), SIDES)
    parts = [images.shard(index, 5) for index in range(1, 6)]
    assert sorted(image.number for part in parts for image in part.images) == list(range(12))
    for index, count, message in ((0, 3, "expected a number from 1 to 3"), (1, 13, "13 shards of 12 images")):
        with pytest.raises(erf.InputError, match=message):
            images.shard(index, count)


WORDS = [*SMALL_RUN, "-n", "11", "--batch-size", "1"]


def call(*words: str) -> Result:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def test_shards_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*WORDS, "--no-picture", "-o", "whole.h5").exit_code == 0
    for index in (1, 2, 3):
        words = [*WORDS, "--no-picture", "--shard", f"{index}/3", "-o", f"part{index}.h5"]
        assert call(*words).exit_code == 0
    merged = call("merge", "part1.h5", "part2.h5", "part3.h5", "-o", "merged.h5")
    assert merged.exit_code == 0
    assert "written: merged.h5" in merged.stdout
    assert_alike(erf.load("merged.h5"), erf.load("whole.h5"))
    for refused, message in (
        (["merge", "part1.h5", "part2.h5", "-o", "m.h5"], "shards 3 of 3 are missing"),
        (["merge", "part1.h5", "part2.h5", "-o", "part1.h5"], "is one of the inputs"),
        (["merge", "part1.h5", "part2.h5", "part3.h5", "-o", "merged.h5"], "merged.h5 exists"),
        ([*WORDS, "--shard", "4/3", "-o", "m.h5"], "expected a number from 1 to 3"),
        ([*WORDS, "--shard", "two", "-o", "m.h5"], "shard 'two' not understood"),
        ([*WORDS, "--shard", "1/2", "--until", "0.1", "-o", "m.h5"], "a shard cannot tell"),
    ):
        result = call(*refused)
        assert result.exit_code == 2
        assert message in result.stderr
    assert not Path("m.h5").exists()


def torchrun(folder: Path, *words: str, count: int = 2, every: float = 30.0) -> "subprocess.Popen[str]":
    program = folder / "program.py"
    program.write_text(
        f"import erf.storage.checkpoint\nerf.storage.checkpoint.EVERY = {every}\nfrom erf.cli import main\nmain()\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.Popen(
        [*launcher, str(program), *WORDS, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def listed(folder: Path) -> Sequence[str]:
    return sorted(name for name in os.listdir(folder) if name != "program.py")


def test_two_processes_make_one_file(tmp_path: Path) -> None:
    code, output = finish(torchrun(tmp_path))
    assert code == 0, output
    assert listed(tmp_path) == ["gmic.h5", "gmic.png"]
    assert output.count("written: gmic.h5, gmic.png") == 1
    (tmp_path / "alone").mkdir()
    result = CliRunner().invoke(app, [*WORDS, "--no-picture", "-o", str(tmp_path / "alone" / "gmic.h5")])
    assert result.exit_code == 0
    assert_alike(erf.load(tmp_path / "gmic.h5"), erf.load(tmp_path / "alone" / "gmic.h5"))


def test_a_process_that_dies_fails_the_job_and_what_was_done_is_kept(tmp_path: Path) -> None:
    process = torchrun(tmp_path, "-n", "120", "--no-picture", every=0.0)
    waiting = [tmp_path / ".gmic.h5.progress" / f"{rank}-of-2" / "state.json" for rank in (1, 2)]
    for _ in range(1200):
        if all(path.exists() for path in waiting):
            break
        time.sleep(0.05)
    workers = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(workers[1]), signal.SIGKILL)
    code, output = finish(process)
    assert code != 0, output
    assert all(path.exists() for path in waiting)
    assert "gmic.h5" not in listed(tmp_path)
    code, output = finish(torchrun(tmp_path, "-n", "120", "--no-picture", "--resume", every=0.0))
    assert code == 0, output
    assert listed(tmp_path) == ["gmic.h5"]
    assert erf.load(tmp_path / "gmic.h5").count() == 120
