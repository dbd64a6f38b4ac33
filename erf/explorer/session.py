"""What one explorer shows: networks with their images, ERF files, and the fields that were computed."""

import base64
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps

from erf.building.network import SMALLER
from erf.definitions import DEFINITIONS
from erf.errors import InputError
from erf.explorer.field import Field, FieldStore, Place
from erf.explorer.numbers import SHOWN
from erf.explorer.stored import StoredField
from erf.explorer.subject import Subject
from erf.explorer.worker import Worker
from erf.gradients.graph import Cancelled
from erf.gradients.projective import project
from erf.gradients.units import one_channel
from erf.images import Image
from erf.network.devices import available_memory, memory_errors
from erf.text import one_line
from erf.theory.layers import MappedLayer

COLORS = ("viridis", "cividis", "magma", "inferno", "gray", "RdBu_r")
"""Colour maps of matplotlib; all but the last, for signed maps, rise evenly in lightness."""

_MOST_MEMORY = 1e6
"""Gigabytes that no machine has."""

_PAUSE = 2.0
"""Seconds without a request after which a field is compared with the plain computation."""

_WORDS = {
    "signed": "sum of the gradient over channels, with its sign",
    "abs": "sum of its absolute values",
    "relu": "sum of its positive part",
    "square": "sum of its squares",
    "relu-sum": "positive part of its sum",
    "abs-sum": "absolute value of its sum",
}
"""Definitions of a map, in words."""


@dataclass
class Session:
    """Networks, images and files of an explorer, and one worker that computes."""

    subjects: Sequence[Subject] = ()
    files: Sequence[StoredField] = ()
    worker: Worker = field(default_factory=Worker)
    fields: FieldStore = field(default_factory=FieldStore)
    _projected: set[tuple[int, str]] = field(default_factory=set)
    """Networks and layers whose projective field was compared with the gradient once."""

    def __post_init__(self) -> None:
        for subject in self.subjects:
            subject.is_ended = self.worker.is_stopped

    def subject(self, number: int) -> Subject:
        """Return a network by number; raises `InputError` if there is none."""
        if not 0 <= number < len(self.subjects):
            raise InputError(f"network {number}; expected a number below {len(self.subjects)}")
        return self.subjects[number]

    def file(self, number: int) -> StoredField:
        """Return an ERF file by number; raises `InputError` if there is none."""
        if not 0 <= number < len(self.files):
            raise InputError(f"file {number}; expected a number below {len(self.files)}")
        return self.files[number]

    def found(self, name: str) -> Field:
        """Return a field that was computed; raises `InputError` if it was given up since."""
        known = self.fields.get(name)
        if known is None:
            raise InputError(f"field {name} is no longer there; ask for it again")
        return known

    def compute(self, place: Place, is_cancelled: Cancelled) -> Field:
        """Compute the receptive field of a unit, and compare the way with the plain one when there is time."""
        subject = self.subject(place.network)
        found = subject.field(place, self.fields.next_id(), is_cancelled)
        self.fields.add(found)
        if place.layer not in subject.checks:
            self.worker.when_idle(
                f"check {place.network} {place.layer}", lambda wanted: subject.check(found, wanted), _PAUSE
            )
        return found

    def project(self, place: Place, is_cancelled: Cancelled) -> Field:
        """Compute the projective field of a pixel in the units of a layer."""
        began, subject = time.perf_counter(), self.subject(place.network)
        subject.check_part(place.part)
        if place.pixel is None:
            raise InputError("no pixel was asked for")
        network, traced = subject.network, subject.layer(place.layer).trace
        pixel = (math.floor(place.pixel[0] + 0.5), math.floor(place.pixel[1] + 0.5))
        channel = one_channel(place.channel, place.layer, traced.feature_shape[0])
        channels = network.arguments.channels(network.input_shape)[place.part]
        with memory_errors(SMALLER):
            seen = project(
                network.model,
                subject.passes.inputs(subject.pictures.sample(place.image)),
                place.layer,
                traced,
                pixel,
                arrange=network.arguments,
                channel=channel,
                channels=range(*channels.indices(network.input_shape[0])),
                definition="signed",
                check=(place.network, place.layer) not in self._projected,
                seed=subject.seed,
                is_cancelled=is_cancelled,
            )
        self._projected.add((place.network, place.layer))
        found = Field(
            id=self.fields.next_id(),
            place=replace(place, pixel=(float(pixel[0]), float(pixel[1])), definition="signed"),
            kind="projective",
            map=seen.map,
            box=seen.box,
            size=network.size,
            center=(float(pixel[0]), float(pixel[1])),
            way=seen.way,
            seconds=time.perf_counter() - began,
        )
        self.fields.add(found)
        return found

    def look(self, network: int, image: int) -> None:
        """Prepare the first field of an image that is looked at, when there is time."""
        subject = self.subject(network)
        self.worker.when_idle(f"prepare {network}", lambda wanted: subject.prepare(image, wanted))

    @property
    def title(self) -> str:
        names = [each.network.name for each in self.subjects] + [each.path.name for each in self.files]
        return one_line(", ".join(names))

    @cached_property
    def description(self) -> dict[str, Any]:
        """Everything that the page must know at its start."""
        images = self.subjects[0].images.images if self.subjects else ()
        return {
            "version": version("erf-toolkit"),
            "title": self.title,
            "networks": [_network(number, subject) for number, subject in enumerate(self.subjects)],
            "images": [_image(number, image) for number, image in enumerate(images)],
            "files": [stored.describe(number) for number, stored in enumerate(self.files)],
            "definitions": [{"name": name, "description": _WORDS[name]} for name in DEFINITIONS],
            "measures": [{"name": one.name, "unit": one.unit, "description": one.description} for one in SHOWN],
            "colors": {name: _colors(name) for name in COLORS},
            "select": {"network": 0, "image": 0},
        }

    def close(self) -> None:
        """End the worker's thread."""
        self.worker.stop()


