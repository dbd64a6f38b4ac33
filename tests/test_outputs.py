"""What stands against an output is found before the work; results of one command appear together or not at all."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from erf.errors import CheckpointError, InputError, LockedError, OutputError, OutputExistsError, UnfinishedRunError
from erf.plotting import plot
from erf.results import ERF
from erf.storage.files import check_free, complete_file
from erf.storage.outputs import check_no_input, check_outputs
from erf.storage.series import Moment, Series, save_series
from erf.storage.staging import Staging
from erf.training.folder import Folder, State


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is no name of a file"),
        (".", "is no name of a file"),
        ("/", "is no name of a file"),
        ("..", "is no name of a file"),
        ("a\0.h5", "zero byte"),
        ("\udcff.h5", "not UTF-8"),
        ("n" * 300 + ".h5", "a name of 303 bytes"),
        ("a.png", "suffix '.png' not known"),
        ("nowhere/a.h5", "No such file or directory"),
        ("file/a.h5", "is no folder"),
        ("folder.h5", "is a folder"),
        ("pipe.h5", "is no regular file"),
        ("dangling.h5", "is a link to nowhere.h5"),
        ("link.h5", "is a link to file"),
        ("/dev/null.h5/a.h5", "No such file|is no folder"),
    ],
)
def test_names_that_cannot_be_written(name: str, message: str) -> None:
    Path("file").write_text("precious")
    Path("folder.h5").mkdir()
    os.mkfifo("pipe.h5")
    Path("dangling.h5").symlink_to("nowhere.h5")
    Path("link.h5").symlink_to("file")
    before = sorted(os.listdir())
    with pytest.raises((InputError, OutputError), match=message):
        check_outputs([Path(name)], (".h5",))
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("second", ["a.h5", "./a.h5", "x/../a.h5", "A.h5"])
def test_one_file_is_not_written_twice(second: str) -> None:
    Path("x").mkdir()
    with pytest.raises(InputError, match="named twice"):
        check_outputs([Path("a.h5"), Path(second)])


def test_inputs_are_known_by_whatever_name() -> None:
    Path("a.h5").write_text("precious")
    os.link("a.h5", "hard.h5")
    Path("soft.h5").symlink_to("a.h5")
    check_no_input([Path("b.h5")], [Path("a.h5")])
    for output, source in (("a.h5", "a.h5"), ("./a.h5", "a.h5"), ("hard.h5", "a.h5"), ("a.h5", "soft.h5")):
        with pytest.raises(OutputError, match="is one of the inputs"):
            check_no_input([Path(output)], [Path("other.h5"), Path(source)])


OUTPUTS = [Path("a.h5"), Path("b.h5"), Path("a.png")]


def begin(staging: Staging) -> None:
    for path in staging.outputs:
        staging.part(path).write_text(f"new {path}")


class Killed(BaseException):
    """Stands for the end of a process: nothing is cleaned up after it."""


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_a_kill_between_renames_is_made_good(renames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from erf.storage import staging as module

    moved: list[Path] = []

    def move(part: Path, path: Path) -> None:
        if len(moved) == renames:
            raise Killed
        moved.append(path)
        os.replace(part, path)

    first = Staging(OUTPUTS)
    first.__enter__()
    first.begin({"seed": 0})
    begin(first)
    with monkeypatch.context() as patched:
        patched.setattr(module, "move", move)
        with suppress(Killed):
            first.publish()
    assert len(moved) == renames
    first._locks.popitem()[1].close()  # as the end of a process does
    with pytest.raises(UnfinishedRunError), Staging(OUTPUTS):
        pass
    with (
        pytest.raises(CheckpointError, match="is of another run: other seed 0 and 1"),
        Staging(OUTPUTS, resume=True) as it,
    ):
        it.begin({"seed": 1})
    with Staging(OUTPUTS, resume=True) as again:
        again.begin({"seed": 0})
        assert again.is_moving
        again.publish()
    assert sorted(os.listdir()) == ["a.h5", "a.png", "b.h5"]
    assert [path.read_text() for path in OUTPUTS] == [f"new {path}" for path in OUTPUTS]


@pytest.mark.parametrize("removed", [False, True], ids=["before", "after"])
def test_what_a_killed_command_left_is_cleared_and_its_results_may_be_replaced(removed: bool) -> None:
    """Killed before its folder was removed, or after."""
    first = Staging(OUTPUTS)
    first.__enter__()
    begin(first)
    first.publish()
    first._locks.popitem()[1].close()
    assert {".a.h5.progress", ".a.h5.lock"} < set(os.listdir())
    if removed:
        shutil.rmtree(".a.h5.progress")
    second = Staging(OUTPUTS)
    second.__enter__()
    assert not second.is_moving
    second._locks.popitem()[1].close()  # killed as well, before it had made anything
    with Staging(OUTPUTS) as again:
        begin(again)
        again.publish()
    assert sorted(os.listdir()) == ["a.h5", "a.png", "b.h5"]
    with pytest.raises(OutputExistsError, match=r"a\.h5 exists"), Staging(OUTPUTS):
        pass
    assert sorted(os.listdir()) == ["a.h5", "a.png", "b.h5"]


def test_two_commands_do_not_write_one_result() -> None:
    with Staging(OUTPUTS):
        with pytest.raises(LockedError, match="another run is writing"), Staging(OUTPUTS):
            pass
        assert Path(".a.h5.progress").exists()
    assert os.listdir() == []


def _save_state(_erf: ERF) -> None:
    with Folder(Path("run")) as folder:
        folder.save(State({}, model={"weight": torch.ones(50_000)}))


def _save_picture(suffix: str, erf: ERF) -> None:
    plot(erf, f"picture.{suffix}", layout="radial", subsets=["all"])


WRITERS: dict[str, Callable[[ERF], object]] = {
    "series": lambda erf: save_series(Series.of(erf, Moment.of(erf, 0)), Path("series.h5")),
    "state of a training": _save_state,
    "html": lambda erf: plot(erf, "picture.html", subsets=["all"]),
    **{suffix: partial(_save_picture, suffix) for suffix in ("png", "svg", "pdf")},
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_told_by_every_writer(name: str, small_erf: ERF) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for kilobytes in (0, 1, 8):
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, limits[1]))
        try:
            with pytest.raises(OutputError, match="cannot be written"):
                WRITERS[name](small_erf)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not [path for path in Path().rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "no regular file"),
        (lambda path: path.symlink_to("elsewhere"), "a link to elsewhere"),
        (os.mkdir, "a folder"),
    ],
)
def test_only_regular_files_are_replaced(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    place = tmp_path / "a.h5"
    make(place)
    before = os.lstat(place).st_mode
    with pytest.raises(OutputError, match=message):
        check_free(place, overwrite=True)
    with pytest.raises(OutputError, match=message), complete_file(place) as part:
        part.write_text("")
    assert os.lstat(place).st_mode == before


def test_a_finished_run_is_recognised_by_its_results_and_what_differs() -> None:
    def finished(*differences: str, **options: bool) -> bool:
        given: dict[str, Any] = {"resume": True} | options
        with Staging([Path("a.h5"), Path("a.png")], **given) as staging:
            staging.begin({"seed": 0})
            return staging.is_finished([Path("a.h5")], lambda: differences)

    assert not finished("seed")  # nothing is there to differ
    Path("a.h5").write_text("done")
    assert finished()
    with pytest.raises(OutputExistsError, match=r"^a\.h5 is of another run: other seed; layer;"):
        finished("seed", "layer", "seed")
    assert not finished("seed", overwrite=True)
    assert [entry.name for entry in Path().iterdir()] == ["a.h5"]
