"""Results as objects of pandas and xarray, which are imported only here."""

from importlib import import_module
from typing import Any

from erf.comparison import ComparisonTable
from erf.comparison.formats import records
from erf.errors import InputError
from erf.frames.tree import to_tree
from erf.results import ERF, ImageRecord

__all__ = ["to_pandas", "to_xarray"]


def to_xarray(erf: ERF) -> Any:
    """Return maps and curves with coordinates.

    Args:
        erf: The ERF; all of its maps are read.

    Returns:
        An `xarray.DataTree` with a dataset for each subset: `mean` and `variance` (definition, y, x), `across_rows`
        (definition, x), `across_columns` (definition, y), and the number of images as the attribute `count`.
        Coordinates are in pixels, `y_mm` and `x_mm` in millimetres where all images have one pixel spacing. The
        attributes of the tree are the provenance in words. In names of subsets, U+2215 stands for a slash.

    Raises:
        InputError: xarray is not installed.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> result = erf.compute(model, n=4, size=(64, 48), layer="1", device="cpu", progress=False)
        >>> dict(erf.to_xarray(result)["left"]["mean"].sizes)
        {'definition': 1, 'y': 64, 'x': 48}
    """
    return to_tree(erf, _library("xarray"))


def to_pandas(data: ERF | ComparisonTable) -> Any:
    """Return a `pandas.DataFrame`: the images of an ERF, or the numbers of a comparison.

    Args:
        data: An ERF, one row per image, with the columns of its manifest; or a table of `compare`, one row per ERF and
            measure.

    Returns:
        The frame.

    Raises:
        InputError: pandas is not installed.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> result = erf.compute(model, n=4, size=(64, 48), layer="1", device="cpu", progress=False)
        >>> erf.to_pandas(result).groupby("laterality").size().to_dict()
        {'left': 2, 'right': 2}
    """
    pandas = _library("pandas")
    if isinstance(data, ComparisonTable):
        return pandas.DataFrame.from_records(list(records(data)))
    return pandas.DataFrame.from_records([_row(image) for image in data.images])


def _row(image: ImageRecord) -> dict[str, Any]:
    """Fields of a record, and the columns of its manifest; of these, one with the name of a field gets a prefix."""
    known = {name: value for name, value in vars(image).items() if name != "columns"}
    return known | {f"manifest.{name}" if name in known else name: value for name, value in image.columns.items()}


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"{name} is not installed ({error})", remedy="install it with: pip install 'erf-toolkit[frames]'"
        ) from error
