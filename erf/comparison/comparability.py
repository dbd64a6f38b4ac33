"""Whether ERFs were measured alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from erf.errors import InputError
from erf.results import ERF

_ALIKE = {
    "input_shape": "input shapes (channels, height, width)",
    "method": "methods",
    "activation": "activations",
    "mirrored": "mirroring",
    "finest_block": "sides of the finest blocks kept (0 in files of version 1, where all are alike)",
}
"""Settings that must be equal, and their names in messages."""

_OF_NETWORKS = {
    "layer": "layers",
    "channel": "channels",
    "normalisation": "normalisations",
    "fit": "fits",
    "interpolation": "interpolations",
    "unit_center": "centres of the unit (y, x) in pixels",
}
"""Settings that must be equal for ERFs of one network; different networks have their own."""


def differing(erfs: Sequence[ERF], settings: Mapping[str, str]) -> list[str]:
    """Describe the settings, of those named, in which ERFs differ."""
    return [
        f"{words} {' / '.join(found)}"
        for name, words in settings.items()
        if len(found := dict.fromkeys(_words(getattr(erf.provenance, name)) for erf in erfs)) > 1
    ]


def _words(value: Any) -> str:
    return ", ".join(f"{item:g}" for item in value) if isinstance(value, tuple) else str(value)


def check_alike(erfs: Sequence[ERF], allow_different: bool) -> list[str]:
    """Return the differing settings; raise `InputError` unless they are those of different networks, or allowed."""
    is_one_network = len({erf.provenance.model for erf in erfs}) == 1
    found = differing(erfs, _ALIKE | _OF_NETWORKS if is_one_network else _ALIKE)
    if found and not allow_different:
        raise InputError(
            f"the files differ in {'; '.join(found)}", remedy="compare like with like, or ask for `allow_different`"
        )
    return found if is_one_network else found + differing(erfs, _OF_NETWORKS)
