"""Sinks: destinations of a run's results."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from erf.results.erf import ERF, ImageRecord, Statistics
from erf.results.profiles import OVERVIEW, Overview, Profile, blank_overview, blank_profile, stack_profiles
from erf.results.provenance import Provenance


class Sink(Protocol):
    """Destination of a run's results; its methods are called in this order."""

    def begin(self, provenance: Provenance) -> None:
        """Start the results; called once, before any image."""

    def add_image(self, record: ImageRecord, profiles: Mapping[str, Profile], overview: Overview | None = None) -> None:
        """Add one image; called once per image, with profiles by definition, or none and no overview if it failed."""

    def add_statistics(self, subset: str, definition: str, statistics: Statistics) -> None:
        """Add the maps of one subset and definition; called after all images."""

    def result(self) -> ERF:
        """Complete the results and return them; called last."""


class MemorySink:
    """Sink that collects the results in memory."""

    def begin(self, provenance: Provenance) -> None:
        self._provenance = provenance
        self._images: list[ImageRecord] = []
        self._profiles: list[Mapping[str, Profile]] = []
        self._overviews: list[Overview] = []
        self._subsets: dict[str, dict[str, Statistics]] = {}

    def add_image(self, record: ImageRecord, profiles: Mapping[str, Profile], overview: Overview | None = None) -> None:
        self._images.append(record)
        self._profiles.append(profiles)
        self._overviews.append(overview or blank_overview(self._provenance))

    def add_statistics(self, subset: str, definition: str, statistics: Statistics) -> None:
        self._subsets.setdefault(subset, {})[definition] = statistics

    def result(self) -> ERF:
        profiles = {name: self._stack(name) for name in self._provenance.definitions}
        arrays = (np.stack([getattr(each, name) for each in self._overviews]) for name in OVERVIEW)
        overview = Overview(*arrays)
        return ERF(self._provenance, self._subsets, tuple(self._images), profiles, lambda: overview)

    def _stack(self, definition: str) -> Profile:
        blank = blank_profile(self._provenance)
        return stack_profiles([profiles.get(definition, blank) for profiles in self._profiles])
