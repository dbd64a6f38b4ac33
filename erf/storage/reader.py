"""Reading of ERF files, which may be untrusted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from erf.errors import FormatError, InputError
from erf.results import (
    ERF,
    OVERVIEW,
    PROFILE_ARRAYS,
    Curve,
    ImageRecord,
    Map,
    Overview,
    Profile,
    Provenance,
    Statistics,
    blank_overview,
    blank_profile,
    kept,
)
from erf.storage.format import FORMAT, FORMAT_VERSION, JSON_ATTRIBUTES, RECORD_JSON, RECORD_TEXTS
from erf.storage.guarded import Expected, are_sound, attribute, check, child, length, opened, parse_json, read, texts
from erf.storage.schema import provenance_of, record_of

_FLOATS = ("float32", "float64")
_MOST_SUBSETS = 10_000

T = TypeVar("T")


def load(path: str | Path) -> ERF:
    """Open an ERF file.

    Args:
        path: File written by `FileSink` or `save`.

    Returns:
        The ERF; maps and profiles are read from the file when used.

    Raises:
        FormatError: The file is missing, damaged, no ERF file, or written by a newer version.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> erf.save(erf.compute(model, images, layer="1", device="cpu"), "loaded.h5")
        >>> erf.load("loaded.h5").statistics("right").count
        2
    """
    path = Path(path)
    with _opened(path) as file:
        _check_format(path, file)
        provenance = _read_provenance(file)
        images = _read_records(child(file, "images", h5py.Group))
        subsets = _read_subsets(file)
        contents = _Contents(path, _version_of(path), provenance, images, subsets)
        contents.check(file)
    statistics = {subset: _OnDemand(provenance.definitions, partial(contents.statistics, subset)) for subset in subsets}
    profiles = _OnDemand(provenance.definitions, contents.profile)
    return ERF(provenance, statistics, images, profiles, contents.overview)


def as_erf(source: ERF | str | Path) -> ERF:
    """Return an ERF, loaded if its file is given; `InputError` for anything else."""
    if isinstance(source, ERF):
        return source
    if not isinstance(source, str | Path):
        raise InputError(f"found a {type(source).__name__}, expected an ERF or the path of its file")
    return load(source)


class _OnDemand(Mapping[str, T]):
    """Mapping whose values are read from the file on each access."""

    def __init__(self, keys: tuple[str, ...], read: Callable[[str], T]) -> None:
        self._keys = keys
        self._read = read

    def __getitem__(self, key: str) -> T:
        if key not in self._keys:
            raise KeyError(key)
        return self._read(key)

    def __contains__(self, key: object) -> bool:  # the inherited method would read the value
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class _StoredStatistics(Statistics):
    """Statistics whose maps are read from the file when first used, and kept."""

    _read: Callable[[str], Map]

    @classmethod
    def of(
        cls, count: int, across_rows: Curve, across_columns: Curve, draws: Profile | None, read: Callable[[str], Map]
    ) -> "_StoredStatistics":
        """Return statistics without maps; `read` returns the map of a name."""
        stored = cls.__new__(cls)
        vars(stored).update(
            count=count, across_rows=across_rows, across_columns=across_columns, draws=draws, _read=read
        )
        return stored

    @cached_property
    def mean(self) -> Map:
        """(H, W), mean over images, read from the file."""
        return self._read("mean")

    @cached_property
    def variance(self) -> Map:
        """(H, W), unbiased variance between images, read from the file."""
        return self._read("variance")


def _opened(path: Path) -> AbstractContextManager[h5py.File]:
    return opened(path, "an ERF file")


def _version_of(path: Path) -> tuple[int, ...]:
    """Return what identifies a version of a file: device, inode, size, and time of the last change."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _check_format(path: Path, file: h5py.File) -> None:
    found = attribute(file, "format", variable=True) if "format" in file.attrs else "none"
    if found == f"{FORMAT} series":
        raise FormatError(
            f"{path}: found a series over training, expected an ERF file", remedy="read it with `load_series`"
        )
    if found != FORMAT:
        raise FormatError(f"{path}: found HDF5 of format '{found}', expected '{FORMAT}' as in an ERF file")
    version = attribute(file, "format_version")
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"format version {version}")
    if version > FORMAT_VERSION:
        raise FormatError(
            f"{path}: found format version {version}, this erf-toolkit reads up to {FORMAT_VERSION}; upgrade it"
        )


def _read_provenance(file: h5py.File) -> Provenance:
    """Read provenance from the attributes; those missing in older files have their defaults."""
    values = {item.name: attribute(file, item.name) for item in fields(Provenance) if item.name in file.attrs}
    for name in values.keys() & set(JSON_ATTRIBUTES):
        values[name] = parse_json(values[name])
    return provenance_of(values)


def _read_records(images: h5py.Group) -> tuple[ImageRecord, ...]:
    count = length(images, "pixel_spacing")
    columns: dict[str, Sequence[Any]] = {name: texts(images, name, count) for name in RECORD_TEXTS}
    for name in RECORD_JSON:
        columns[name] = [parse_json(text) for text in texts(images, name, count)]
    columns["pixel_spacing"] = read(images, "pixel_spacing", Expected((count,), _FLOATS)).tolist()
    columns["number"] = range(count)
    if "number" in images:
        columns["number"] = read(images, "number", Expected((count,), ("int64",))).tolist()
    return tuple(record_of({name: column[row] for name, column in columns.items()}) for row in range(count))


