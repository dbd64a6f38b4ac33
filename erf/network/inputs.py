"""Arguments of a network: an image as it is, split into several inputs, as a volume or as a signal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erf.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Arguments:
    """Rule by which the arguments of a network are built from inputs (N, C, H, W).

    Example:
        >>> import torch, erf
        >>> [tuple(part.shape) for part in erf.Arguments(names=("cc", "mlo"))(torch.zeros(1, 2, 8, 6))]
        [(1, 1, 8, 6), (1, 1, 8, 6)]
    """

    names: tuple[str, ...] = ()
    """Names of the inputs, which share the channels equally; empty for a network with one input."""
    depth: int = 0
    """Number of slices of a volume (N, C / depth, depth, H, W), stored as channels; 0 for an image."""
    signal: bool = False
    """Take the single row of an image as a signal (N, C, W)."""

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names) or len(self.names) == 1:
            raise InputError(f"inputs: found {', '.join(self.names)}; expected two or more different names")
        if self.depth < 0 or (self.depth and self.signal):
            raise InputError(f"depth {self.depth}; expected the number of slices of a volume")

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the inputs; one without a name where there is one input."""
        return self.names or ("",)

    def check(self, input_shape: Sequence[int]) -> None:
        """Raise `InputError` if inputs (C, H, W) cannot be arranged in this way."""
        channels, height, _ = input_shape
        share = len(self.parts) * max(self.depth, 1)
        if channels % share:
            found = f"{len(self.parts)} inputs" + (f" of {self.depth} slices" if self.depth else "")
            raise InputError(f"{channels} channels for {found}; expected a multiple of {share}")
        if self.signal and height != 1:
            raise InputError(f"a signal of {height} rows; expected one", remedy="choose a `size` of 1xLENGTH")

    def channels(self, input_shape: Sequence[int]) -> list[slice]:
        """Return the channels of an image (C, H, W) that belong to each input."""
        share = input_shape[0] // len(self.parts)
        return [slice(index * share, (index + 1) * share) for index in range(len(self.parts))]

    def __call__(self, inputs: "Tensor") -> "tuple[Tensor, ...]":
        """The network's arguments."""
        # A network may change these slices in place, unlike the results of `chunk`.
        parts = [inputs[:, channels] for channels in self.channels(inputs.shape[1:])]
        if self.depth:
            return tuple(part.unflatten(1, (part.shape[1] // self.depth, self.depth)) for part in parts)
        return tuple(part.squeeze(2) for part in parts) if self.signal else tuple(parts)


Arrange = Callable[["Tensor"], "tuple[Tensor, ...]"]
"""Function that builds the arguments of a network from inputs (N, C, H, W)."""


def alone(inputs: "Tensor") -> "tuple[Tensor, ...]":
    """Pass inputs as the only argument of a network."""
    return (inputs,)
