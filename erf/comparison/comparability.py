"""Whether ERFs were measured alike."""

from collections.abc import Sequence
from typing import Any

from erf.errors import InputError
from erf.results import ERF

_ALIKE = {
    "layer": "layers",
    "input_shape": "input shapes (channels, height, width)",
    "normalisation": "normalisations",
    "activation": "activations",
    "fit": "fits",
    "interpolation": "interpolations",
    "mirrored": "mirroring",
    "unit_center": "centres of the unit (y, x) in pixels",
    "finest_block": "sides of the finest blocks kept (0 in files of version 1, where all are alike)",
}


def differing(erfs: Sequence[ERF]) -> list[str]:
    """Describe the settings in which ERFs differ; empty if their numbers are comparable."""
    return [
        f"{words} {' / '.join(found)}"
        for name, words in _ALIKE.items()
        if len(found := dict.fromkeys(_words(getattr(erf.provenance, name)) for erf in erfs)) > 1
    ]


def _words(value: Any) -> str:
    return ", ".join(f"{item:g}" for item in value) if isinstance(value, tuple) else str(value)


def check_alike(erfs: Sequence[ERF], allow_different: bool) -> list[str]:
    """Return the differing settings; raise `InputError` unless differences are allowed."""
    found = differing(erfs)
    if found and not allow_different:
        raise InputError(
            f"the files differ in {'; '.join(found)}", remedy="compare like with like, or ask for `allow_different`"
        )
    return found
