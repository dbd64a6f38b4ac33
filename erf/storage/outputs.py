"""Checks of the files that a command will write, made before the work begins."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from erf.errors import InputError, OutputError, OutputExistsError
from erf.storage.files import check_replaceable, unwritable

_NAME_BYTES = 255
_HIDDEN_BYTES = 40
"""Bytes that the names of temporary files add to the name of a result."""


def check_outputs(outputs: Sequence[Path], suffixes: Sequence[str] = ()) -> None:
    """Raise `InputError` or `OutputError` where one of some files cannot be written, whatever its content will be.

    Links are refused: what they lead to, or the link itself, would be replaced.
    """
    places: set[str] = set()
    for path in outputs:
        _check_name(path, suffixes)
        try:
            _check_place(path)
            place = os.path.realpath(path).casefold()  # on some disks, A.h5 and a.h5 are one file
        except OSError as error:
            raise error if isinstance(error, OutputError) else unwritable(path, error) from error
        if place in places:
            raise InputError(f"{path} is named twice as an output; expected a file of its own for each")
        places.add(place)


def check_folder(path: Path) -> None:
    """Raise `InputError` or `OutputError` where a folder of results cannot be made or filled."""
    _check_text(path)
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is no folder; choose another name")
        nearest = next(each for each in (path, *path.parents) if each.exists())
    except OSError as error:
        raise error if isinstance(error, OutputError) else unwritable(path, error) from error
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise OutputError(f"{path} cannot be written (no right to write in {nearest}); choose another folder")


def check_new(outputs: Iterable[Path], overwrite: bool) -> None:
    """Raise `OutputExistsError` where one of some files exists, unless it may be replaced."""
    taken = [] if overwrite else [path for path in outputs if path.exists()]
    if taken:
        raise OutputExistsError(f"{taken[0]} exists")


def check_no_input(outputs: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Raise `OutputError` where an output is one of the files that are read, by whatever name or link."""
    taken = {key: path for path in outputs if (key := _identity(path)) is not None}
    if not taken:
        return
    for path in inputs:
        key = _identity(path)
        if key is not None and key in taken:
            raise OutputError(f"{taken[key]} is one of the inputs ({path}); choose another name")


def check_not_within(outputs: Iterable[Path], folder: Path, suffixes: Sequence[str]) -> None:
    """Raise `OutputError` where an output would replace a file of such suffixes in a folder of inputs."""
    root = os.path.realpath(folder)
    for path in outputs:
        is_inside = os.path.realpath(path).startswith(root + os.sep)
        if is_inside and path.suffix.lower() in suffixes and path.exists():
            raise OutputError(f"{path} is one of the inputs, in {folder}; choose another name")


def _check_name(path: Path, suffixes: Sequence[str]) -> None:
    _check_text(path)
    size = len(path.name.encode())
    if path.name in ("", ".", ".."):
        raise InputError(f"output {str(path)!a} is no name of a file; expected one such as result{_first(suffixes)}")
    if size > _NAME_BYTES - _HIDDEN_BYTES:
        raise InputError(f"output {path.name[:20]}…: a name of {size} bytes; expected at most {_longest()}")
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: suffix '{path.suffix}' not known; expected one of {', '.join(suffixes)}")


def _check_text(path: Path) -> None:
    try:
        path.as_posix().encode()
    except UnicodeEncodeError as error:
        raise InputError(f"output {str(path)!a} is not UTF-8; choose another name") from error
    if "\0" in str(path):
        raise InputError(f"output {str(path)!a} has a zero byte; choose another name")


def _first(suffixes: Sequence[str]) -> str:
    return suffixes[0] if suffixes else ""


def _longest() -> int:
    return _NAME_BYTES - _HIDDEN_BYTES


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        path.parent.stat()  # which says what is wrong
        raise OutputError(f"{path.parent} is no folder; choose one that exists")
    check_replaceable(path)
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path} cannot be written (no right to write in {path.parent}); choose another folder")


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Return the device and inode, shared by all names and links of a file; None if it does not exist."""
    try:
        found = path.stat() if path is not None else None
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if found else None
