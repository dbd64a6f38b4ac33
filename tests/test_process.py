"""Signals, streams, limits and the working folder: whatever a command is started with, it says one line at most."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from erf.results import ERF
from erf.storage import save

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shells, signals and limits of POSIX")


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line in which $ERF is the command."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ERF": f"{sys.executable} -m erf"}
    return subprocess.run(
        ["sh", "-c", line], check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_closed_streams_are_empty_and_hold_no_file(small_erf: ERF, tmp_path: Path) -> None:
    """With standard output closed, the result would be opened in its place."""
    save(small_erf, tmp_path / "a.h5")
    done = shell("$ERF compare a.h5 a.h5 --resamples 100 --measures r50 -o a.csv <&- >&- 2>&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a.csv").read_text().startswith("label,model,")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_results_are_written_where_nothing_can_be_printed(small_erf: ERF, tmp_path: Path) -> None:
    save(small_erf, tmp_path / "a.h5")
    done = shell("$ERF compare a.h5 a.h5 --resamples 100 --measures r50 -o a.csv >/dev/full", tmp_path)
    assert done.returncode == 2
    assert "standard output cannot be written" in done.stderr.splitlines()[0]
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "a.h5"]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    done = shell("mkdir x && cd x && rmdir ../x && $ERF models", tmp_path)
    assert done.returncode == 2
    assert "erf: the working folder cannot be used" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_memory_that_does_not_hold_the_libraries(tmp_path: Path) -> None:
    done = shell("ulimit -v 200000; $ERF layers -m gmic", tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "may take 195 MB of memory (ulimit -v), expected at least 512" in done.stderr


LOADING = """
import signal
import time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
from erf.process import prepare
prepare()
print("ready", flush=True)
from erf.cli import main
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_libraries_are_loaded(number: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", LOADING], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert told == "erf: interrupted; no incomplete result was written\n"
