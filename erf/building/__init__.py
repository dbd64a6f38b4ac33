"""Networks from any source, with their weights, their input and their layers: `build_network("gmic")`."""

from erf.building.build import Model, build_network, own_normalisation
from erf.building.layer_table import LayerTable, layers
from erf.building.network import Network

__all__ = ["LayerTable", "Model", "Network", "build_network", "layers", "own_normalisation"]
