"""What every operator of PyTorch does to theoretical receptive fields.

Each dimension of a tensor that comes from the input is followed as the factors of which it is made: axes of the map,
and the rest. So maps may be laid out in any order, cut into windows or flattened to tokens, and come back. A rule is
either exact, or the operator is named and taken to reach everywhere: the field can be too large, never too small.
"""

from erf.operators.rules import SHAPE_ONLY, slide, step
from erf.operators.seen import Seen, joined, settled
from erf.operators.writing import written_into

__all__ = ["SHAPE_ONLY", "Seen", "joined", "settled", "slide", "step", "written_into"]
