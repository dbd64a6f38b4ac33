"""Records of the images of a run: what the results tell about each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from erf.engine.accumulators import Accumulator, Measurement, Subsets
from erf.engine.batches import ImageGradients, moved
from erf.engine.settings import Settings
from erf.engine.units import MeasuredUnit
from erf.images import Failure, Image, Sample, overview
from erf.network.layers import Unit
from erf.profiling import stage
from erf.results import ImageRecord, Overview, Row, blank_overview


@dataclass(frozen=True)
class RecordBuilder:
    """Builds the rows of an image: for each accumulator its record, per-image profiles and overview."""

    measurements: Sequence[Measurement]
    settings: Settings
    thumbnails: bool
    """Whether results may contain thumbnails of the images."""

    def used(
        self, sample: Sample, subsets: Subsets, gradients: ImageGradients, notes: Mapping[MeasuredUnit, tuple[str, ...]]
    ) -> list[Row]:
        """Accumulate the gradients of an image and return its rows.

        Args:
            sample: the image.
            subsets: the subsets to which it belongs.
            gradients: its gradients.
            notes: remarks about the gradient of each measured unit.
        """
        rows = []
        for each in self.measurements:
            own, draws = gradients.own_units.get(each.unit, ()), gradients.maps[each.unit]
            for index, accumulator in enumerate(each.accumulators):
                part = sample.parts[index] if sample.parts else sample
                record = _used_record(part, sample.image, accumulator, subsets, own, notes[each.unit])
                profiles = accumulator.add(draws)
                with stage("thumbnail"):
                    rows.append(Row(record, profiles, self._overview(part, each, own)))
        return rows

    def failed(self, failure: Failure, subsets: Subsets) -> list[Row]:
        """Return the rows of an image that could not be used."""
        image = failure.image
        rows = []
        for each in self.measurements:
            for accumulator in each.accumulators:
                record = _record(image, image, accumulator, subsets)
                rows.append(Row(replace(record, status="failed", message=failure.reason), {}, None))
        return rows

    def _overview(self, sample: Sample, measurement: Measurement, own: tuple[Unit, ...]) -> Overview:
        """Make the overview of an image, shifted like its map; black where maps of several units are averaged."""
        origin, pixels = measurement.provenance, sample.pixels
        if self.settings.moves and len(own) != 1:
            return blank_overview(origin)
        if self.settings.arguments.names and not sample.parts:
            pixels = pixels[:1]
        if own and any(by := measurement.unit.shift(own[0])):
            pixels = moved(torch.from_numpy(pixels), by, float(pixels.min())).numpy()
        shown = Overview(*overview(pixels, origin.small_block))
        return shown if self.thumbnails else replace(shown, thumbnail=np.zeros_like(shown.thumbnail))


def _used_record(
    sample: Sample,
    case: Image,
    accumulator: Accumulator,
    subsets: Subsets,
    own: tuple[Unit, ...],
    notes: tuple[str, ...],
) -> ImageRecord:
    """Return the record of an image that was used, with its own units if it has any."""
    record = _record(sample.image, case, accumulator, subsets)
    columns = dict(record.columns) | ({"unit": ";".join(",".join(map(str, unit)) for unit in own)} if own else {})
    return replace(record, message="; ".join(sample.notes + notes), sha256=sample.sha256, columns=columns)


def _record(image: Image, case: Image, accumulator: Accumulator, subsets: Subsets) -> ImageRecord:
    """Return what is known of an image before it is decoded; `case` holds the images of all inputs."""
    name = accumulator.name
    return ImageRecord(
        id=f"{image.id}:{name}" if name else image.id,
        path=image.path,
        laterality=image.laterality,
        view=image.view,
        patient_id=image.patient_id or case.patient_id,
        status="ok",
        pixel_spacing=image.pixel_spacing,
        columns=dict(image.columns) | ({"input": name} if name else {}),
        subsets=accumulator.subsets(subsets),
        number=case.number,
    )
