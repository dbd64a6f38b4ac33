"""Many networks in one page and one table: their fields, measures and theoretical fields."""

from erf.report.atlas.making import Atlas, atlas

__all__ = ["Atlas", "atlas"]
