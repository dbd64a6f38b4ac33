"""Explorer: a page on the own machine on which a click on a pixel shows what a network sees there."""

from erf.explorer.opening import explore
from erf.explorer.running import Explorer

__all__ = ["Explorer", "explore"]
