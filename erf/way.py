"""A way of computing gradients: whatever may change speed and must not change numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import nn

from erf.backward import input_gradients_only
from erf.gradients import frozen

_WORDS = {
    "batch_size": "one image at a time",
    "channels_last": "contiguous memory layout",
    "windows": "whole images",
    "own_backward": "the library's backward passes",
    "bands": "whole maps",
}
"""What is plain, by attribute of a way."""


@dataclass(frozen=True)
class Way:
    """How images go through a network; without arguments the plain way, to which all others are compared."""

    batch_size: int = 1
    channels_last: bool = False
    windows: bool = False
    own_backward: bool = False
    bands: bool = False

    @property
    def words(self) -> str:
        """Such as `batches of 5, channels last, windows, own backward passes, whole maps`."""
        several = f"batches of {self.batch_size}" if self.batch_size > 1 else _WORDS["batch_size"]
        layout = "channels last" if self.channels_last else _WORDS["channels_last"]
        part = "windows" if self.windows else _WORDS["windows"]
        backward = "own backward passes" if self.own_backward else _WORDS["own_backward"]
        maps = "bands of rows" if self.bands else _WORDS["bands"]
        return ", ".join((several, layout, part, backward, maps))

    def simpler(self) -> "Iterator[Way]":
        """Ways with one thing made plain, then with two, and so on; the last one is plain."""
        plain = vars(PLAIN)
        fast = [name for name, value in vars(self).items() if value != plain[name]]
        for count in range(1, len(fast) + 1):
            for names in combinations(fast, count):
                changes: dict[str, Any] = {name: plain[name] for name in names}
                yield replace(self, **changes)

    def changes(self, other: "Way") -> str:
        """What another way does plainly that this one does not, in words."""
        return " and ".join(_WORDS[name] for name, value in vars(self).items() if getattr(other, name) != value)

    @contextmanager
    def applied(self, model: nn.Module, device: torch.device) -> Iterator[None]:
        """The model frozen, and computing so, as long as the context lasts."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        with frozen(model, layout):
            if self.own_backward:
                with input_gradients_only(model, phases=device.type == "cpu"):
                    yield
            else:
                yield


PLAIN = Way()
