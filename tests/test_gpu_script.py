"""`scripts/gpu.sh` without a GPU: how it begins, and what it says of steps that fail or have no time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "gpu.sh"


def dry_run(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "STEPS": "device", **variables}
    command = ["sh", str(SCRIPT), "--dry-run", str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_device_is_stated_and_logged(tmp_path: Path) -> None:
    done = dry_run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"all in {tmp_path}" in done.stdout
    assert "torch" in (tmp_path / "logs" / "device.log").read_text()
    assert "torch" in (tmp_path / "summary.txt").read_text()


@pytest.mark.parametrize(("variables", "words"), [({"PYTHON": "false"}, "failed"), ({"MINUTES": "0"}, "not-begun")])
def test_steps_that_are_not_done_are_named(variables: dict[str, str], words: str, tmp_path: Path) -> None:
    done = dry_run(tmp_path, STEPS="timing", **variables)
    assert done.returncode == 1
    assert f"but for timing:{words}" in done.stdout
