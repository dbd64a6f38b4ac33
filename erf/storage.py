"""ERF files: HDF5, one per run, described in docs/file-format.md.

A file appears under its name only when it is complete. Maps are read when they are asked for, so that opening a file
of hundreds of megabytes costs nothing.
"""

import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, Field, fields
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from erf.disk import PatientFile, check_free
from erf.errors import FormatError, OutputError
from erf.result import (
    ERF,
    FOOTPRINT,
    OVERVIEW,
    Footprint,
    ImageRecord,
    Overview,
    Provenance,
    Statistics,
    blank_footprint,
    blank_overview,
)

FORMAT = "erf-toolkit"
FORMAT_VERSION = 1

_CHUNK = 256
_COMPRESSION = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
_RECORD_TEXTS = ("id", "path", "laterality", "view", "patient_id", "status", "message", "sha256")
_JSON_ATTRIBUTES = ("versions", "model_options", "method_options")

T = TypeVar("T")


class FileSink:
    """Writes a run to a file as it goes; use it in a `with` block, which removes what is unfinished.

    Raises `OutputError` at once where the file cannot be written, or exists and `overwrite` was not asked for.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        check_free(self.path, overwrite)
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            self._disk = PatientFile(self._part)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error
            raise OutputError(f"{self.path} cannot be written ({reason}); choose a folder that exists") from error
        self._file = h5py.File(self._disk, "w")
        self._records: list[ImageRecord] = []

    def __enter__(self) -> "FileSink":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(Exception):  # a file that could not be written has nothing more to say
            self._file.close()
        self._disk.close()
        self._part.unlink(missing_ok=True)

    def begin(self, provenance: Provenance) -> None:
        self._provenance = provenance
        self._blank = blank_footprint(provenance)
        self._blank_overview = blank_overview(provenance)
        _set_text(self._file.attrs, "format", FORMAT)
        self._file.attrs["format_version"] = FORMAT_VERSION
        for item in fields(provenance):
            _set_attribute(self._file.attrs, item.name, getattr(provenance, item.name))
        self._write_scales(self._file, {"y": provenance.input_shape[1], "x": provenance.input_shape[2]}, 1)
        images = self._file.create_group("images")
        small = dict(zip(("small_y", "small_x"), self._blank.small.shape, strict=True))
        self._write_scales(images, small, provenance.small_block)
        for name in OVERVIEW:
            self._create_rows(images, name, getattr(self._blank_overview, name))
        for definition in provenance.definitions:
            group = images.create_group(definition)
            for name in FOOTPRINT:
                self._create_rows(group, name, getattr(self._blank, name))

    def _write_scales(self, group: h5py.Group, lengths: Mapping[str, int], block: int) -> None:
        """Coordinates in input pixels; of a block, its middle."""
        for name, length in lengths.items():
            scale = group.create_dataset(name, data=np.arange(length) * block + (block - 1) / 2)
            scale.attrs["units"] = "px"
            scale.make_scale(name)

    def _create_rows(self, group: h5py.Group, name: str, row: NDArray[Any]) -> None:
        """A dataset that grows by one such row with each image."""
        shape = row.shape
        group.create_dataset(name, (0, *shape), row.dtype, maxshape=(None, *shape), chunks=(1, *shape), **_COMPRESSION)

    def add_image(
        self, record: ImageRecord, footprints: Mapping[str, Footprint], overview: Overview | None = None
    ) -> None:
        self._records.append(record)
        with self._writing():
            for name in OVERVIEW:
                _append(self._file["images"][name], getattr(overview or self._blank_overview, name))
            for definition in self._provenance.definitions:
                footprint = footprints.get(definition, self._blank)
                for name, dataset in self._file["images"][definition].items():
                    _append(dataset, getattr(footprint, name))

    def add_statistics(self, subset: str, definition: str, statistics: Statistics) -> None:
        with self._writing():
            self._write_statistics(subset, definition, statistics)

    def _write_statistics(self, subset: str, definition: str, statistics: Statistics) -> None:
        group = self._file.require_group(f"subsets/{_to_name(subset)}/{definition}")
        _set_text(group.parent.attrs, "subset", subset)
        for counted in (group, group.parent):
            counted.attrs["count"] = statistics.count
        for name in ("mean", "variance"):
            array = getattr(statistics, name)
            chunks = tuple(min(_CHUNK, length) for length in array.shape)
            _attach(group.create_dataset(name, data=array, chunks=chunks, **_COMPRESSION), self._file, "y", "x")
        _attach(group.create_dataset("across_rows", data=statistics.across_rows), self._file, "x")
        _attach(group.create_dataset("across_columns", data=statistics.across_columns), self._file, "y")
        if statistics.draws is not None:
            draws = group.create_group("projections")
            for name in FOOTPRINT:
                draws.create_dataset(name, data=getattr(statistics.draws, name), **_COMPRESSION)

    def result(self) -> ERF:
        with self._writing():
            self._write_records()
            self._file.close()
        with self._writing():
            os.fsync(self._disk.fileno())
            self._disk.close()
            _rename(self._part, self.path)
        return load(self.path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises what went wrong on disk."""
        failed: Exception | None = None
        try:
            yield
        except (OSError, RuntimeError) as error:
            failed = error
        failed = self._disk.error or failed
        if failed is not None:
            reason = os.strerror(failed.errno) if isinstance(failed, OSError) and failed.errno else str(failed)
            raise OutputError(f"{self.path} cannot be written ({reason}); is the disk full?") from failed

    def _write_records(self) -> None:
        images = self._file["images"]
        index = images.create_dataset("image", data=np.arange(len(self._records)))
        index.make_scale("image")
        texts = {name: [getattr(record, name) for record in self._records] for name in _RECORD_TEXTS}
        texts["columns"] = [json.dumps(dict(record.columns)) for record in self._records]
        texts["subsets"] = [json.dumps(record.subsets) for record in self._records]
        for name, values in texts.items():
            encoded = [value.encode() for value in values]
            dtype = _text_dtype(encoded)
            _attach(images.create_dataset(name, data=np.array(encoded, dtype)), images, "image")
        numbers = images.create_dataset("number", data=[record.number for record in self._records])
        _attach(numbers, images, "image")
        spacing = images.create_dataset("pixel_spacing", data=[record.pixel_spacing for record in self._records])
        spacing.attrs["units"] = "mm"
        _attach(spacing, images, "image")
        for name in OVERVIEW:
            _attach(images[name], images, "image", "small_y", "small_x")
        for definition in self._provenance.definitions:
            group = images[definition]
            _attach(group["across_rows"], self._file, "images/image", "x")
            _attach(group["across_columns"], self._file, "images/image", "y")
            _attach(group["small"], images, "image", "small_y", "small_x")