def _read_subsets(file: h5py.File) -> dict[str, str]:
    """Names of the groups by subset."""
    group = child(file, "subsets", h5py.Group)
    if not 1 <= len(group) <= _MOST_SUBSETS:
        raise ValueError(f"{len(group)} subsets")
    found = {attribute(child(group, name, h5py.Group), "subset"): name for name in group}
    if len(found) < len(group):
        raise ValueError("two groups of one subset")
    return found


@dataclass(frozen=True)
class _Contents:
    """Arrays of a file, each checked against provenance and records and read separately."""

    path: Path
    version: tuple[int, ...]
    """Identity of the file when it was loaded."""
    provenance: Provenance
    images: tuple[ImageRecord, ...]
    groups: Mapping[str, str]
    """Names of groups by subset."""

    def check(self, file: h5py.File) -> None:
        """Raise `ValueError` unless all arrays exist with the expected shape; values are not read."""
        images = child(file, "images", h5py.Group)
        for name in self._overview_names(images):
            check(images, name, self._overview_expected()[name])
        for definition in self.provenance.definitions:
            for name, expected in self._footprint_expected(len(self.images)).items():
                check(child(images, definition, h5py.Group), name, expected)
            for subset in self.groups:
                group, count = self._statistics_group(file, subset, definition)
                for name, expected in self._statistics_expected().items():
                    check(group, name, expected)
                if not count or count != self._count(subset):
                    raise ValueError(
                        f"subset '{subset}' counts {count} images, of which {self._count(subset)} are listed"
                    )

    def _opened(self) -> AbstractContextManager[h5py.File]:
        """Open the file again; raise `FormatError` if it is another one by now."""
        if self.path.exists() and _version_of(self.path) != self.version:
            raise FormatError(f"{self.path}: the file was changed or replaced after it was loaded; load it again")
        return _opened(self.path)

    def statistics(self, subset: str, definition: str) -> Statistics:
        """The ERF of a subset."""
        with self._opened() as file:
            group, count = self._statistics_group(file, subset, definition)
            across_rows, across_columns = (self._array(group, name) for name in ("across_rows", "across_columns"))
            draws = None
            if "projections" in group:
                draws = _profile(
                    child(group, "projections", h5py.Group), self._footprint_expected(self.provenance.projections)
                )
            read_map = partial(self._map, subset, definition)
            return _StoredStatistics.of(count, across_rows, across_columns, draws, read_map)

    def _map(self, subset: str, definition: str, name: str) -> Map:
        """Read the mean or the variance of a subset."""
        with self._opened() as file:
            group, _ = self._statistics_group(file, subset, definition)
            return self._array(group, name)

    def _array(self, group: h5py.Group, name: str) -> Map:
        """Read a map or curve; raise `ValueError` if it is not finite, which only a variance may be."""
        array = read(group, name, self._statistics_expected()[name])
        if name != "variance" and not are_sound(array):
            raise ValueError(f"{group.name} has values that are not finite")
        return array

    def profile(self, definition: str) -> Profile:
        """Read the per-image profiles of a definition."""
        with self._opened() as file:
            group = child(child(file, "images", h5py.Group), definition, h5py.Group)
            found = _profile(group, self._footprint_expected(len(self.images)))
        used = [row for row, image in enumerate(self.images) if image.status == "ok"]
        if not all(are_sound(getattr(found, name)[used]) for name in PROFILE_ARRAYS):
            raise FormatError(f"{self.path}: an image that was used has values that are not finite; it may be damaged")
        return found

    def overview(self) -> Overview | None:
        """Read thumbnails and tissue maps; None in files without them."""
        with self._opened() as file:
            images = child(file, "images", h5py.Group)
            names = self._overview_names(images)
            return Overview(*(read(images, name, self._overview_expected()[name]) for name in names)) if names else None

    def _overview_names(self, images: h5py.Group) -> tuple[str, ...]:
        return OVERVIEW if set(OVERVIEW) <= set(images) else ()

    def _statistics_group(self, file: h5py.File, subset: str, definition: str) -> tuple[h5py.Group, int]:
        """Group of an ERF, and its number of images."""
        of_subset = child(child(file, "subsets", h5py.Group), self.groups[subset], h5py.Group)
        group = child(of_subset, definition, h5py.Group)
        return group, attribute(group, "count")

    def _count(self, subset: str) -> int:
        return sum(image.status == "ok" and subset in image.subsets for image in self.images)

    def _statistics_expected(self) -> dict[str, Expected]:
        _, height, width = self.provenance.input_shape
        shapes = {
            "mean": (height, width),
            "variance": (height, width),
            "across_rows": (width,),
            "across_columns": (height,),
        }
        return {name: Expected(shape, _FLOATS) for name, shape in shapes.items()}

    def _footprint_expected(self, count: int) -> dict[str, Expected]:
        return {name: Expected((count, *row.shape), _FLOATS) for name, row in kept(blank_profile(self.provenance))}

    def _overview_expected(self) -> dict[str, Expected]:
        blank = blank_overview(self.provenance)
        arrays = {name: getattr(blank, name) for name in OVERVIEW}
        return {name: Expected((len(self.images), *array.shape), (array.dtype.name,)) for name, array in arrays.items()}


def _profile(group: h5py.Group, expected: Mapping[str, Expected]) -> Profile:
    """Read per-image profiles; arrays missing in older files are empty."""
    missing = np.empty((*expected["small"].shape[:1], 0), np.float32)
    return Profile(*(read(group, name, expected[name]) if name in expected else missing for name in PROFILE_ARRAYS))
