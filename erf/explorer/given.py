"""What was given to an explorer, so that its fields can be computed again elsewhere."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a network and its images were made from, as far as they do not tell themselves."""

    model: str = ""
    """Name of the network; '' if it was given as an object."""
    is_built: bool = False
    """Whether a module or network was given that had its options already."""
    weights: str = ""
    trust: bool = False
    source: str = ""
    """Source of the images; '' if they were given as objects."""
    is_array: bool = False
    """Whether they were given as arrays."""
    image_seed: int = 0
    normalisation: str = ""
    fit: str = ""
    interpolation: str = ""
    allow_outside: bool = False
