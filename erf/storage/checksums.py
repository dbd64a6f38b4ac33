"""Checksums appended to a file after its HDF5 content, so that damage anywhere is detected.

A file ends with the CRC-32 of each block of its HDF5 content, and a footer. HDF5 ignores them, and removes them when it
changes the file. A block is checked when first read, so that reading part of a large file costs that part only.
"""

import io
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from erf.errors import FormatError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BLOCK = 1 << 16
_FOOTER = struct.Struct("<8sIQI")
"""Magic bytes, block size, content size, and CRC-32 of the table and the footer up to this field."""
_MARK = b"ERFSUMS1"


def append_sums(path: Path) -> None:
    """Append checksums to a complete file, and flush it to disk."""
    with path.open("r+b") as file:
        table, length = bytearray(), 0
        while block := file.read(_BLOCK):
            table += zlib.crc32(block).to_bytes(4, "little")
            length += len(block)
        file.write(table + _footer(bytes(table), _BLOCK, length))
        file.flush()
        os.fsync(file.fileno())


def _footer(table: bytes, block: int, length: int) -> bytes:
    start = _FOOTER.pack(_MARK, block, length, 0)[:-4]
    return start + zlib.crc32(table + start).to_bytes(4, "little")


class SummedFile(io.RawIOBase):
    """Read-only file that verifies its bytes against checksums; `damage` describes the first mismatch.

    Args:
        path: Name of the file in messages.
        file: The file, from `open_regular`.

    Raises:
        FormatError: The checksums are damaged.
    """

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        self.damage = ""
        self._path = path
        self._file = file
        self._size = self._file.seek(0, io.SEEK_END)
        self._block, self._sums = _BLOCK, b""
        self._place = 0
        try:
            self._read_sums()
        except FormatError:
            self._file.close()
            raise
        self._checked = bytearray(len(self._sums) // 4)

    @property
    def has_sums(self) -> bool:
        return bool(self._sums)

    def _read_sums(self) -> None:
        """Read the footer and the table, and exclude them from the file's size."""
        if self._size < _FOOTER.size:
            return
        self._file.seek(self._size - _FOOTER.size)
        footer = self._file.read(_FOOTER.size)
        mark, block, length, _ = _FOOTER.unpack(footer)
        if mark != _MARK:
            return
        table = b""
        if block == _BLOCK and length + 4 * -(-length // block) + _FOOTER.size == self._size:
            self._file.seek(length)
            table = self._file.read(self._size - _FOOTER.size - length)
        if not table or _footer(table, block, length) != footer:
            raise FormatError(f"{self._path}: its integrity sums are damaged; copy it again from where it came from")
        self._size, self._sums = length, table

    def readinto(self, buffer: "Buffer") -> int:
        """Read verified bytes; raise `OSError` at the first block that differs from its checksum."""
        view = memoryview(buffer).cast("B")
        start, end = self._place, min(self._place + len(view), self._size)
        if start >= end:
            return 0
        for number in range(start // self._block, -(-end // self._block)) if self._sums else ():
            self._check(number)
        self._file.seek(start)
        count = self._file.readinto(view[: end - start])
        self._place += count
        return count

    def _check(self, number: int) -> None:
        if self._checked[number]:
            return
        start = number * self._block
        self._file.seek(start)
        found = zlib.crc32(self._file.read(min(self._block, self._size - start)))
        if found != int.from_bytes(self._sums[4 * number : 4 * number + 4], "little"):
            self.damage = self.damage or f"bytes {start} to {start + self._block - 1} differ from their integrity sum"
            raise OSError(self.damage)
        self._checked[number] = 1

    def check(self) -> None:
        """Verify every block; raise `OSError` if one differs from its checksum."""
        for number in range(len(self._checked)):
            self._check(number)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading; raise `FormatError` unless it is a regular file, as a pipe would never end."""
    try:
        # Non-blocking: the other end of a pipe may never open.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise FormatError(f"{path}: may not be read ({error.strerror}); ask for its rights") from error
        raise FormatError(f"{path}: no such file; expected an ERF file") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise FormatError(f"{path}: found a folder, pipe or device; expected an ERF file")
    return open(number, "rb")


def check_sums(path: str | Path) -> bool:
    """Verify all checksums of a file and return whether it has any; raise `FormatError` if it is damaged."""
    with SummedFile(Path(path), open_regular(Path(path))) as file:
        try:
            file.check()
        except OSError as error:
            raise FormatError(f"{path}: damaged ({error}); copy it again from where it came from") from error
        return file.has_sums
