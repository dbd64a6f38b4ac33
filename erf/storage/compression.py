"""Compression of large arrays on all cores; HDF5 itself compresses chunk by chunk on a single one."""

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from erf.storage.format import COMPRESSION, GZIP_LEVEL

CHUNK = 256
"""Largest length of a chunk along each axis."""


def write_compressed(group: h5py.Group, name: str, array: NDArray[Any]) -> h5py.Dataset:
    """Create a dataset in chunks, filtered as `COMPRESSION` says.

    Args:
        group: where the dataset is made.
        name: its name in the group.
        array: values, with at least one along each axis.
    """
    shape = tuple(min(CHUNK, length) for length in array.shape)
    dataset = group.create_dataset(name, array.shape, array.dtype, chunks=shape, **COMPRESSION)
    starts = list(_starts(array.shape, shape))
    with ThreadPoolExecutor() as pool:
        for start, chunk in zip(starts, pool.map(lambda start: _chunk(array, start, shape), starts), strict=True):
            dataset.id.write_direct_chunk(start, chunk)
    return dataset


def _starts(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return product(*(range(0, length, step) for length, step in zip(shape, chunk, strict=True)))


def _chunk(array: NDArray[Any], start: tuple[int, ...], shape: tuple[int, ...]) -> bytes:
    """Bytes of one chunk: the first byte of all values, then the second, and so on, compressed."""
    part = array[tuple(slice(first, first + length) for first, length in zip(start, shape, strict=True))]
    whole = np.zeros(shape, array.dtype)  # at the far edges a chunk is stored whole
    whole[tuple(map(slice, part.shape))] = part
    shuffled = whole.reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T
    return zlib.compress(shuffled.tobytes(), GZIP_LEVEL)
