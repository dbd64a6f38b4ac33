"""Loops for the tests of the benchmark, in a module that a new process imports soon."""

import sys

import numpy as np

from benchmarks.turns import Visit


def visit_and_hold(ends: bool) -> Visit:
    """A call that holds 100 MB from the first time on, or ends its process."""
    held: list[np.ndarray] = []

    def visit() -> int:
        if ends:
            sys.exit(1)
        held.append(np.ones(1 if held else 12_500_000))
        return 1

    return visit
