"""Registry of the rules by which operators change receptive-field states.

A rule for a new operator is a function with the decorator `rule`, in the module of its family. It returns the state of
one output and is either exact, or calls `State.everywhere`, which names the operator as the cause of an infinite field.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from erf.theory.operators.state import State

Arguments = Sequence[Any]
Find = Callable[[Any], State | None]
"""Function that returns the state of an argument; None if it does not depend on the input."""
Rule = Callable[[str, Arguments, Mapping[str, Any], State, Tensor], State]
"""Rule of an operator with one argument that depends on the input, the first.

Takes the operator's name, its positional and keyword arguments, the state of the first argument, and the output."""
Junction = Callable[[str, Arguments, Find, Tensor], State]
"""Rule of an operator whose arguments have different roles."""

RULES: dict[str, Rule] = {}
JUNCTIONS: dict[str, Junction] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators, by their names without a trailing underscore."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def junction(*operators: str) -> Callable[[Junction], Junction]:
    """Register a rule for operators of several operands, by name."""

    def register(function: Junction) -> Junction:
        JUNCTIONS.update(dict.fromkeys(operators, function))
        return function

    return register
