"""The benchmark by hand: what it runs, what it measures, and what it prints. How long things take is not tested."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.commands import Command, command_sides, per_image
from benchmarks.sources import SOURCES, location, write_sources
from benchmarks.turns import Cost, running, show, take_turns
from erf.images import draw_phantom, load_images
from tests.visits import visit_and_hold

SIZE = (64, 48)

STAND_IN = """
import json, sys, time
from pathlib import Path

images = int(sys.argv[sys.argv.index("-n") + 1])
start = time.process_time()
while time.process_time() < start + 0.1 * images:
    pass
kept = bytearray(40_000_000 * images)
with (Path(__file__).parents[1] / "calls").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
"""
"""A package that takes 0.1 s of CPU time and 40 MB for each image."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree of the stand-in."""
    package = tmp_path / "other" / "erf"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    return package.parent


def calls(tree: Path) -> list[list[str]]:
    return [json.loads(line) for line in (tree / "calls").read_text().splitlines()]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_files_of_every_source_hold_the_same_phantoms(tmp_path: Path) -> None:
    write_sources(tmp_path, SOURCES, SIZE, (1, 3))
    for source, lost in (("png", 0), ("npy", 0), ("dicom", 4)):
        for n in (1, 3):
            images = load_images(location(tmp_path, source, n), n=10, size=SIZE).images
            assert len(images) == n
            found = sorted((image.path, image.decode().pixels[0].astype(int), image.laterality) for image in images)
            for index, (_, pixels, laterality) in enumerate(found):
                phantom = draw_phantom(index, size=SIZE)
                np.testing.assert_array_equal(pixels, phantom.pixels >> lost)
                assert laterality == phantom.laterality
    assert location(tmp_path, "phantoms", 3) == "phantom"


def test_a_command_costs_what_it_alone_uses(tree: Path) -> None:
    held = np.ones(40_000_000)  # more than the command holds
    cost = Command("gmic", SIZE, tree).run("phantom", 3)
    assert held.nbytes > 0.3e9
    assert cost.cpu >= 0.3
    assert 0.12 < cost.peak < 0.2
    (words,) = calls(tree)
    assert words[0] == "compute"
    found = [option(words, name) for name in ("--model", "--size", "--images", "-n")]
    assert found == ["gmic", "64x48", "phantom", "3"]


def test_a_command_that_fails_ends_the_benchmark(tree: Path) -> None:
    (tree / "erf" / "__main__.py").write_text("raise SystemExit('out of order')")
    with pytest.raises(RuntimeError, match="out of order"):
        Command("gmic", SIZE, tree).run("phantom", 1)


def test_the_cost_of_an_image_is_what_a_longer_run_adds(tree: Path, tmp_path: Path) -> None:
    assert per_image(Cost(5.0, 9.0, 1.5), Cost(8.0, 10.5, 2.5), 6) == Cost(0.5, 0.25, 2.5)
    sides = command_sides("gmic", SIZE, tmp_path, ["npy", "phantoms"], (3, 1), {"": tree})
    found = take_turns(sides, 1)
    assert list(found) == ["npy", "phantoms"]
    for cost in found.values():
        assert cost.cpu > 0.05
        assert 0.12 < cost.peak < 0.2
    images = [(option(words, "--images"), option(words, "-n")) for words in calls(tree)]
    assert images == [*((str(tmp_path / "npy" / n), n) for n in "13"), ("phantom", "1"), ("phantom", "3")]


def test_a_loop_is_visited_once_before_it_counts_and_holds_what_it_alone_does() -> None:
    assert np.ones(40_000_000).nbytes > 0.3e9
    with running(visit_and_hold, False) as side:
        first = side()
    assert 0.09 < first.peak - first.base < 0.2


def test_a_loop_that_dies_ends_the_waiting() -> None:
    with pytest.raises(EOFError), running(visit_and_hold, True):
        pytest.fail("it was said to be ready")


def test_medians_of_time_and_the_largest_memory_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter([Cost(9.0, 8.0, 1.0, 0.5), Cost(1.0, 3.0, 2.0, 0.5), Cost(2.0, 4.0, 1.5, 0.5)])
    found = take_turns({"loop": lambda: next(answers)}, 3) | {"npy": Cost(0.5, 0.0, 1.25)}
    assert found["loop"] == Cost(2.0, 4.0, 2.0, 0.5)
    show("gmic", found, "loop")
    loop, npy = capsys.readouterr().out.splitlines()
    assert re.findall(r"[\d.]+", loop) == ["2.000", "4.000", "2.00", "1.50"]
    assert re.findall(r"[\d.]+|nan", npy) == ["0.500", "0.000", "1.25", "4.00", "nan"]


def test_the_real_command_takes_these_words() -> None:
    cost = Command("gmic", SIZE).run("phantom", 1)
    assert cost.cpu > 0
    assert cost.peak > 0.1


def test_rows_of_commands_and_jobs(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "OWN_TREE", tree)
    commands = ["--commands", "gmic", "--sources", "npy", "--short", "1", "--long", "3"]
    jobs = ["--jobs", "hct", "--images", "2", "--against", str(tree)]
    compare.main(["--networks", "--files", *commands, *jobs, "--size", "64x48", "--rounds", "1"])
    _, plain, *rows = capsys.readouterr().out.splitlines()
    assert "above base" in plain
    for row in (plain, *rows[:2]):
        assert row.startswith("gmic 64x48, whole command ")
    for row in rows[:2]:
        (seconds,) = re.findall(r"([\d.]+) s CPU", row)
        assert float(seconds) > 0.05
        assert " times plain, " in row
    assert [re.split(" {3,}", row)[1] for row in rows] == ["npy", "npy, against", "job", "job, against"]
    assert rows[2].startswith("hct 64x48, 2 phantoms ")
    assert " times job, against, " in rows[2]
    found = [(option(words, "--model"), option(words, "-n")) for words in calls(tree)]
    assert found == 2 * [("gmic", "1"), ("gmic", "3")] + 2 * [("hct", "2")]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--against", "."], "holds no erf/__main__.py"),
        (["--short", "4", "--long", "4"], "expected a long run of more images"),
    ],
)
def test_odd_options_are_refused(
    words: list[str],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        compare.main(words)
    assert complaint in capsys.readouterr().err
