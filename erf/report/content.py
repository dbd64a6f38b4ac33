"""Content of a report as plain data: maps, curves with bands, images, provenance, and the meaning of measures."""

import base64
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from erf.comparison import ComparisonTable
from erf.comparison.formats import caption, difference_rows, value_rows
from erf.measures import Observations, observe_subsets, smooth, stretch_length
from erf.plotting.panels import common_size, describe_field, model_colors, shrink
from erf.plotting.thumbnails import data_url, shaded
from erf.results import ERF
from erf.results.grid import Array
from erf.storage.privacy import identifiers
from erf.uncertainty import Resampling, bands
from erf.uncertainty.threads import map_in_threads

MAP_PIXELS = 256
"""Longest side of the maps in a page."""

IMAGES_SHOWN = 120
"""Largest number of images per ERF in the image browser."""

_KEPT_BACK = ("paths of images", "sums over contents, for who has the image", "columns of the manifest")
"""Fields of a file that identify patients or images, and are left out of a page."""

_BANDS = Resampling(resamples=400, method="percentile")
_DIGITS = 5


def describe(table: ComparisonTable) -> dict[str, Any]:
    """Collect everything shown on a page, ready for JSON."""
    erfs = table.erfs
    size = common_size(erfs)
    definitions = [
        name for name in erfs[0].provenance.definitions if all(name in erf.provenance.definitions for erf in erfs)
    ]
    subsets = [name for name in erfs[0].subsets if all(name in erf.subsets for erf in erfs)]
    return {
        "labels": list(table.labels),
        "private": _private(erfs),
        "colors": list(model_colors(erfs)),
        "size": list(size),
        "subsets": subsets,
        "definitions": definitions,
        "definition": table.definition,
        "centers": [list(erf.provenance.unit_center) for erf in erfs],
        "boxes": [erf.provenance.field_box() for erf in erfs],
        "fields": [describe_field(erf) for erf in erfs],
        "panels": _all_panels(erfs, subsets, definitions),
        "images": map_in_threads(lambda erf: list(_images(erf, table.definition)), erfs),
        "values": value_rows(table),
        "differences": difference_rows(table) if len(erfs) > 1 else None,
        "caption": caption(table),
        "measures": [
            [measure.name, measure.description, measure.unit or "–", measure.bounds, measure.source]
            for measure in table.measures
        ],
        "provenance": [erf.provenance.described() for erf in erfs],
    }


def _private(erfs: Sequence[ERF]) -> str:
    """Describe the identifying information on the page; empty if there is none."""
    found: dict[str, int] = {}
    for erf in erfs:
        for one in identifiers(erf.images[:IMAGES_SHOWN], [erf.provenance], erf.overview()):
            found[one.what] = max(one.count, found.get(one.what, 0))
    shown = ", ".join(f"{what} ({count})" for what, count in found.items() if what not in _KEPT_BACK)
    return f"This page tells of whom images are: {shown}. Anonymised files hold none of it." if shown else ""


def _all_panels(erfs: Sequence[ERF], subsets: Sequence[str], definitions: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Maps and curves by `index of the ERF/subset/definition`."""
    keys = list(product(range(len(erfs)), definitions))
    found = map_in_threads(lambda key: dict(_panels(erfs[key[0]], subsets, key[1])), keys)
    return {
        f"{index}/{subset}/{definition}": panel
        for (index, definition), panels in zip(keys, found, strict=True)
        for subset, panel in panels.items()
    }


def _panels(erf: ERF, subsets: Sequence[str], definition: str) -> Iterator[tuple[str, dict[str, Any]]]:
    observed = {} if definition == "signed" else observe_subsets(erf, subsets, definition)
    for subset in subsets:
        yield subset, _panel(erf, subset, definition, observed.get(subset))


def _panel(erf: ERF, subset: str, definition: str, observed: Observations | None) -> dict[str, Any]:
    statistics = erf.statistics(subset, definition)
    stretch = stretch_length(max(erf.provenance.input_shape[1:]))
    curves = {name: getattr(statistics, name) for name in ("across_rows", "across_columns")}
    small, block = shrink(statistics.mean, MAP_PIXELS)
    largest = float(np.abs(small).max()) or 1.0
    return {
        "count": statistics.count,
        "shape": list(small.shape),
        "block": block,
        "map": _float32(small / largest),
        "curves": {
            name: _curve(observed, name, np.asarray(values, np.float64), stretch) for name, values in curves.items()
        },
    }


def _curve(observed: Observations | None, name: str, values: Array, stretch: int) -> dict[str, list[float]]:
    """Curves in thousandths of the total, over bins of pixels, with a band if there is mass."""
    total = np.abs(values).sum() or 1.0
    positions, means = smooth(1000 * values / total, stretch)
    curve = {"at": _rounded(positions), "share": _rounded(means)}
    if observed is not None:
        low, high = bands(observed, _BANDS, name, stretch)
        if np.isfinite(low).all():
            curve |= {"low": _rounded(1000 * low), "high": _rounded(1000 * high)}
    return curve


def _rounded(values: Array) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def _float32(values: NDArray[np.floating]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _images(erf: ERF, definition: str) -> Iterator[dict[str, Any]]:
    overview, small = erf.overview(), erf.provenance.grid.evened(erf.profiles[definition].small)
    for index, image in enumerate(erf.images[:IMAGES_SHOWN]):
        ok = image.status == "ok"
        yield {
            "id": image.id,
            "side": image.laterality,
            "view": image.view,
            "patient": image.patient_id,
            "message": image.message,
            "thumbnail": _grey(overview.thumbnail[index])
            if overview and ok and overview.thumbnail[index].any()
            else "",
            "map": _shaded(small[index]) if ok else "",
        }


def _grey(values: NDArray[np.uint8]) -> str:
    """Thumbnail in 64 levels of grey."""
    return data_url(Pillow.fromarray(values & 0xFC))


def _shaded(values: NDArray[np.floating]) -> str:
    """Map in 64 colours of viridis over four decades."""
    magnitude = np.abs(values)
    return shaded(np.log10(np.maximum(magnitude / (magnitude.max() or 1), 1e-4)) / 4 + 1)
