"""Theoretical receptive field of a unit, and checks of its gradient against theory and finite differences."""

from erf.checks.field import FieldReport, receptive_field
from erf.checks.gradient import Check, GradientReport, check

__all__ = ["Check", "FieldReport", "GradientReport", "check", "receptive_field"]
