"""Chunks that are compressed beside HDF5 are those that HDF5 reads."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from erf.storage.compression import CHUNK, write_compressed
from erf.storage.format import COMPRESSION


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8"])
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 5), (CHUNK, CHUNK), (CHUNK + 1, 2 * CHUNK - 1), (600, 3), (700,), (5, 300, 2)]
)
def test_what_is_read_is_what_was_written(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    array = (np.random.default_rng(0).standard_normal(shape) * 100).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write_compressed(file, "ours", array)
        file.create_dataset("theirs", data=array, chunks=file["ours"].chunks, **COMPRESSION)
    with h5py.File(tmp_path / "a.h5") as file:
        ours, theirs = file["ours"], file["theirs"]
        assert np.array_equal(ours[()], array)
        assert (ours.compression, ours.compression_opts, ours.shuffle) == ("gzip", 1, True)
        assert ours.dtype == theirs.dtype
        # Chunks are stored whole, padded with zeros by us and with what memory holds by HDF5.
        assert ours.id.get_storage_size() <= theirs.id.get_storage_size() * 1.1 + 100


def test_an_array_that_is_not_contiguous(tmp_path: Path) -> None:
    array = np.arange(300.0 * 280).reshape(300, 280)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, each in (
            ("turned", array.T),
            ("every other", array[::2, 1::3]),
            ("still", np.broadcast_to(array[0], (270, 280))),
        ):
            assert np.array_equal(write_compressed(file, name, each)[()], each)
