"""Commands that are killed lose nothing, double nothing, refuse nothing and leave nothing; see `tests/kills.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_kills() -> None:
    """A few in CI; all kinds with `ERF_KILLS=120`, which takes half an hour."""
    kills = os.environ.get("ERF_KILLS")
    words = ["--kills", kills] if kills else ["--kills", "4", "--kinds", "layers,merge"]
    result = subprocess.run(
        [sys.executable, "-m", "tests.kills", *words],
        cwd=ROOT, check=False, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
