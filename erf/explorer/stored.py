"""An ERF file, as the explorer shows it."""

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erf.box import Box
from erf.errors import InputError
from erf.results import ERF

_MAPS = 4
"""Mean maps that stay in memory."""


@dataclass
class StoredField:
    """The maps of an ERF file."""

    path: Path
    erf: ERF
    _maps: "OrderedDict[tuple[str, str], NDArray[np.float32]]" = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def box(self) -> Box[float]:
        _, height, width = self.erf.provenance.input_shape
        return Box(0.0, 0.0, float(height), float(width))

    def mean(self, subset: str, definition: str) -> NDArray[np.float32]:
        """Return the mean map (H, W); raises `InputError` if the file has no such subset or definition."""
        self.erf.check(subset, definition)
        with self._lock:
            if (subset, definition) not in self._maps:
                self._maps[subset, definition] = np.asarray(self.erf.statistics(subset, definition).mean, np.float32)
                if len(self._maps) > _MAPS:
                    self._maps.popitem(last=False)
            return self._maps[subset, definition]

    def of_image(self, row: int, definition: str) -> NDArray[np.float32]:
        """Return the downsampled map of one image as a density (h, w), over square blocks of the image."""
        self.row(row)
        self.erf.check("all", definition)
        grid = self.erf.provenance.grid
        small = self.erf.profiles[definition].small[row].astype(np.float64)
        return np.asarray(grid.evened(small) / grid.even.areas, np.float32)

    def row(self, number: int) -> int:
        """Return the number of an image that was used; raises `InputError` if there is none."""
        if not 0 <= number < len(self.erf.images) or self.erf.images[number].status != "ok":
            raise InputError(f"image {number} of {self.path.name}: not among those that were used")
        return number

    def background(self, subset: str, row: int | None = None) -> NDArray[np.float32] | None:
        """Return the thumbnail (1, h, w) of an image, or the mean of those of a subset; None where none are kept."""
        overview = self.erf.overview()
        if overview is None or not overview.thumbnail.any():
            return None
        rows = [self.row(row)] if row is not None else self._rows(subset)
        return np.asarray(overview.thumbnail[rows].mean(0, dtype=np.float64)[None], np.float32) if rows else None

    def _rows(self, subset: str) -> list[int]:
        images = enumerate(self.erf.images)
        return [index for index, image in images if image.status == "ok" and subset in image.subsets]

    def describe(self, number: int) -> dict[str, Any]:
        """Return what the page must know of the file."""
        about, erf = self.erf.provenance, self.erf
        field_box = about.field_box()
        definitions = list(about.definitions)
        return {
            "id": number,
            "name": self.path.name,
            "title": about.title,
            "size": list(about.input_shape[1:]),
            "layer": about.layer,
            "unit": list(about.unit),
            "center": list(about.unit_center),
            "field": None if field_box is None else list(field_box),
            "subsets": [{"name": name, "count": erf.count(name)} for name in erf.subsets],
            "definitions": sorted(definitions, key=lambda name: name != about.shown_definition),
            "images": [
                {"id": row, "name": image.id, "laterality": image.laterality, "view": image.view}
                for row, image in enumerate(erf.images)
                if image.status == "ok"
            ],
        }
