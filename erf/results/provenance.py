"""Provenance of a result: everything needed to repeat the measurement and to interpret its maps."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from erf.box import Box
from erf.definitions import shown_definition
from erf.results.grid import Grid

SHIPPED = "shipped/"
"""Prefix of `Origin.weights` for weights that are part of the package."""

OWN = "of "
"""Prefix of `Origin.weights` for weights that a module or a factory has brought, followed by its name."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Facts about a run that only the caller knows."""

    model: str = ""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the model that differ from its defaults."""
    weights: str = ""
    """Path of the weights file, or `SHIPPED` or `OWN` followed by a name; '' for untrained weights."""
    weights_sha256: str = ""
    image_seed: int = 0
    """Seed of the random selection of images, and of phantoms."""
    source: str = ""
    """Source of the images, such as a folder or manifest."""
    command: str = ""
    protocol: str = ""
    """Published protocol that was followed, '' for none."""
    deviations: tuple[str, ...] = ()
    """Options that differ from the protocol's."""
    identity: str = ""
    """SHA-256 of the settings and the list of images of the whole run; '' if the caller does not give it."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Provenance(Origin):
    """Complete description of a measurement: enough to repeat it, and to interpret the maps without the model."""

    seed: int = 0
    """Seed of random signs, random projections and random numbers in the network; also of untrained weights."""
    layer: str
    unit: tuple[int, ...]
    """(y, x) in the layer's map; for aligned maps, the unit to which they are shifted."""
    units: str = ""
    """Rule by which units were chosen, such as 'max' or 'grid:3x3'; '' for the centre or a given position."""
    aligned: bool = False
    """Whether maps were shifted so that their units coincide."""
    channel: str = "all"
    """Channels of the unit that are differentiated: 'all', a number, or 'signs' for random signs on all."""
    activation: str = "none"
    """Function of the unit's values of which the gradient is taken, such as 'relu' or 'softmax'."""
    method: str = "gradient"
    """Attribution method, one of `METHODS`."""
    method_options: Mapping[str, Any] = field(default_factory=dict)
    layout: str = ""
    """Layout by which the layer's output is read as a map, in words."""
    inputs: tuple[str, ...] = ()
    """Names of the network's inputs if there are several; the subset `input=NAME` has the ERF of each."""
    slices: int = 0
    """Number of slices of a volume, over which maps are summed; 0 for images."""
    eval_mode: str = ""
    """Modules that behave differently in training: those switched off, and those with running statistics."""
    random: bool = False
    """Whether the network or the method draws random numbers, which are seeded per image."""
    unit_center: tuple[float, float]
    """(y, x) of the unit projected to the input, in pixels."""
    input_shape: tuple[int, int, int]
    """(C, H, W) of an image."""
    feature_shape: tuple[int, ...]
    """(C, H, W) of the layer's map."""
    field_size: tuple[float, float]
    """(height, width) of the unit's theoretical receptive field in pixels; infinite where an operator is global."""
    field_shift: tuple[float, float] = (0.0, 0.0)
    """(y, x) in pixels from the unit's centre to the middle of that field; not 0 where neighbours share up-sampled
    units."""
    field_stride: tuple[float, float]
    parameters: int = 0
    """Number of parameters of the network; 0 in older files, and where it is not known."""
    depth: int = 0
    """Number of operators the forward pass runs before the layer returns."""
    crop: tuple[int, ...] = ()
    """(top, left, bottom, right) in pixels of the part of the image given to the network; empty in older files. The
    gradient is zero outside it, which lies outside the theoretical receptive field."""
    self_check: Mapping[str, str] = field(default_factory=dict)
    """Result of the self-check: the ways of computing compared, their difference, and the way used."""
    field_kind: str = "finite"
    """'finite', 'infinite', 'data-dependent' where moving kernel taps leave no bound, or 'unknown' if imported."""
    definitions: tuple[str, ...]
    normalisation: str
    fit: str = "pad"
    """How images were brought to the size of the input."""
    interpolation: str = "bilinear"
    mirrored: bool = False
    """Whether every image was flipped left to right inside its frame; `laterality` is that before the flip."""
    projections: int = 1
    """Number of draws of the model's random projections; each image's map is the mean over them. The first draw is the
    model's own."""
    precision: str = "float32"
    """Precision of convolutions and matrix products: 'float32' means that of the weights."""
    precision_error: float = 0.0
    """Error of the gradient on noise: sum of absolute differences to full precision, relative to its sum."""
    shard: tuple[int, int] = (1, 1)
    """(i, n), counted from 1: part i of n of a run's images; its means and variances are in double precision."""
    small_block: int = 1
    """Longest side of the blocks over which the downsampled per-image maps are summed, in pixels."""
    finest_block: int = 0
    """Side in pixels of the blocks at the unit, from which they grow; 0, in older files, where all are equal."""
    device: str = ""
    deterministic: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    imported: Mapping[str, str] = field(default_factory=dict)
    """For a map that another program has computed: its 'file', the 'array' in it, its 'sha256', and whether the
    'centre' of the unit was given or assumed. Empty for a run."""
    created: str = ""
    """ISO 8601, UTC."""

    @property
    def weights_text(self) -> str:
        """Whether the network was trained, for captions."""
        if self.imported:
            return "imported"
        if self.weights.startswith(SHIPPED):
            return "shipped weights, trained on phantoms"
        if self.weights.startswith(OWN):
            return "its own weights"
        return f"weights {Path(self.weights).name}" if self.weights else f"untrained, seed {self.seed}"

    @property
    def title(self) -> str:
        """The model and the options with which it was built."""
        return ", ".join([self.model, *(f"{name} {value}" for name, value in self.model_options.items())])

    @property
    def target(self) -> str:
        """The measured unit in words, with the method if it is not the plain gradient of all channels."""
        return _target(self)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        return (
            f"Provenance of {self.title}, {self.weights_text}\n{self.target}; input {shape}, definitions "
            f"{', '.join(self.definitions)}; `described()` lists all attributes"
        )

    def described(self) -> list[tuple[str, str]]:
        """List every attribute with its value in words."""
        unknown = _NOT_IMPORTED if self.imported else ()
        return [
            (name.replace("_", " "), "not known" if name in unknown else _words(name, getattr(self, name)))
            for name in PROVENANCE
        ]

    @property
    def is_scaled(self) -> bool:
        """Whether images were scaled, so that pixels of the map are none of the detector."""
        return self.fit != "pad"

    @property
    def shown_definition(self) -> str:
        """The definition that tables and pictures show by default."""
        return shown_definition(self.definitions)

    @property
    def grid(self) -> Grid:
        """Grid of blocks and zones of the per-image sums."""
        _, height, width = self.input_shape
        return Grid((height, width), self.small_block, self.unit_center, self.finest_block, self.field_box())

    def field_box(self) -> Box[float] | None:
        """Return the box of the theoretical field in pixels; None if it is infinite."""
        if not np.isfinite(self.field_size).all():
            return None
        (y, x), (height, width) = np.add(self.unit_center, self.field_shift).tolist(), self.field_size
        return Box(y - height / 2, x - width / 2, y + height / 2, x + width / 2)


