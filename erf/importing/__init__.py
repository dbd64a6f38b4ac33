"""Maps that other programs have computed, as ERFs. No PyTorch."""

from erf.importing.maps import import_map

__all__ = ["import_map"]
