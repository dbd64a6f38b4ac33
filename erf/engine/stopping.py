"""Application of a stopping rule to the images of a run."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from erf.measures import observe_images
from erf.results import ImageRecord, Profile, Provenance, Row, stack_profiles

if TYPE_CHECKING:
    from erf.uncertainty import StoppingRule


@dataclass
class Stopping:
    """Tells when there are enough images; never, without a rule."""

    rule: "StoppingRule | None"
    definition: str
    """Definition of the maps that are measured."""
    used: list[tuple[ImageRecord, Profile]] = field(default_factory=list)
    """Records and per-image profiles of the images so far; empty without a rule."""

    def add(self, row: Row) -> None:
        """Add an image that was used."""
        if self.rule:
            self.used.append((row.record, row.profiles[self.definition]))

    def is_met(self, provenance: Provenance) -> bool:
        if not self.rule or not self.used:
            return False
        records, profiles = zip(*self.used, strict=True)
        observed = observe_images(provenance, records, stack_profiles(profiles))
        return self.rule.is_reached(self.rule.estimate(observed))
