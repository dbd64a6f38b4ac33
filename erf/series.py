"""ERFs of one network as it was trained: the same images at every moment, small maps and curves without the full map.

A series is an HDF5 file of its own kind, described in docs/file-format.md; it takes about 70 KB for each image and
moment at full size. It is rewritten whole when a moment is added, so that it is always complete.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from erf.disk import check_free, complete_file
from erf.errors import FormatError, InputError
from erf.measures import Observations
from erf.measures.observations import observe_images
from erf.result import ERF, FOOTPRINT, OVERVIEW, Footprint, ImageRecord, Overview, Provenance, unlike

FORMAT = "erf-toolkit series"
FORMAT_VERSION = 1

_SAME = ("layer", "unit", "channel", "method", "input_shape", "definitions", "normalisation", "mirrored", "small_block")
_COMPRESSION = {"compression": "gzip", "compression_opts": 1, "shuffle": True}


@dataclass(frozen=True)
class Moment:
    """A network at one epoch."""

    epoch: int
    """Of the whole training; 0 is before it."""
    stage: str
    provenance: Provenance
    footprints: Mapping[str, Footprint]
    """By definition; arrays of all images, stacked."""
    scores: Mapping[str, float]
    """How the network did on the validation images, where that is known."""

    @classmethod
    def of(cls, erf: ERF, epoch: int, stage: str = "", scores: Mapping[str, float] | None = None) -> "Moment":
        """What a series keeps of an ERF."""
        footprints = {definition: erf.footprints[definition] for definition in erf.provenance.definitions}
        return cls(epoch, stage, erf.provenance, footprints, dict(scores or {}))


@dataclass(frozen=True)
class Series:
    """Moments of a training, in the order of their epochs."""

    images: tuple[ImageRecord, ...]
    overview: Overview | None
    moments: tuple[Moment, ...]

    @classmethod
    def of(cls, erf: ERF, moment: Moment) -> "Series":
        """A series with its first moment."""
        return cls(erf.images, erf.overview(), (moment,))

    def added(self, erf: ERF, moment: Moment) -> "Series":
        """The series with one more moment, in place of one of the same epoch.

        Raises `InputError` for an ERF of other images, or of another unit, layer or size.
        """
        differences = unlike(self.moments[0].provenance, moment.provenance, _SAME)
        if differences:
            raise InputError(f"moments of one series differ in {', '.join(differences)}")
        if [image.sha256 for image in erf.images] != [image.sha256 for image in self.images]:
            raise InputError("moments of one series were measured on different images; use the same at every epoch")
        kept = [one for one in self.moments if one.epoch != moment.epoch]
        return replace(self, moments=tuple(sorted([*kept, moment], key=lambda one: one.epoch)))

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the subsets that the images belong to."""
        return tuple(dict.fromkeys(name for image in self.images for name in image.subsets))

    def observe(self, moment: Moment, subset: str = "all", definition: str = "abs") -> Observations:
        """The images of a subset at one moment, as the measures take them."""
        if subset not in self.subsets or definition not in moment.footprints:
            raise InputError(
                f"no subset '{subset}' under definition '{definition}' in this series; it has "
                f"{', '.join(self.subsets)} under {', '.join(moment.footprints)}"
            )
        rows = [row for row, image in enumerate(self.images) if image.status == "ok" and subset in image.subsets]
        stacked = moment.footprints[definition]
        footprint = Footprint(*(getattr(stacked, name)[rows] for name in FOOTPRINT))
        tissue = None if self.overview is None else self.overview.tissue[rows].astype(np.float64)
        return observe_images(moment.provenance, [self.images[row] for row in rows], footprint, tissue)


def save_series(series: Series, path: Path, *, overwrite: bool = False) -> None:
    """Write a series, whole or not at all."""
    check_free(path, overwrite)
    with complete_file(path) as part, h5py.File(part, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = np.bytes_(FORMAT.encode()), FORMAT_VERSION
        moments = series.moments
        file["epoch"] = [moment.epoch for moment in moments]
        file["epoch"].make_scale("epoch")
        _write_texts(file, "stage", [moment.stage for moment in moments])
        _write_texts(file, "scores", [json.dumps(dict(moment.scores)) for moment in moments])
        _write_texts(file, "provenance", [json.dumps(asdict(moment.provenance)) for moment in moments])
        _write_texts(file, "images", [json.dumps(asdict(image)) for image in series.images])
        if series.overview is not None:
            for name in OVERVIEW:
                file.create_dataset(f"overview/{name}", data=getattr(series.overview, name), **_COMPRESSION)
        for definition in moments[0].provenance.definitions:
            for name in FOOTPRINT:
                stacked = np.stack([getattr(moment.footprints[definition], name) for moment in moments])
                dataset = file.create_dataset(f"footprints/{definition}/{name}", data=stacked, **_COMPRESSION)
                dataset.dims[0].attach_scale(file["epoch"])


def is_series(path: Path) -> bool:
    """Whether a file says of itself that it is a series."""
    try:
        with h5py.File(path, "r") as file:
            return _text(file.attrs.get("format", b"")) == FORMAT
    except (OSError, ValueError):
        return False


def load_series(path: Path) -> Series:
    """Read a series; `FormatError` for a file that is missing, damaged, no series or of a newer version."""
    if not path.is_file():
        raise FormatError(f"{path}: no such file; expected a series of ERFs written by `erf train` or `erf compute`")
    try:
        with h5py.File(path, "r") as file:
            found, version = _text(file.attrs.get("format", b"none")), int(file.attrs.get("format_version", 0))
            if found != FORMAT or version > FORMAT_VERSION:
                raise FormatError(
                    f"{path}: found HDF5 of format '{found}' {version}, expected '{FORMAT}' up to {FORMAT_VERSION}, as "
                    "`erf train --erf-every` writes it, or `erf compute` with several --weights"
                )
            return _read(file)
    except FormatError:
        raise
    except Exception as error:  # a damaged file may hold anything
        raise FormatError(f"{path}: cannot be read as a series of ERFs ({error}); it may be damaged") from error


def _read(file: h5py.File) -> Series:
    images = tuple(
        ImageRecord(**(values | {"subsets": tuple(values["subsets"])}))
        for values in map(json.loads, _texts(file, "images"))
    )
    overview = Overview(*(file["overview"][name][:] for name in OVERVIEW)) if "overview" in file else None
    columns = zip(*(_texts(file, name) for name in ("stage", "provenance", "scores")), strict=True)
    moments = []
    for number, (epoch, (stage, provenance, scores)) in enumerate(zip(file["epoch"][:].tolist(), columns, strict=True)):
        footprints = {
            definition: Footprint(*(group[name][number] for name in FOOTPRINT))
            for definition, group in file["footprints"].items()
        }
        moments.append(Moment(epoch, stage, _provenance(json.loads(provenance)), footprints, json.loads(scores)))
    return Series(images, overview, tuple(moments))


def _provenance(values: Mapping[str, Any]) -> Provenance:
    arguments: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in values.items()}
    return Provenance(**arguments)


def _write_texts(file: h5py.File, name: str, texts: Sequence[str]) -> None:
    """Of fixed length: texts of variable length lie in a heap without checksums, where damage can make HDF5 loop."""
    encoded = [text.encode() for text in texts]
    dtype = h5py.string_dtype("utf-8", max([1, *map(len, encoded)]))
    file.create_dataset(name, data=np.array(encoded, dtype), **_COMPRESSION)


def _texts(file: h5py.File, name: str) -> list[str]:
    values: NDArray[Any] = file[name][:]
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
