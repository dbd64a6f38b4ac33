"""Whatever an option is given: the command does its work or ends with one line, and nobody sees a traceback."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import erf
from erf.cli import app
from erf.cli.console import INTERNAL, report_unforeseen

ERF: Any = get_command(app)

NETWORK = """
from torch import nn

def make(channels=2, **_):
    return nn.Sequential(nn.Conv2d(1, channels, 3, 2, 1), nn.ReLU(), nn.Conv2d(channels, 2, 3, padding=1))
"""
SMALL = ["-m", "net.py:make", "--size", "24x32"]
COMPUTE = ["compute", *SMALL, "-n", "2", "--device", "cpu", "--workers", "0", "--no-picture"]
TRAIN = [
    "train", "-m", "gmic", "--size", "32x32", "-n", "8", "--split", "50:25:25", "--stages", "image", "--set", "epochs=1",
    "--device", "cpu", "--workers", "0",
]  # fmt: skip
BASE = {
    "compute": [*COMPUTE, "-o", "out.h5", "--overwrite"],
    "merge": ["merge", "part1.h5", "part2.h5", "-o", "out.h5", "--overwrite"],
    "anonymise": ["anonymise", "a.h5", "-o", "out.h5", "--overwrite"],
    "compare": ["compare", "a.h5", "b.h5", "--resamples", "100", "-o", "out.csv", "--overwrite"],
    "plot": ["plot", "a.h5", "-o", "out.svg", "--layout", "radial", "--subsets", "all", "--overwrite"],
    "report": ["report", "a.h5", "--resamples", "100", "-o", "out.html", "--overwrite"],
    "show": ["show", "a.h5"],
    "models": ["models", "gmi*"],
    "layers": ["layers", *SMALL],
    "theory": ["theory", *SMALL],
    "check": ["check", *SMALL],
    "bench": ["bench", *SMALL, "--device", "cpu"],
    "train": [*TRAIN, "-o", "out", "--overwrite"],
    "evaluate": ["evaluate", "nothing.csv", "--draws", "100"],
    "atlas": ["atlas", "a.h5", "-o", "atlas", "--device", "cpu", "-n", "2", "--size", "24x32"],
    "import": ["import", "map.npy", "-o", "out.h5", "--overwrite"],
    "explore": ["explore", *SMALL, "-n", "2", "--device", "cpu", "--no-open"],
    "protocols": ["protocols", "replknet"],
    "manifest": ["manifest", ".", "-o", "out.csv", "--overwrite"],
}
"""A command of each kind that works, but for those that would need a training or a data set."""

NASTY = ("", "nan", "-1", "9" * 5000, "\0\x1b[31m[/b]", "a,a", ",", "ü=[[", "a" * 300, "0x0", "/dev/null", "\udcff")
NUMBERS = ("", "9" * 5000, "nan", "9" * 25, "-1", "1e999", "9" * 400)
FURTHER = {
    "--unit": (
        "pixel:1e999,0",
        "pixel:1e,e",
        "grid:" + "9" * 5000 + "x1",
        "9" * 5000 + ",0",
        "column:",
        "grid:0x0",
        "window:0x0",
        "mask:",
    ),
    "--channel": ("9" * 30, "-1", "²"),
    "--fit": ("crop:nan", "crop:-1", "pad:0.5"),
    "--normalise": ("1/0", "nan/nan", "1,2/1", "auto"),
    "--center": ("nan,0", "1e999,1", "1"),
    "--protocol": ("../x.toml", "replknet.toml"),
    "--layer": ("[", "output:9", "all,all"),
    "--size": ("9" * 5000 + "x1", "²x²", "99999999x99999999"),
    "--split": ("nan:1:1", "0:0:0", "inf:1:1"),
    "--definitions": ("abs,abs", "all,abs"),
    "--shard": ("0/0", "3/2", "1/" + "9" * 5000),
    "--set": ("epochs=nan", "epochs=-1", "batch_size=0", "lr='x'", "optimiser=[]"),
    "--model-arg": ("channels=-1", "channels=None", "seed=1", "__class__=1"),
    "--method-arg": ("n_steps=-1", "n_steps=x"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    before = Path.cwd()
    os.chdir(folder)
    Path("net.py").write_text(NETWORK)
    np.save("map.npy", np.arange(48.0).reshape(8, 6))
    for name, *options in (("a",), ("b", "--mirror"), ("part1", "--shard", "1/2"), ("part2", "--shard", "2/2")):
        result = CliRunner().invoke(app, [*COMPUTE, *options, "-o", f"{name}.h5"])
        assert result.exit_code == 0, result.output
    os.chdir(before)
    return folder


def words_with(command: str) -> list[list[str]]:
    """The command's words with each option in turn, with values that are odd for it and some of those odd for all."""
    found = []
    for place, parameter in enumerate(ERF.commands[command].params):
        base = list(BASE[command])
        option = max(parameter.opts, key=len)
        if parameter.name == "help":
            continue
        if getattr(parameter, "is_flag", False):
            continue
        number = getattr(parameter, "bare_type", str) in (int, float)
        any_option = NUMBERS if number else NASTY
        values = (*FURTHER.get(option, ()), *(any_option[(place + step) % len(any_option)] for step in (0, 5)))
        if parameter.param_type_name == "argument":
            found += [[*base, "--", value] for value in values]
            continue
        if option in base:
            del base[base.index(option) : base.index(option) + 2]
        found += [[*base, f"{option}={value}"] if option[1] == "-" else [*base, option, value] for value in values]
    return found


def test_every_command_is_tried() -> None:
    assert BASE.keys() == ERF.commands.keys()


@pytest.mark.parametrize("command", BASE)
def test_no_value_of_an_option_gives_a_traceback(command: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(erf.Explorer, "is_running", False)  # else it would wait for its user
    assert erf.load("a.h5").count() == 2
    wrong = []
    for words in words_with(command):
        result = CliRunner().invoke(app, words)
        error, code = result.exception, result.exit_code
        if error is not None and not isinstance(error, SystemExit):
            code = report_unforeseen(error) if isinstance(error, Exception) else INTERNAL
        is_told = isinstance(error, OSError | MemoryError) or "erf: " in result.stderr or "Usage: " in result.stderr
        if code not in (0, 2, 3) or (code == 2 and not is_told and command != "check"):
            wrong.append(f"{' '.join(words)[:300]!a}: {code}, {error!r:.200}")
    assert not wrong, "\n".join(wrong)
