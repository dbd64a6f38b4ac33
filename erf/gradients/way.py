"""Ways of computing gradients: the options that may change speed and must not change numbers."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from erf.gradients.backward import input_gradients_only
from erf.network.devices import float32_convolutions
from erf.network.modes import frozen, is_permuted

_WORDS = {
    "batch_size": "one image at a time",
    "channels_last": "contiguous memory layout",
    "crops": "whole images",
    "own_backward": "the library's backward passes",
    "bands": "whole maps",
}
"""Description of the plain setting of each attribute of a way."""


@dataclass(frozen=True)
class Way:
    """Way of computing: how images pass through a network. The default is the plain way, the reference for others."""

    batch_size: int = 1
    channels_last: bool = False
    crops: bool = False
    own_backward: bool = False
    bands: bool = False

    @property
    def description(self) -> str:
        """The way in words, such as `batches of 5, channels last, crops, own backward passes, bands of rows`."""
        several = f"batches of {self.batch_size}" if self.batch_size > 1 else _WORDS["batch_size"]
        layout = "channels last" if self.channels_last else _WORDS["channels_last"]
        part = "crops" if self.crops else _WORDS["crops"]
        backward = "own backward passes" if self.own_backward else _WORDS["own_backward"]
        maps = ["bands of rows"] if self.bands else []
        return ", ".join((several, layout, part, backward, *maps))

    def simpler(self) -> "Iterator[Way]":
        """Yield the ways with one option made plain, then with two, and so on; the last is the plain way."""
        plain = vars(PLAIN)
        fast = [name for name, value in vars(self).items() if value != plain[name]]
        for count in range(1, len(fast) + 1):
            for names in combinations(fast, count):
                changes: dict[str, Any] = {name: plain[name] for name in names}
                yield replace(self, **changes)

    def changes(self, other: "Way") -> str:
        """Describe the options that another way makes plain and this one does not."""
        return " and ".join(_WORDS[name] for name, value in vars(self).items() if getattr(other, name) != value)

    @contextmanager
    def applied(self, model: nn.Module, device: torch.device) -> Iterator[None]:
        """Context manager that freezes the model and makes it compute in this way."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        with (
            frozen(model, layout),
            float32_convolutions(device),
            nullcontext() if self.channels_last else _ContiguousOperands(),
            input_gradients_only(model, phases=device.type == "cpu") if self.own_backward else nullcontext(),
        ):
            yield


class _ContiguousOperands(TorchDispatchMode):
    """Mode that passes contiguous copies of non-contiguous operands to operators, forward and backward.

    Kernels choose an algorithm by the strides of their operands, and some are wrong for strides that a transposition
    or another layout has left: the gradient of a batch norm before tokens, at batch 1, has a relative error of 1.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # avoids the import of PyTorch's compiler, as in `erf.theory.tracing`

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.is_view or func._schema.is_mutable:
            return func(*args, **(kwargs or {}))
        return func(*tree_map_only(Tensor, _contiguous, args), **tree_map_only(Tensor, _contiguous, kwargs or {}))


def _contiguous(tensor: Tensor) -> Tensor:
    return (
        torch.empty_like(tensor, memory_format=torch.contiguous_format).copy_(tensor) if is_permuted(tensor) else tensor
    )


PLAIN = Way()
