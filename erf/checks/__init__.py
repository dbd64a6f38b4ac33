"""Theoretical receptive field of a unit, projective field of a pixel, and checks of a unit's gradient."""

from erf.checks.field import FieldReport, receptive_field
from erf.checks.gradient import Check, GradientReport, check
from erf.checks.projective import projective_field
from erf.gradients.projective import ProjectiveField

__all__ = ["Check", "FieldReport", "GradientReport", "ProjectiveField", "check", "projective_field", "receptive_field"]
