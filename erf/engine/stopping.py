"""Rule by which a run stops before its last image: a measure is known to the requested precision."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from erf.measures import observe_images
from erf.results import Footprint, ImageRecord, Provenance, Row, stack_footprints

if TYPE_CHECKING:
    from erf.uncertainty import Precision


@dataclass
class StoppingRule:
    """Tells when there are enough images; never, without a precision."""

    precision: "Precision | None"
    definition: str
    """Definition of the maps that are measured."""
    used: list[tuple[ImageRecord, Footprint]] = field(default_factory=list)
    """Records and per-image profiles of the images so far; empty without a precision."""

    def add(self, row: Row) -> None:
        """Add an image that was used."""
        if self.precision:
            self.used.append((row.record, row.footprints[self.definition]))

    def is_met(self, provenance: Provenance) -> bool:
        if not self.precision or not self.used:
            return False
        records, footprints = zip(*self.used, strict=True)
        observed = observe_images(provenance, records, stack_footprints(footprints))
        return self.precision.is_reached(self.precision.estimate(observed))
