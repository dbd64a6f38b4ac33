"""Incremental writing of ERF files during a run."""

import glob
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from erf.results import (
    ERF,
    OVERVIEW,
    ImageRecord,
    Overview,
    Profile,
    Provenance,
    Statistics,
    blank_overview,
    blank_profile,
    kept,
)
from erf.results.grid import ZONE
from erf.storage.checksums import append_sums
from erf.storage.compression import write_compressed
from erf.storage.files import PatientFile, check_free, move, open_locked, unwritable
from erf.storage.format import COMPRESSION, FORMAT, FORMAT_VERSION, RECORD_TEXTS, group_name, text_array
from erf.storage.reader import load

_SCALES = {
    "across_rows": ("x",),
    "across_columns": ("y",),
    "small": ("images/small_y", "images/small_x"),
    "rings": ("images/ring",),
    "frames": ("images/frame",),
    "cross_moment": ("images/product",),
}
"""Coordinates of the arrays of a per-image profile."""


class FileSink:
    """Sink that writes a run to a file as it proceeds; a `with` block removes unfinished files.

    Raises:
        OutputError: The file cannot be written, or exists and `overwrite` is not set.

    Example:
        >>> import torch, erf
        >>> with erf.FileSink("sink.h5") as sink:
        ...     images = erf.load_images("phantom", n=4, size=(64, 48))
        ...     erf.compute(torch.nn.Conv2d(1, 2, 5), images, layer="output", device="cpu", sink=sink).count()
        4
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        check_free(self.path, overwrite)
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            remove_parts(self.path)
            self._disk = PatientFile(open_locked(self._part))
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._file = h5py.File(self._disk, "w")
        self._records: list[ImageRecord] = []

    def __enter__(self) -> "FileSink":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(Exception):  # the error of writing was reported before
            self._file.close()
        self._disk.close()
        self._part.unlink(missing_ok=True)

    def begin(self, provenance: Provenance) -> None:
        self._provenance = provenance
        self._blank = blank_profile(provenance)
        self._blank_overview = blank_overview(provenance)
        _set_text(self._file.attrs, "format", FORMAT)
        self._file.attrs["format_version"] = FORMAT_VERSION
        for item in fields(provenance):
            _set_attribute(self._file.attrs, item.name, getattr(provenance, item.name))
        images = self._file.create_group("images")
        self._write_scales(images)
        for name in OVERVIEW:
            self._create_rows(images, name, getattr(self._blank_overview, name))
        for definition in provenance.definitions:
            group = images.create_group(definition)
            for name, row in kept(self._blank):
                self._create_rows(group, name, row)

    def _write_scales(self, images: h5py.Group) -> None:
        """Write coordinates in input pixels; blocks, rings and frames by their middle."""
        grid, blank = self._provenance.grid, self._blank
        pixels = dict(zip("yx", map(np.arange, grid.size), strict=True))
        places = {
            **dict(zip(("small_y", "small_x"), grid.middles, strict=True)),
            **dict(zip(("thumbnail_y", "thumbnail_x"), grid.even.middles, strict=True)),
            **{name: ZONE * np.arange(getattr(blank, f"{name}s").size) for name in ("ring", "frame")},
            "product": np.arange(blank.cross_moment.size),
        }
        for group, scales in ((self._file, pixels), (images, places)):
            for name, values in scales.items():
                if len(values):
                    scale = group.create_dataset(name, data=np.asarray(values, np.float64))
                    scale.attrs["units"] = "px"
                    scale.make_scale(name)
        for name, bounds, scale in zip(
            ("small_height", "small_width"), grid.bounds, ("small_y", "small_x"), strict=True
        ):
            _attach(images.create_dataset(name, data=np.diff(bounds)), images, scale)

    def _create_rows(self, group: h5py.Group, name: str, row: NDArray[Any]) -> None:
        """Create a dataset to which one row is appended for each image."""
        shape = row.shape
        group.create_dataset(name, (0, *shape), row.dtype, maxshape=(None, *shape), chunks=(1, *shape), **COMPRESSION)

    def add_image(self, record: ImageRecord, profiles: Mapping[str, Profile], overview: Overview | None = None) -> None:
        self._records.append(record)
        with self._writing():
            for name in OVERVIEW:
                _append(self._file["images"][name], getattr(overview or self._blank_overview, name))
            for definition in self._provenance.definitions:
                profile = profiles.get(definition, self._blank)
                for name, dataset in self._file["images"][definition].items():
                    _append(dataset, getattr(profile, name))

    def add_statistics(self, subset: str, definition: str, statistics: Statistics) -> None:
        with self._writing():
            self._write_statistics(subset, definition, statistics)

    def _write_statistics(self, subset: str, definition: str, statistics: Statistics) -> None:
        group = self._file.require_group(f"subsets/{group_name(subset)}/{definition}")
        _set_text(group.parent.attrs, "subset", subset)
        for counted in (group, group.parent):
            counted.attrs["count"] = statistics.count
        for name in ("mean", "variance"):
            _attach(write_compressed(group, name, getattr(statistics, name)), self._file, "y", "x")
        _attach(group.create_dataset("across_rows", data=statistics.across_rows), self._file, "x")
        _attach(group.create_dataset("across_columns", data=statistics.across_columns), self._file, "y")
        if statistics.draws is not None:
            draws = group.create_group("projections")
            for name, array in kept(statistics.draws):
                draws.create_dataset(name, data=array, **COMPRESSION)

    def result(self) -> ERF:
        with self._writing():
            self._write_records()
            self._file.close()
        with self._writing():
            self._disk.close()
            append_sums(self._part)
            move(self._part, self.path)
        return load(self.path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Convert errors of writing to `OutputError`, preferring those of the disk."""
        failed: Exception | None = None
        try:
            yield
        except (OSError, RuntimeError) as error:
            failed = error
        failed = self._disk.error or failed
        if failed is not None:
            raise unwritable(self.path, failed) from failed

    def _write_records(self) -> None:
        images = self._file["images"]
        index = images.create_dataset("image", data=np.arange(len(self._records)))
        index.make_scale("image")
        texts = {name: [getattr(record, name) for record in self._records] for name in RECORD_TEXTS}
        texts["columns"] = [json.dumps(dict(record.columns)) for record in self._records]
        texts["subsets"] = [json.dumps(record.subsets) for record in self._records]
        for name, values in texts.items():
            _attach(images.create_dataset(name, data=text_array(values)), images, "image")
        numbers = images.create_dataset("number", data=[record.number for record in self._records])
        _attach(numbers, images, "image")
        spacing = images.create_dataset("pixel_spacing", data=[record.pixel_spacing for record in self._records])
        spacing.attrs["units"] = "mm"
        _attach(spacing, images, "image")
        for name in OVERVIEW:
            _attach(images[name], images, "image", "thumbnail_y", "thumbnail_x")
        for definition in self._provenance.definitions:
            group = images[definition]
            for name, dataset in group.items():
                _attach(dataset, self._file, "images/image", *_SCALES[name])


