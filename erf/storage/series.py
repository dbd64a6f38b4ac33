"""Series: ERFs of one network during training, on the same images at every snapshot, as per-image profiles only.

A series is an HDF5 file with its own format, described in docs/file-format.md; it takes about 200 KB per image and
snapshot (`Moment`) at full size. It is rewritten when a snapshot is added, so that it is always complete.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from erf.errors import FormatError, InputError
from erf.measures import Observations
from erf.measures.observations import observe_images
from erf.results import (
    ERF,
    OVERVIEW,
    PROFILE_ARRAYS,
    ImageRecord,
    Overview,
    Profile,
    Provenance,
    blank_overview,
    blank_profile,
    kept,
    unlike,
)
from erf.storage.checksums import append_sums
from erf.storage.files import PatientFile, check_free, complete_file, open_locked
from erf.storage.format import COMPRESSION, text_array
from erf.storage.guarded import Expected, are_sound, attribute, child, length, opened, parse_json, read, texts
from erf.storage.schema import provenance_of, record_of

FORMAT = "erf-toolkit series"
FORMAT_VERSION = 2

_SAME = (
    *("layer", "unit", "channel", "method", "input_shape", "definitions", "normalisation", "mirrored"),
    *("small_block", "finest_block"),
)


@dataclass(frozen=True)
class Moment:
    """Snapshot of a network at one epoch of its training."""

    epoch: int
    """Epoch of the whole training; 0 is before it."""
    stage: str
    provenance: Provenance
    profiles: Mapping[str, Profile]
    """Per-image profiles by definition; arrays of all images, stacked."""
    scores: Mapping[str, float]
    """Scores of the network on the validation images, if known."""

    @classmethod
    def of(cls, erf: ERF, epoch: int, stage: str = "", scores: Mapping[str, float] | None = None) -> "Moment":
        """Build the snapshot that a series keeps of an ERF."""
        profiles = {definition: erf.profiles[definition] for definition in erf.provenance.definitions}
        return cls(epoch, stage, erf.provenance, profiles, dict(scores or {}))


@dataclass(frozen=True)
class Series:
    """Snapshots of a training, in the order of their epochs."""

    images: tuple[ImageRecord, ...]
    overview: Overview | None
    moments: tuple[Moment, ...]

    @classmethod
    def of(cls, erf: ERF, moment: Moment) -> "Series":
        """A series with its first moment."""
        return cls(erf.images, erf.overview(), (moment,))

    def added(self, erf: ERF, moment: Moment) -> "Series":
        """The series with one more moment, as `joined` with a series of that alone."""
        return self.joined(Series(erf.images, None, (moment,)))

    def joined(self, other: "Series") -> "Series":
        """The series with the moments of another one, in place of those of the same epochs.

        Raises `InputError` for one of other images, or of another unit, layer or size, and where no image is left.
        """
        differences = unlike(self.moments[0].provenance, other.moments[0].provenance, _SAME)
        if differences:
            raise InputError(f"moments of one series differ in {', '.join(differences)}")
        if [image.sha256 for image in other.images] != [image.sha256 for image in self.images]:
            raise InputError("moments of one series were measured on different images; use the same at every epoch")
        # An image counts where it could be used at every moment, so that all moments are of the same images.
        images = tuple(now if one.status == "ok" else one for one, now in zip(self.images, other.images, strict=True))
        if not any(image.status == "ok" for image in images):
            raise InputError("no image could be used at every moment; use more images")
        moments = {moment.epoch: moment for moment in (*self.moments, *other.moments)}
        return replace(self, images=images, moments=tuple(moments[epoch] for epoch in sorted(moments)))

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the subsets that the images belong to."""
        return tuple(dict.fromkeys(name for image in self.images for name in image.subsets))

    def observe(self, moment: Moment, subset: str = "all", definition: str = "abs") -> Observations:
        """The images of a subset at one moment, as the measures take them."""
        if subset not in self.subsets or definition not in moment.profiles:
            raise InputError(
                f"no subset '{subset}' under definition '{definition}' in this series; it has "
                f"{', '.join(self.subsets)} under {', '.join(moment.profiles)}"
            )
        rows = [row for row, image in enumerate(self.images) if image.status == "ok" and subset in image.subsets]
        stacked = moment.profiles[definition]
        profile = stacked.each(lambda array: array[rows])
        tissue = None if self.overview is None else self.overview.tissue[rows].astype(np.float64)
        return observe_images(moment.provenance, [self.images[row] for row in rows], profile, tissue)


