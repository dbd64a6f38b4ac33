"""Effective receptive fields of vision models: compute, store, plot.

Names are resolved on first use, so that importing the package does not import PyTorch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erf.accumulation.merging import merge as merge
    from erf.building import LayerTable as LayerTable
    from erf.building import Network as Network
    from erf.building import build_network as build_network
    from erf.building import layers as layers
    from erf.checks import FieldReport as FieldReport
    from erf.checks import GradientReport as GradientReport
    from erf.checks import ProjectiveField as ProjectiveField
    from erf.checks import check as check
    from erf.checks import projective_field as projective_field
    from erf.checks import receptive_field as receptive_field
    from erf.comparison import ComparisonTable as ComparisonTable
    from erf.comparison import Estimate as Estimate
    from erf.comparison import compare as compare
    from erf.comparison import measure as measure
    from erf.definitions import DEFINITIONS as DEFINITIONS
    from erf.engine import compute as compute
    from erf.engine import compute_layers as compute_layers
    from erf.engine.settings import Settings as Settings
    from erf.errors import CheckpointError as CheckpointError
    from erf.errors import ErfError as ErfError
    from erf.errors import FormatError as FormatError
    from erf.errors import ImageError as ImageError
    from erf.errors import InputError as InputError
    from erf.errors import InsufficientMemoryError as InsufficientMemoryError
    from erf.errors import InterruptedRunError as InterruptedRunError
    from erf.errors import LayerError as LayerError
    from erf.errors import OutputError as OutputError
    from erf.errors import OutputExistsError as OutputExistsError
    from erf.errors import UnfinishedRunError as UnfinishedRunError
    from erf.explorer import Explorer as Explorer
    from erf.explorer import explore as explore
    from erf.frames import to_pandas as to_pandas
    from erf.frames import to_xarray as to_xarray
    from erf.gradients.attribution import UnitGradient as UnitGradient
    from erf.gradients.autograd import unit_gradient as unit_gradient
    from erf.images import draw_phantom as draw_phantom
    from erf.images import from_arrays as from_arrays
    from erf.images import load_images as load_images
    from erf.importing import import_map as import_map
    from erf.measures import MEASURES as MEASURES
    from erf.measures import radial_mass as radial_mass
    from erf.models import ModelError as ModelError
    from erf.models import WeightsError as WeightsError
    from erf.models.mamba import plain_selective_scan as plain_selective_scan
    from erf.network.inputs import Arguments as Arguments
    from erf.plotting import plot as plot
    from erf.plotting.series import plot_series as plot_series
    from erf.protocols import Protocol as Protocol
    from erf.protocols import list_protocols as list_protocols
    from erf.protocols import load_protocol as load_protocol
    from erf.report.atlas import Atlas as Atlas
    from erf.report.atlas import atlas as atlas
    from erf.report.summary import Summary as Summary
    from erf.report.summary import summarise as summarise
    from erf.results import ERF as ERF
    from erf.results import Origin as Origin
    from erf.results import Provenance as Provenance
    from erf.results import Statistics as Statistics
    from erf.storage import FileSink as FileSink
    from erf.storage import load as load
    from erf.storage import save as save
    from erf.storage.privacy import anonymise as anonymise
    from erf.storage.series import Series as Series
    from erf.storage.series import load_series as load_series
    from erf.theory.fields import ReceptiveField as ReceptiveField
    from erf.tracking import TrainingMonitor as TrainingMonitor
    from erf.tracking import compute_series as compute_series
    from erf.tracking import find_snapshots as find_snapshots
    from erf.uncertainty import Resampling as Resampling
    from erf.uncertainty import StoppingRule as StoppingRule

_HOME = {
    "Arguments": "network.inputs",
    "Atlas": "report.atlas",
    "CheckpointError": "errors",
    "ComparisonTable": "comparison",
    "DEFINITIONS": "definitions",
    "Protocol": "protocols",
    "list_protocols": "protocols",
    "load_protocol": "protocols",
    "Resampling": "uncertainty",
    "ERF": "results",
    "ErfError": "errors",
    "Estimate": "comparison",
    "Explorer": "explorer",
    "FieldReport": "checks",
    "FileSink": "storage",
    "FormatError": "errors",
    "GradientReport": "checks",
    "ImageError": "errors",
    "InputError": "errors",
    "InsufficientMemoryError": "errors",
    "InterruptedRunError": "errors",
    "LayerError": "errors",
    "LayerTable": "building",
    "MEASURES": "measures",
    "ModelError": "models",
    "Network": "building",
    "Origin": "results",
    "OutputError": "errors",
    "OutputExistsError": "errors",
    "StoppingRule": "uncertainty",
    "ProjectiveField": "checks",
    "Provenance": "results",
    "ReceptiveField": "theory.fields",
    "Series": "storage.series",
    "Settings": "engine.settings",
    "Statistics": "results",
    "Summary": "report.summary",
    "TrainingMonitor": "tracking",
    "UnfinishedRunError": "errors",
    "UnitGradient": "gradients.attribution",
    "WeightsError": "models",
    "plain_selective_scan": "models.mamba",
    "anonymise": "storage.privacy",
    "atlas": "report.atlas",
    "build_network": "building",
    "check": "checks",
    "compare": "comparison",
    "compute": "engine",
    "compute_layers": "engine",
    "compute_series": "tracking",
    "draw_phantom": "images",
    "explore": "explorer",
    "find_snapshots": "tracking",
    "from_arrays": "images",
    "import_map": "importing",
    "layers": "building",
    "load": "storage",
    "load_images": "images",
    "load_series": "storage.series",
    "measure": "comparison",
    "merge": "accumulation.merging",
    "plot": "plotting",
    "plot_series": "plotting.series",
    "projective_field": "checks",
    "radial_mass": "measures",
    "receptive_field": "checks",
    "save": "storage",
    "summarise": "report.summary",
    "to_pandas": "frames",
    "to_xarray": "frames",
    "unit_gradient": "gradients.autograd",
}

__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("erf-toolkit")
    if name not in _HOME:
        raise AttributeError(f"module 'erf' has no attribute '{name}'")
    return getattr(import_module(f"erf.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
