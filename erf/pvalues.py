"""Uniform formatting of p values."""

import math


def p_words(value: float) -> str:
    """A p value to two or three decimals; a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
