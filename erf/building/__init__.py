"""Networks from any source, with their weights, their input and their layers: `build_network("gmic")`."""

from erf.building.build import build_network
from erf.building.network import Network

__all__ = ["Network", "build_network"]
