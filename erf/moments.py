"""Mean and variance of maps over images, streaming, in float64.

Welford's update for one image, Chan, Golub, LeVeque (Stanford report STAN-CS-79-773) for merging. Maps are updated in
bands of rows that stay in the cache, so that no full-size temporary is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erf.definitions import DEFINITIONS
from erf.errors import OutputError
from erf.result import Footprint

SMALL_SIDE = 128
"""Longest side of the small block-summed maps that are kept per image."""

_BAND_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Moments:
    """Number of maps, their mean, and their summed squared deviations from it."""

    count: int
    mean: NDArray[np.float64]
    deviations: NDArray[np.float64]

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both groups of maps together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        np.multiply(delta, delta, out=delta)
        delta *= self.count * other.count / count
        delta += self.deviations
        delta += other.deviations
        return Moments(count, mean, delta)

    @property
    def variance(self) -> NDArray[np.float64]:
        """Unbiased variance of a map between images; NaN for a single image."""
        if self.count < 2:
            return np.full_like(self.deviations, np.nan)
        return self.deviations / (self.count - 1)


def small_block(shape: tuple[int, int]) -> int:
    """Side of the blocks of the small maps, in pixels."""
    return -(-max(shape) // SMALL_SIDE)


class RunningMoments:
    """Moments of all definitions over the images of one cell."""

    def __init__(self, definitions: Sequence[str], shape: tuple[int, int], device: torch.device) -> None:
        self.definitions = tuple(definitions)
        self.count = 0
        self._mean = torch.zeros(len(self.definitions), *shape, dtype=torch.float64, device=device)
        self._deviations = torch.zeros_like(self._mean)
        self._block = small_block(shape)
        self._band = self._block * max(1, _BAND_ELEMENTS // (shape[1] * self._block))

    def add(self, gradient: Tensor) -> dict[str, Footprint]:
        """Take in the gradient (C, H, W) of one image; returns what is kept of the image itself."""
        self.count += 1
        return {name: self._add_map(index, name, gradient) for index, name in enumerate(self.definitions)}

    def _add_map(self, index: int, definition: str, gradient: Tensor) -> Footprint:
        height, width = gradient.shape[-2:]
        across_rows = torch.zeros(width, dtype=torch.float64, device=gradient.device)
        across_columns, small = [], []
        for top in range(0, height, self._band):
            rows = slice(top, min(top + self._band, height))
            band = DEFINITIONS[definition](gradient[:, rows]).to(torch.float64)
            self._update(self._mean[index, rows], self._deviations[index, rows], band)
            across_rows += band.sum(0)
            across_columns.append(band.sum(1))
            small.append(_block_sums(band, self._block))
        return Footprint(_numpy(across_rows), _numpy(torch.cat(across_columns)), _numpy(torch.cat(small)))

    def _update(self, mean: Tensor, deviations: Tensor, band: Tensor) -> None:
        delta = band - mean
        mean.add_(delta, alpha=1 / self.count)
        deviations.addcmul_(delta, delta, value=(self.count - 1) / self.count)

    def moments(self, definition: str) -> Moments:
        """Moments of one definition, as arrays (H, W)."""
        index = self.definitions.index(definition)
        return Moments(self.count, self._mean[index].cpu().numpy(), self._deviations[index].cpu().numpy())


def _block_sums(band: Tensor, block: int) -> Tensor:
    rows, columns = -(-band.shape[0] // block), -(-band.shape[1] // block)
    padding = (0, columns * block - band.shape[1], 0, rows * block - band.shape[0])
    padded = torch.nn.functional.pad(band, padding)
    return padded.unflatten(1, (columns, block)).sum(2).unflatten(0, (rows, block)).sum(1)


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.to(torch.float32).cpu().numpy()
    return array


class ShelvedMoments:
    """Moments of a finished cell, set down in a file without a name so that they take no memory."""

    def __init__(self, running: RunningMoments, folder: Path | None = None) -> None:
        self.count = running.count
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        place = folder or Path(gettempdir())
        try:
            self._file: IO[bytes] = TemporaryFile(dir=place)  # noqa: SIM115 (closed by close)
            self._set_down(running)
        except OSError as error:
            raise OutputError(f"sums cannot be set aside in {place} ({error}); free some space there") from error

    def _set_down(self, running: RunningMoments) -> None:
        for definition in running.definitions:
            moments = running.moments(definition)
            self._places[definition] = (self._file.tell(), moments.mean.shape)
            moments.mean.tofile(self._file)
            moments.deviations.tofile(self._file)
        self._file.flush()

    def moments(self, definition: str) -> Moments:
        """Moments of one definition, read back."""
        offset, shape = self._places[definition]
        self._file.seek(offset)
        size = int(np.prod(shape))
        mean, deviations = (np.fromfile(self._file, np.float64, size).reshape(shape) for _ in range(2))
        return Moments(self.count, mean, deviations)

    def close(self) -> None:
        self._file.close()
