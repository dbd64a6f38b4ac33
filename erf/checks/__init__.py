"""Checks of a unit's gradient against finite differences and theory: `check_gradient(network)`."""

from erf.checks.gradient import Check, GradientReport, check_gradient

__all__ = ["Check", "GradientReport", "check_gradient"]
