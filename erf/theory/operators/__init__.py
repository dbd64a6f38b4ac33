"""Propagation of theoretical receptive fields through the operators of PyTorch.

Each dimension of a tensor that depends on the input is tracked as a product of factors: axes of the map, and others.
Maps may therefore be permuted, cut into windows or flattened to tokens, and restored. A rule is either exact, or the
operator is recorded by name and assumed to reach everywhere: the field can be too large, never too small.
"""

from erf.theory.operators.rules import SHAPE_ONLY, slide, step
from erf.theory.operators.seen import Seen, joined, settled
from erf.theory.operators.writing import written_into

__all__ = ["SHAPE_ONLY", "Seen", "joined", "settled", "slide", "step", "written_into"]