_NOT_IMPORTED = (
    *(
        "model_options",
        "weights",
        "weights_sha256",
        "image_seed",
        "source",
        "seed",
        "layer",
        "unit",
        "channel",
        "activation",
    ),
    *("method", "method_options", "layout", "eval_mode", "random", "feature_shape", "field_size", "field_shift"),
    *(
        "field_stride",
        "field_kind",
        "parameters",
        "depth",
        "crop",
        "self_check",
        "normalisation",
        "fit",
        "interpolation",
        "projections",
    ),
    *("precision", "precision_error", "device", "deterministic"),
)
"""Attributes that an imported map does not tell."""

_INPUT = "input="

ASSUMED = "assumed in the middle"
"""Value of `Provenance.imported["centre"]` where nobody has said where the unit is."""


def input_subset(name: str) -> str:
    """Return the name of the subset of images given to one of a network's inputs."""
    return f"{_INPUT}{name}"


def without_input(subsets: Sequence[str]) -> tuple[str, ...]:
    """Return the subsets of a case, given those of one of its images: without the input's own."""
    return tuple(name for name in subsets if not name.startswith(_INPUT))


def unit_labels(origins: Sequence[Provenance]) -> list[str]:
    """Return short, distinct names of several results: layers, and units where a layer has several."""
    layers, units = [origin.layer for origin in origins], [",".join(map(str, origin.unit)) for origin in origins]
    if len(set(layers)) == len(layers):
        return layers
    if len(set(layers)) == 1:
        return [f"unit {unit}" for unit in units]
    return [f"{layer} {unit}" for layer, unit in zip(layers, units, strict=True)]


def unlike(one: Provenance, other: Provenance, names: Iterable[str]) -> list[str]:
    """Return those of the named attributes that differ, with both values in words."""
    here, there = (dict(each.described()) for each in (one, other))
    words = [name.replace("_", " ") for name in names]
    return [f"{name} {here[name]} and {there[name]}" for name in words if here[name] != there[name]]


def _target(origin: Provenance) -> str:
    if origin.imported:
        assumed = f" {ASSUMED}," if origin.imported.get("centre") == ASSUMED else ""
        return f"map of {origin.imported.get('file') or 'an array'}, unit{assumed}"
    if origin.aligned:
        units = f"units {origin.units or 'of several positions'}, aligned on one"
    else:
        window = f"window of {origin.units.removeprefix('window:').partition('@')[0]} units around "
        units = window if origin.units.startswith("window:") else "unit "
        units += ",".join(map(str, origin.unit))
    words = [f"layer {origin.layer}", units if origin.activation == "none" else f"{origin.activation} of {units}"]
    if origin.channel != "all":
        words.append("random signs on all channels" if origin.channel == "signs" else f"channel {origin.channel}")
    if origin.method != "gradient":
        given = "".join(f" {name}={value}" for name, value in origin.method_options.items())
        words.append(f"by {origin.method}{given} instead of the gradient")
    if origin.precision != "float32":
        words.append(f"in {origin.precision}, which changes the gradient on noise by {origin.precision_error:.2g}")
    if origin.slices:
        words.append(f"summed over {origin.slices} slices")
    return ", ".join(words)


def _words(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "–"
    if isinstance(value, tuple):
        separator = " × " if "shape" in name or "size" in name else ", "
        return separator.join(_words(name, item) for item in value)
    if isinstance(value, float):
        return "infinite" if math.isinf(value) else f"{value:g}"
    return str(value) if value != "" else "–"


PROVENANCE = tuple(item.name for item in fields(Provenance))