def save_series(series: Series, path: Path, *, overwrite: bool = False) -> None:
    """Write a series, whole or not at all."""
    check_free(path, overwrite)
    with complete_file(path) as part:
        with PatientFile(open_locked(part)) as disk:
            try:
                with h5py.File(disk, "w") as file:
                    _write(file, series)
            finally:
                if disk.error is not None:
                    raise disk.error
        append_sums(part)


def _write(file: h5py.File, series: Series) -> None:
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
            file.create_dataset(f"overview/{name}", data=getattr(series.overview, name), **COMPRESSION)
    for definition in moments[0].provenance.definitions:
        for name, _ in kept(moments[0].profiles[definition]):
            stacked = np.stack([getattr(moment.profiles[definition], name) for moment in moments])
            dataset = file.create_dataset(f"footprints/{definition}/{name}", data=stacked, **COMPRESSION)
            dataset.dims[0].attach_scale(file["epoch"])


def _write_texts(file: h5py.File, name: str, values: Sequence[str]) -> None:
    file.create_dataset(name, data=text_array(values), **COMPRESSION)


def is_series(path: Path) -> bool:
    """Whether a file says of itself that it is a series."""
    try:
        with opened(path, "HDF5") as file:
            return "format" in file.attrs and attribute(file, "format", variable=True) == FORMAT
    except FormatError:
        return False


def load_series(path: Path) -> Series:
    """Read a series; `FormatError` for a file that is missing, damaged, no series or of a newer version."""
    with opened(path, "a series of ERFs") as file:
        found = attribute(file, "format", variable=True) if "format" in file.attrs else "none"
        version = attribute(file, "format_version") if found == FORMAT else 0
        if found != FORMAT or version > FORMAT_VERSION:
            raise FormatError(
                f"{path}: found HDF5 of format '{found}' {version}, expected '{FORMAT}' up to {FORMAT_VERSION}"
            )
        return _read(file)


def _read(file: h5py.File) -> Series:
    images = tuple(record_of(parse_json(text)) for text in texts(file, "images", length(file, "images")))
    if not any(image.status == "ok" and "all" in image.subsets for image in images):
        raise ValueError("no image that was used")
    count = length(file, "epoch")
    if not count:
        raise ValueError("no epoch")
    epochs = read(file, "epoch", Expected((count,), ("int64",))).tolist()
    stages = texts(file, "stage", count)
    scores = [_scores(parse_json(text)) for text in texts(file, "scores", count)]
    if sorted(set(epochs)) != epochs or not -1 < min(epochs) <= max(epochs) < 1e9:
        raise ValueError("epochs are not in rising order")
    origins = [provenance_of(parse_json(text)) for text in texts(file, "provenance", count)]
    for other in origins[1:]:
        differences = unlike(origins[0], other, _SAME)
        if differences:
            raise ValueError(f"its moments differ in {', '.join(differences)}")
    profiles = {name: _read_profiles(file, name, origins[0], count, images) for name in origins[0].definitions}
    moments = [
        Moment(epoch, stage, origin, {name: stacked[place] for name, stacked in profiles.items()}, score)
        for place, (epoch, stage, origin, score) in enumerate(zip(epochs, stages, origins, scores, strict=True))
    ]
    return Series(images, _read_overview(file, origins[0], len(images)), tuple(moments))


def _scores(values: Any) -> dict[str, float]:
    # Some are not finite: validation images of one class have no AUC.
    if not isinstance(values, dict) or not all(isinstance(it, (int, float)) for it in values.values()):
        raise ValueError("scores are no numbers by name")
    return values


def _read_profiles(
    file: h5py.File, definition: str, origin: Provenance, count: int, images: Sequence[ImageRecord]
) -> list[Profile]:
    """Read the profiles of all images, by snapshot."""
    group, blank = child(child(file, "footprints", h5py.Group), definition, h5py.Group), blank_profile(origin)
    expected = {name: Expected((count, len(images), *row.shape), ("float32", "float64")) for name, row in kept(blank)}
    missing = np.empty((count, len(images), 0), np.float32)
    arrays = [read(group, name, expected[name]) if name in expected else missing for name in PROFILE_ARRAYS]
    used = [row for row, image in enumerate(images) if image.status == "ok"]
    if not all(are_sound(array[:, used]) for array in arrays):
        raise ValueError(f"{group.name} has values that are not finite")
    return [Profile(*(array[place] for array in arrays)) for place in range(count)]


def _read_overview(file: h5py.File, origin: Provenance, images: int) -> Overview | None:
    if "overview" not in file:
        return None
    group, blank = child(file, "overview", h5py.Group), blank_overview(origin)
    arrays = {name: getattr(blank, name) for name in OVERVIEW}
    return Overview(
        *(read(group, name, Expected((images, *it.shape), (it.dtype.name,))) for name, it in arrays.items())
    )
