"""Tensors that autograd saves for the backward pass, on disk instead of in memory.

The plain way of computing keeps every map of a network. Once per run, when the fast way is compared with it, time
matters less than memory.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from tempfile import TemporaryFile

import torch
from torch import Tensor

SMALLEST = 4 * 2**20
"""Bytes above which a tensor is written to a file."""


@dataclass(frozen=True)
class _Spilled:
    """A tensor in a file."""

    file: FileIO
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor, file: FileIO) -> "_Spilled":
        offset = file.seek(0, os.SEEK_END)
        left = _bytes(tensor.detach().contiguous())
        while left:  # one call writes as much as the disk takes, and at most 2 GB
            left = left[file.write(left) :]
        return cls(file, offset, tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def tensor(self) -> Tensor:
        found = torch.empty(self.shape, dtype=self.dtype)
        self.file.seek(self.offset)
        left = _bytes(found)
        while left:
            left = left[self.file.readinto(left) :]
        if found.stride() == self.stride:
            return found
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype).copy_(found)


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.view(-1).view(torch.uint8).numpy().data


@contextmanager
def saved_on_disk(smallest: int = SMALLEST) -> Iterator[None]:
    """Context manager that keeps large tensors saved by autograd on disk; those without room stay in memory."""
    with (
        TemporaryFile(buffering=0) as file,
        torch.autograd.graph.saved_tensors_hooks(partial(_pack, file=file, smallest=smallest), _unpack),
    ):
        yield


@dataclass(frozen=True)
class _Kept:
    """A tensor that stays in memory; with hooks, autograd does not check itself for changes in place."""

    kept: Tensor
    version: int

    @classmethod
    def of(cls, tensor: Tensor) -> "_Kept":
        return cls(tensor, tensor._version)

    def tensor(self) -> Tensor:
        if self.kept._version != self.version:
            raise RuntimeError("a tensor that the backward pass needs was modified by an inplace operation")
        return self.kept


def _pack(tensor: Tensor, file: FileIO, smallest: int) -> "_Kept | _Spilled":
    is_plain = type(tensor) is Tensor and tensor.layout is torch.strided and tensor.device.type == "cpu"
    # An expanded tensor, with strides of 0, takes less memory than a copy of it.
    if not is_plain or tensor.nbytes < max(smallest, 1) or 0 in tensor.stride():
        return _Kept.of(tensor)
    try:
        return _Spilled.of(tensor, file)
    except OSError:
        return _Kept.of(tensor)


def _unpack(saved: "_Kept | _Spilled") -> Tensor:
    return saved.tensor()
