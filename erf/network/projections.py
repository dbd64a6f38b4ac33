"""Draws of the random projections that some attentions have, such as a Performer's.

A projection is drawn once and kept, so that another draw is another network. An ERF over several draws tells what is
the architecture's and what the draw's.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from erf.errors import InputError

_REDRAW = "redraw_projection_matrix"
"""Method of modules with a random projection, as performer-pytorch names it; its argument is a device."""


class Projections:
    """`count` draws of all random projections of a model: its own, then others from a seed.

    A model that `is_random` draws numbers in every pass, which are seeded there; it needs no projections. Raises
    `InputError` if several draws are requested and nothing in the model is random.
    """

    def __init__(self, model: nn.Module, count: int, seed: int, is_random: bool = False) -> None:
        drawn = [module for module in model.modules() if hasattr(module, _REDRAW)] if count > 1 else []
        if count < 1 or (count > 1 and not drawn and not is_random):
            found = f"{type(model).__name__} has no random projection" if count > 1 else "at least one draw is needed"
            raise InputError(f"{count} projections: {found}", remedy="leave `projections` out")
        self._buffers = [buffer for module in drawn for buffer in module.buffers(recurse=False)]
        self._draws = [self._kept()]
        for index in range(1, count):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(np.random.SeedSequence([seed, index]).generate_state(1)[0]))
                for module in drawn:
                    getattr(module, _REDRAW)(torch.device("cpu"))
            self._draws.append(self._kept())
        self._use(0)

    def __len__(self) -> int:
        return len(self._draws)

    def _kept(self) -> list[Tensor]:
        return [buffer.clone() for buffer in self._buffers]

    def _use(self, index: int) -> None:
        for buffer, value in zip(self._buffers, self._draws[index], strict=True):
            buffer.copy_(value)

    @contextmanager
    def each(self) -> Iterator[Iterator[int]]:
        """Context manager that iterates the model over the draws, and restores its own on exit."""

        def walk() -> Iterator[int]:
            for index in range(len(self)):
                self._use(index)
                yield index

        try:
            yield walk()
        finally:
            self._use(0)
