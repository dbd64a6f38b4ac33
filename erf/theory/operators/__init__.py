"""Propagation of theoretical receptive fields through the operators of PyTorch.

Each dimension of a tensor that depends on the input is tracked as a product of factors: axes of the map, and others.
Maps may therefore be permuted, cut into windows or flattened to tokens, and restored. A rule is either exact, or the
operator is recorded by name and assumed to reach everywhere: the field can be too large, never too small.
"""

from erf.theory.operators import joining, order, reductions, resampling, sliding, views  # noqa: F401 (they register rules)
from erf.theory.operators.propagation import SHAPE_ONLY, step
from erf.theory.operators.sliding import slide
from erf.theory.operators.state import State, joined, settled
from erf.theory.operators.writing import written_into

__all__ = ["SHAPE_ONLY", "State", "joined", "settled", "slide", "step", "written_into"]
