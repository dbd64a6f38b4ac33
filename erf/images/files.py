"""Reading of untrusted files: regular files of limited size only."""

import errno
import os
import stat
from pathlib import Path

MAX_BYTES = 1 << 30
"""Largest size of an image file in bytes; several times that of the largest detector image."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: Path, limit: int = MAX_BYTES) -> None:
    """Raise `OSError` unless a path is a regular file, or a link to one, of at most `limit` bytes."""
    _check(os.stat(path), limit)


def read_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a regular file; raise `OSError` for anything else, and for more than `limit` bytes."""
    check_regular(path, limit)  # before opening, which alone can block or rewind a tape
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        found = os.fstat(file.fileno())
        _check(found, limit)  # the file may have been replaced meanwhile
        return file.read(found.st_size)


def _check(found: os.stat_result, limit: int) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"found {_KINDS.get(kind, 'no file')}")
    if found.st_size > limit:
        raise OSError(errno.EFBIG, f"found {found.st_size / 1e6:.0f} MB, at most {limit / 1e6:.0f} MB are read")
