"""Parts of an untrusted file: its index, whose size is limited, and sections that hold values of tensors.

Files are not memory-mapped: one that is truncated while being read would crash the process.
"""

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from math import prod
from typing import Any

import torch
from torch import Tensor

EXPECTED = "expected a safetensors file or a torch.save state dict"


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file, loaded by `read`."""

    dtype: torch.dtype | None
    """None for a tensor without plain values; `kind` then names the reason."""
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    kind: str = ""


class IndexedFile(FileIO):
    """A file with a size limit on its index (the part that names its tensors), whatever the file claims."""

    most = 2**24
    """Most bytes to read at once. Every byte of an index may become an object of about sixty bytes."""

    def read(self, count: int | None = -1) -> bytes:
        """Read like `FileIO.read`; `ValueError` beyond the size limit of an index."""
        wanted = self.most + 1 if count is None or count < 0 else min(count, self.most + 1)
        found = super().read(wanted) or b""
        if len(found) > self.most:
            raise ValueError(f"its index is longer than {self.most} bytes")
        return found

    def part(self, start: int, length: int) -> bytearray:
        """Read exactly `length` bytes, without size limit; `ValueError` if the file has fewer."""
        if not 0 <= start <= start + length <= self.state[0]:
            raise ValueError("it ends too early")
        found = bytearray(length)
        view, done = memoryview(found), 0
        self.seek(start)
        while done < length:
            count = self.readinto(view[done:])
            if not count:
                raise ValueError("it ends too early")
            done += count
        return found

    @property
    def state(self) -> tuple[int, int]:
        """(size in bytes, modification time in ns), to detect that the file was written to."""
        found = os.fstat(self.fileno())
        return found.st_size, found.st_mtime_ns


@dataclass
class Section:
    """A section of a file that holds values of tensors; positions in bytes."""

    file: IndexedFile
    start: int
    length: int
    crc: int = 0
    """CRC-32 checksum of the section; 0 if none was written."""

    @cached_property
    def is_sound(self) -> bool:
        """Whether the section matches its checksum."""
        found = 0
        for start in range(0, self.length if self.crc else 0, self.file.most):
            found = zlib.crc32(self.bytes(start, min(self.file.most, self.length - start)), found)
        return found == self.crc

    def bytes(self, start: int, length: int) -> bytearray:
        """Read bytes of the section; `ValueError` outside it."""
        if not 0 <= start <= start + length <= self.length:
            raise ValueError(f"a tensor lies outside its storage of {self.length} bytes")
        return self.file.part(self.start + start, length)

    def view(self, dtype: torch.dtype, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """Read a contiguous tensor with its own memory.

        Args:
            dtype: type of the values.
            offset: first element, in elements from the start of the section.
            shape: shape of the tensor.
            stride: stored strides, in elements.

        Raises:
            ValueError: the section is damaged or too short, or the tensor is spread over too many bytes.
        """
        if not prod(shape):
            return torch.empty(shape, dtype=dtype)
        if not self.is_sound:
            raise ValueError("its check sum is wrong; the file is damaged")
        count = 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
        if count * dtype.itemsize > max(_MOST_SPREAD * prod(shape) * dtype.itemsize, self.file.most):
            raise ValueError(f"a tensor of {shape} is spread over {count * dtype.itemsize} bytes; save a copy of it")
        values = torch.frombuffer(self.bytes(offset * dtype.itemsize, count * dtype.itemsize), dtype=dtype)
        return values.as_strided(shape, stride).clone(memory_format=torch.contiguous_format)


_MOST_SPREAD = 64
"""Largest ratio of bytes spanned to bytes used, for a tensor that was sliced from a larger one."""


def is_count(found: Any) -> bool:
    return type(found) is int and found >= 0


def no_values() -> Tensor:
    raise ValueError("a tensor in it has no plain values")