def remove_parts(path: Path) -> None:
    """Remove partial files of killed processes; running processes hold a lock on theirs."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(BlockingIOError), open_locked(part):
            part.unlink(missing_ok=True)


def _append(dataset: h5py.Dataset, row: NDArray[Any]) -> None:
    dataset.resize(len(dataset) + 1, axis=0)
    dataset[-1] = row


def _attach(dataset: h5py.Dataset, group: h5py.Group, *scales: str) -> None:
    for dimension, name in zip(dataset.dims, scales, strict=True):
        dimension.attach_scale(group[name])


def _set_text(attributes: h5py.AttributeManager, name: str, text: str) -> None:
    attributes.create(name, text_array([text]).reshape(()))


def _set_attribute(attributes: h5py.AttributeManager, name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        _set_text(attributes, name, json.dumps(dict(value)))
    elif isinstance(value, str):
        _set_text(attributes, name, value)
    elif isinstance(value, tuple) and value and isinstance(value[0], str):
        attributes.create(name, text_array(value))
    else:
        attributes[name] = value


def save(erf: ERF, path: str | Path, *, overwrite: bool = False) -> None:
    """Write an ERF to a file.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> result = erf.compute(model, images, layer="1", device="cpu")
        >>> erf.save(result, "saved.h5")
        >>> erf.load("saved.h5").count("left")
        2
    """
    with FileSink(path, overwrite=overwrite) as sink:
        sink.begin(erf.provenance)
        for row in erf.rows():
            sink.add_image(row.record, row.profiles, row.overview)
        for subset, definitions in erf.subsets.items():
            for definition, statistics in definitions.items():
                sink.add_statistics(subset, definition, statistics)
        sink.result()
