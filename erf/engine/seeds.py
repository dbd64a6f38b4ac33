"""Random draws of a run, which depend on the image and the draw alone, never on the order of images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from erf.images import Image


@dataclass(frozen=True)
class Seeds:
    """Seeds of all random draws of a run."""

    seed: int
    is_random: bool
    """Whether the network or the method draws random numbers."""
    device: torch.device

    def generator(self, image: Image) -> np.random.Generator:
        """Return the source of random numbers that choose units of an image."""
        return np.random.default_rng([self.seed, image.number])

    def signs(self, image: Image, channels: int, draw: int) -> Tensor:
        """Draw a random sign for each channel."""
        rng = np.random.default_rng([self.seed, image.number, draw])
        return torch.from_numpy(rng.choice(np.array([-1, 1], np.float32), channels))

    @contextmanager
    def applied(self, image: Image, draw: int) -> Iterator[None]:
        """Context manager that seeds the random draws of network and method."""
        if not self.is_random:
            yield
            return
        seed = np.random.SeedSequence([self.seed, image.number, draw])
        devices = [self.device] if self.device.type == "cuda" else []
        number, before = int(seed.generate_state(1)[0]), np.random.get_state()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(number)
            np.random.seed(number)  # captum draws from it
            try:
                yield
            finally:
                np.random.set_state(before)