def _network(number: int, subject: Subject) -> dict[str, Any]:
    network = subject.network
    parameters = sum(each.numel() for each in network.model.parameters())
    shape = "x".join(map(str, network.input_shape))
    weights = network.weights or f"untrained, seed {network.seed}"
    return {
        "id": number,
        "name": one_line(network.name),
        "description": one_line(f"input {shape}, {parameters:,} parameters, weights {weights}"),
        "size": list(network.size),
        "inputs": list(network.arguments.names),
        "default_layer": subject.default_layer,
        "layers": [_layer(point) for point in subject.layers.values()],
    }


def _layer(point: MappedLayer) -> dict[str, Any]:
    traced = point.trace
    return {
        "name": point.name,
        "module": point.kind,
        "channels": traced.feature_shape[0],
        "shape": list(traced.feature_shape[1:]),
        "stride": list(traced.field.stride),
        "field": list(traced.field.size) if traced.field.kind == "finite" else None,
        "unbounded_by": ", ".join(traced.field.unbounded_by),
    }


def _image(number: int, image: Image) -> dict[str, Any]:
    return {"id": number, "name": one_line(image.id), "laterality": image.laterality, "view": one_line(image.view)}


def _colors(name: str) -> str:
    table = np.asarray(colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255)
    return base64.b64encode(np.rint(table).astype(np.uint8).tobytes()).decode()


def check_same_images(subjects: Sequence[Subject]) -> None:
    """Raise `InputError` unless all networks have the same images, in the same order."""
    lists = {tuple(image.id for image in subject.images.images) for subject in subjects}
    if len(lists) > 1:
        raise InputError("networks with different images; expected the same for all")


def pick_memory(gigabytes: float | None, device: torch.device) -> int:
    """Return the bytes that kept graphs may take: as given, or half of what is free."""
    if gigabytes is not None and not 0 <= gigabytes < _MOST_MEMORY:
        raise InputError(f"memory of {gigabytes:g} GB; expected 0 or more, below {_MOST_MEMORY:g}")
    return available_memory(device) // 2 if gigabytes is None else int(gigabytes * 1e9)
