"""Effective receptive fields of vision models: compute, store, plot.

Names are resolved on first use, so that importing the package does not import PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erf.arguments import Arguments as Arguments
    from erf.attribution import UnitGradient as UnitGradient
    from erf.comparison import tabulate as tabulate
    from erf.definitions import DEFINITIONS as DEFINITIONS
    from erf.engine import compute as compute
    from erf.engine import compute_layers as compute_layers
    from erf.errors import CheckpointError as CheckpointError
    from erf.errors import ErfError as ErfError
    from erf.errors import FormatError as FormatError
    from erf.errors import ImageError as ImageError
    from erf.errors import InputError as InputError
    from erf.errors import InsufficientMemoryError as InsufficientMemoryError
    from erf.errors import InterruptedRunError as InterruptedRunError
    from erf.errors import LayerError as LayerError
    from erf.errors import OutputError as OutputError
    from erf.geometry import ReceptiveField as ReceptiveField
    from erf.gradients import unit_gradient as unit_gradient
    from erf.images import draw_phantom as draw_phantom
    from erf.images import from_arrays as from_arrays
    from erf.images import load_images as load_images
    from erf.intervals import Drawing as Drawing
    from erf.intervals import Precision as Precision
    from erf.measures import MEASURES as MEASURES
    from erf.measures import pick_measures as pick_measures
    from erf.merging import merge as merge
    from erf.plotting import plot as plot
    from erf.privacy import anonymise as anonymise
    from erf.result import ERF as ERF
    from erf.result import Origin as Origin
    from erf.result import Provenance as Provenance
    from erf.result import Statistics as Statistics
    from erf.series import Series as Series
    from erf.series import load_series as load_series
    from erf.settings import Settings as Settings
    from erf.storage import FileSink as FileSink
    from erf.storage import load as load
    from erf.storage import save as save
    from erf.tapping import list_layers as list_layers
    from erf.tracing import theoretical_receptive_field as theoretical_receptive_field

_HOME = {
    "Arguments": "arguments",
    "CheckpointError": "errors",
    "DEFINITIONS": "definitions",
    "Drawing": "intervals",
    "ERF": "result",
    "ErfError": "errors",
    "FileSink": "storage",
    "FormatError": "errors",
    "ImageError": "errors",
    "InputError": "errors",
    "InsufficientMemoryError": "errors",
    "InterruptedRunError": "errors",
    "LayerError": "errors",
    "MEASURES": "measures",
    "Origin": "result",
    "OutputError": "errors",
    "Precision": "intervals",
    "Provenance": "result",
    "ReceptiveField": "geometry",
    "Series": "series",
    "Settings": "settings",
    "Statistics": "result",
    "UnitGradient": "attribution",
    "anonymise": "privacy",
    "compute": "engine",
    "compute_layers": "engine",
    "draw_phantom": "images",
    "from_arrays": "images",
    "list_layers": "tapping",
    "load": "storage",
    "load_images": "images",
    "load_series": "series",
    "merge": "merging",
    "pick_measures": "measures",
    "plot": "plotting",
    "save": "storage",
    "tabulate": "comparison",
    "theoretical_receptive_field": "tracing",
    "unit_gradient": "gradients",
}

__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'erf' has no attribute '{name}'")
    return getattr(import_module(f"erf.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