def remove_parts(path: Path) -> None:
    """Remove what killed runs left of a file; only for who knows that no other run is writing it."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        part.unlink(missing_ok=True)


def _append(dataset: h5py.Dataset, row: NDArray[Any]) -> None:
    dataset.resize(len(dataset) + 1, axis=0)
    dataset[-1] = row


def _attach(dataset: h5py.Dataset, group: h5py.Group, *scales: str) -> None:
    for dimension, name in zip(dataset.dims, scales, strict=True):
        dimension.attach_scale(group[name])


def _rename(part: Path, path: Path) -> None:
    """Give a complete file its name, so that a crash leaves the old file or the new one."""
    os.replace(part, path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _text_dtype(encoded: Iterable[bytes]) -> np.dtype[Any]:
    """Of fixed length: texts of variable length lie in a heap without checksums, where damage can make HDF5 loop."""
    return np.dtype(h5py.string_dtype("utf-8", max([1, *map(len, encoded)])))


def _set_text(attributes: h5py.AttributeManager, name: str, text: str) -> None:
    encoded = text.encode()
    dtype = _text_dtype([encoded])
    attributes.create(name, np.array(encoded, dtype))


def _set_attribute(attributes: h5py.AttributeManager, name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        _set_text(attributes, name, json.dumps(dict(value)))
    elif isinstance(value, str):
        _set_text(attributes, name, value)
    elif isinstance(value, tuple) and value and isinstance(value[0], str):
        encoded = [text.encode() for text in value]
        dtype = _text_dtype(encoded)
        attributes.create(name, np.array(encoded, dtype))
    else:
        attributes[name] = value


def _plain(value: Any) -> Any:
    """A value of an attribute without NumPy's and HDF5's types."""
    if isinstance(value, np.ndarray):
        return tuple(_plain(one) for one in value)
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode() if isinstance(value, bytes) else value


def _to_name(subset: str) -> str:
    """A subset as the name of a group, in which a slash would open another group."""
    return subset.replace("/", "∕")


def save(erf: ERF, path: str | Path, *, overwrite: bool = False) -> None:
    """Write an ERF to a file."""
    with FileSink(path, overwrite=overwrite) as sink:
        sink.begin(erf.provenance)
        for row in erf.rows():
            sink.add_image(row.record, row.footprints, row.overview)
        for subset, definitions in erf.subsets.items():
            for definition, statistics in definitions.items():
                sink.add_statistics(subset, definition, statistics)
        sink.result()


def load(path: str | Path) -> ERF:
    """Open an ERF file; maps are read from it when they are asked for.

    Raises `FormatError` for a file that is missing, damaged, no ERF file or written by a newer version.
    """
    path = Path(path)
    with _reading(path) as file:
        _check_format(path, file)
        provenance = _read_provenance(file)
        records = _read_records(file["images"])
        subsets = {str(_plain(group.attrs["subset"])): name for name, group in file["subsets"].items()}
    statistics = {
        subset: _OnDemand(provenance.definitions, partial(_read_statistics, path, name))
        for subset, name in subsets.items()
    }
    footprints = _OnDemand(provenance.definitions, partial(_read_footprint, path))
    return ERF(provenance, statistics, records, footprints, partial(_read_overview, path))


class _OnDemand(Mapping[str, T]):
    """A mapping whose values are read from the file each time."""

    def __init__(self, keys: tuple[str, ...], read: Callable[[str], T]) -> None:
        self._keys = keys
        self._read = read

    def __getitem__(self, key: str) -> T:
        if key not in self._keys:
            raise KeyError(key)
        return self._read(key)

    def __contains__(self, key: object) -> bool:  # that of a Mapping would read the value
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise FormatError(f"{path}: no such file; expected an ERF file written by `erf compute`")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FormatError:
        raise
    except Exception as error:  # a damaged file may hold anything
        raise FormatError(f"{path}: cannot be read as an ERF file ({error}); it may be damaged") from error


def _check_format(path: Path, file: h5py.File) -> None:
    found = _plain(file.attrs.get("format", "none"))
    if found == f"{FORMAT} series":
        raise FormatError(f"{path}: a series over training; `erf show` and `erf plot --over-training` read it")
    if found != FORMAT:
        raise FormatError(f"{path}: found HDF5 of format '{found}', expected '{FORMAT}' as written by `erf compute`")
    version = int(file.attrs["format_version"])
    if version > FORMAT_VERSION:
        raise FormatError(
            f"{path}: found format version {version}, this erf-toolkit reads up to {FORMAT_VERSION}; upgrade it"
        )


def _read_provenance(file: h5py.File) -> Provenance:
    """What the attributes say; one that an older file lacks has its default."""

    def is_needed(item: Field[Any]) -> bool:
        return item.default is MISSING and item.default_factory is MISSING

    known = [item.name for item in fields(Provenance) if item.name in file.attrs or is_needed(item)]
    return Provenance(**{name: _from_attribute(file, name) for name in known})


def _from_attribute(file: h5py.File, name: str) -> Any:
    if name not in file.attrs:
        raise KeyError(f"attribute {name} is missing")
    value = _plain(file.attrs[name])
    return json.loads(value) if name in _JSON_ATTRIBUTES else value


def _read_records(images: h5py.Group) -> tuple[ImageRecord, ...]:
    texts = {name: images[name].asstr()[:] for name in (*_RECORD_TEXTS, "columns", "subsets")}
    spacing = images["pixel_spacing"][:]
    numbers = images["number"][:] if "number" in images else range(len(spacing))
    return tuple(
        ImageRecord(
            **{name: str(texts[name][index]) for name in _RECORD_TEXTS},
            pixel_spacing=float(spacing[index]),
            columns=json.loads(texts["columns"][index]),
            subsets=tuple(json.loads(texts["subsets"][index])),
            number=int(numbers[index]),
        )
        for index in range(len(spacing))
    )


def _read_statistics(path: Path, subset: str, definition: str) -> Statistics:
    with _reading(path) as file:
        group = file["subsets"][subset][definition]
        arrays: dict[str, NDArray[Any]] = {
            name: group[name][:] for name in ("mean", "variance", "across_rows", "across_columns")
        }
        draws = _footprint(group["projections"]) if "projections" in group else None
        return Statistics(int(group.attrs["count"]), **arrays, draws=draws)


def _read_footprint(path: Path, definition: str) -> Footprint:
    with _reading(path) as file:
        return _footprint(file["images"][definition])


def _read_overview(path: Path) -> Overview | None:
    with _reading(path) as file:
        images = file["images"]
        return Overview(*(images[name][:] for name in OVERVIEW)) if set(OVERVIEW) <= set(images) else None


def _footprint(group: h5py.Group) -> Footprint:
    return Footprint(*(group[name][:] for name in FOOTPRINT))
