"""Names of networks by shell-style pattern."""

from erf.errors import InputError
from erf.models import list_models
from erf.models.sources import list_timm

MARKS = frozenset("*?[")
"""Characters of a shell-style pattern."""


def matching_names(pattern: str) -> list[str]:
    """List the networks that a name or a pattern such as `unet*` or `timm:resnet*` stands for.

    Raises:
        InputError: Nothing matches the pattern.
        ModelError: timm is needed and not installed.
    """
    if not MARKS & set(pattern):
        return [pattern]
    kind, colon, rest = pattern.partition(":")
    if colon and kind != "timm":
        raise InputError(f"pattern '{pattern}'; expected one of registered networks or of timm, such as timm:resnet*")
    found = [f"timm:{name}" for name in list_timm(rest)] if colon else list_models(pattern)
    if not found:
        raise InputError(f"no network matches '{pattern}'", remedy="`list_models` lists those that have a name")
    return found
