"""Files that nobody vouches for, opened so that nothing but a regular file of reasonable size is ever read."""

import errno
import os
import stat
from pathlib import Path

MAX_BYTES = 1 << 30
"""Of an image file; several times the largest that a detector gives."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: Path, limit: int = MAX_BYTES) -> None:
    """Raise `OSError` for anything but a regular file, or a link to one, of at most `limit` bytes."""
    _check(os.stat(path), limit)


def read_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file; `OSError` for anything else, and for more than `limit` bytes."""
    check_regular(path, limit)  # before it is opened: opening alone can block, or wind a tape back
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        found = os.fstat(file.fileno())
        _check(found, limit)  # what the name stood for may have been replaced
        return file.read(found.st_size)


def _check(found: os.stat_result, limit: int) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"found {_KINDS.get(kind, 'no file')}")
    if found.st_size > limit:
        raise OSError(errno.EFBIG, f"found {found.st_size / 1e6:.0f} MB, at most {limit / 1e6:.0f} MB are read")
