"""Maps and curves of an ERF as a tree of data sets."""

from typing import Any

import numpy as np

from erf.results import ERF

_DIMENSIONS = {
    "mean": ("definition", "y", "x"),
    "variance": ("definition", "y", "x"),
    "across_rows": ("definition", "x"),
    "across_columns": ("definition", "y"),
}


def to_tree(erf: ERF, xarray: Any) -> Any:
    """Return an `xarray.DataTree` with a dataset for each subset; `xarray` is the imported library."""
    coordinates = _coordinates(erf)
    subsets = {
        # A slash would begin another level of the tree.
        subset.replace("/", "∕"): xarray.Dataset(_arrays(erf, subset), coordinates, {"count": erf.count(subset)})
        for subset in erf.subsets
    }
    about = xarray.Dataset(attrs=dict(erf.provenance.described()))
    return xarray.DataTree.from_dict({"/": about, **subsets}, name=erf.provenance.title)


def _arrays(erf: ERF, subset: str) -> dict[str, Any]:
    statistics = [erf.statistics(subset, definition) for definition in erf.provenance.definitions]
    return {
        name: (dimensions, np.stack([getattr(each, name) for each in statistics]))
        for name, dimensions in _DIMENSIONS.items()
    }


def _coordinates(erf: ERF) -> dict[str, Any]:
    """Positions of pixel centres along y and x, also in millimetres where all images have one spacing."""
    found: dict[str, Any] = {"definition": list(erf.provenance.definitions)}
    spacings = {image.pixel_spacing for image in erf.images if image.status == "ok"}
    is_known = len(spacings) == 1 and np.isfinite([*spacings]).all() and not erf.provenance.is_scaled
    for axis, length in zip("yx", erf.provenance.input_shape[1:], strict=True):
        found[axis] = (axis, np.arange(length), {"units": "px"})
        if is_known:
            found[f"{axis}_mm"] = (axis, np.arange(length) * next(iter(spacings)), {"units": "mm"})
    return found
