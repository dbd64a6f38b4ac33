"""Mean and variance of maps over images, streaming, in float64.

Welford's update for one image, Chan, Golub, LeVeque (Stanford report STAN-CS-79-773) for merging. Maps are updated in
bands of rows that stay in the cache, so that no full-size temporary is made.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erf.definitions import DEFINITIONS
from erf.errors import OutputError
from erf.result import FOOTPRINT, Footprint, Statistics, stack_footprints

SMALL_SIDE = 128
"""Longest side of the small block-summed maps that are kept per image."""

_BAND_ELEMENTS = 1 << 18
_NO_MARGINS = ((0, 0), (0, 0))


@dataclass(frozen=True)
class Moments:
    """Number of maps, their mean, and their summed squared deviations from it."""

    count: int
    mean: NDArray[np.float64]
    deviations: NDArray[np.float64]
    draws: Footprint | None = None
    """Means of each draw of random projections, stacked; None for a single draw."""

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both groups of maps together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        np.multiply(delta, delta, out=delta)
        delta *= self.count * other.count / count
        delta += self.deviations
        delta += other.deviations
        return Moments(count, mean, delta, _merge_draws(self, other))

    @property
    def variance(self) -> NDArray[np.float64]:
        """Unbiased variance of a map between images; NaN for a single image."""
        if self.count < 2:
            return np.full_like(self.deviations, np.nan)
        return self.deviations / (self.count - 1)

    def statistics(
        self, dtype: type[np.floating] = np.float32, margins: tuple[tuple[int, int], tuple[int, int]] = _NO_MARGINS
    ) -> Statistics:
        """For the record, with maps in `dtype` and so many zeros (before, after) along y and x."""
        return Statistics(
            self.count,
            np.pad(self.mean.astype(dtype), margins),
            np.pad(self.variance.astype(dtype), margins),
            np.pad(self.mean.sum(0), margins[1]),
            np.pad(self.mean.sum(1), margins[0]),
            self.draws,
        )


def _merge_draws(one: Moments, two: Moments) -> Footprint | None:
    if one.draws is None or two.draws is None:
        return None
    share = two.count / (one.count + two.count)
    pairs = ((getattr(one.draws, name), getattr(two.draws, name)) for name in FOOTPRINT)
    return Footprint(*(ours + (theirs - ours) * share for ours, theirs in pairs))


def small_block(shape: tuple[int, int]) -> int:
    """Side of the blocks of the small maps, in pixels."""
    return -(-max(shape) // SMALL_SIDE)


class RunningMoments:
    """Moments of all definitions over the images of one cell; a map is the mean over draws of random projections.

    Maps are those of a part of the image, (top, bottom, left, right), outside which all of them are zero.
    """

    def __init__(
        self,
        definitions: Sequence[str],
        shape: tuple[int, int],
        device: torch.device,
        draws: int = 1,
        part: tuple[int, int, int, int] | None = None,
    ) -> None:
        self.definitions = tuple(definitions)
        self.count = 0
        self._shape = shape
        self._part = part or (0, shape[0], 0, shape[1])
        top, bottom, left, right = self._part
        self._mean = torch.zeros(len(self.definitions), bottom - top, right - left, dtype=torch.float64, device=device)
        self._deviations = torch.zeros_like(self._mean)
        several = draws if draws > 1 else 0
        self._draws = [[self._marginals() for _ in range(several)] for _ in definitions]
        self._band = max(1, _BAND_ELEMENTS // (right - left))

    def _marginals(self) -> "_Marginals":
        return _Marginals(self._shape, small_block(self._shape), self._part[2:], self._mean.device)

    def add(self, gradients: Sequence[Tensor]) -> dict[str, Footprint]:
        """Take in the gradients (C, h, w) of one image, one per draw; returns what is kept of the image itself."""
        self.count += 1
        return {name: self._add_map(index, name, gradients) for index, name in enumerate(self.definitions)}

    def _add_map(self, index: int, definition: str, gradients: Sequence[Tensor]) -> Footprint:
        whole, (top, bottom, _, _) = self._marginals(), self._part
        for first in range(0, bottom - top, self._band):
            rows = slice(first, min(first + self._band, bottom - top))
            maps = [DEFINITIONS[definition](gradient[:, rows]).to(torch.float64) for gradient in gradients]
            for draw, one in zip(self._draws[index], maps, strict=False):
                draw.add(top + first, one)
            band = maps[0] if len(maps) == 1 else torch.stack(maps).mean(0)
            self._update(self._mean[index, rows], self._deviations[index, rows], band)
            whole.add(top + first, band)
        return whole.footprint()

    def _update(self, mean: Tensor, deviations: Tensor, band: Tensor) -> None:
        delta = band - mean
        mean.add_(delta, alpha=1 / self.count)
        deviations.addcmul_(delta, delta, value=(self.count - 1) / self.count)

    def moments(self, definition: str) -> Moments:
        """Moments of one definition, as arrays (h, w) of the part."""
        index = self.definitions.index(definition)
        draws = [draw.footprint(self.count) for draw in self._draws[index]]
        return Moments(
            self.count,
            self._mean[index].cpu().numpy(),
            self._deviations[index].cpu().numpy(),
            stack_footprints(draws) if draws else None,
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that was taken in, as arrays."""
        draws = [[draw.state() for draw in several] for several in self._draws]
        return {
            "count": np.array(self.count),
            "mean": self._mean.cpu().numpy(),
            "deviations": self._deviations.cpu().numpy(),
        } | {
            f"draws/{index}/{number}/{name}": array
            for index, several in enumerate(draws)
            for number, state in enumerate(several)
            for name, array in state.items()
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave; raises `ValueError` for that of another shape."""
        self.count = int(state["count"])
        _refill(self._mean, state["mean"])
        _refill(self._deviations, state["deviations"])
        for index, several in enumerate(self._draws):
            for number, draw in enumerate(several):
                draw.restore({name: state[f"draws/{index}/{number}/{name}"] for name in FOOTPRINT})


def _refill(tensor: Tensor, array: NDArray[Any]) -> None:
    if tensor.shape != array.shape or array.dtype != np.float64:
        raise ValueError(f"sums of shape {array.shape}, expected {tuple(tensor.shape)}")
    tensor.copy_(torch.from_numpy(array))


class _Marginals:
    """Sums of a map over rows, over columns and over blocks, taken in band by band, between two columns."""

    def __init__(self, shape: tuple[int, int], block: int, columns: tuple[int, int], device: torch.device) -> None:
        self._block, self._left, self._right = block, *columns
        self._rows = torch.zeros(shape[1], dtype=torch.float64, device=device)
        self._columns = torch.zeros(shape[0], dtype=torch.float64, device=device)
        self._small = torch.zeros(*(-(-length // block) for length in shape), dtype=torch.float64, device=device)

    def add(self, top: int, band: Tensor) -> None:
        """Take in some rows of a map, from row `top` on."""
        self._rows[self._left : self._right] += band.sum(0)
        self._columns[top : top + len(band)] += band.sum(1)
        blocks = _block_sums(band, self._block, (top % self._block, self._left % self._block))
        y, x = top // self._block, self._left // self._block
        self._small[y : y + blocks.shape[0], x : x + blocks.shape[1]] += blocks

    def state(self) -> dict[str, NDArray[Any]]:
        """The sums, by the names of a footprint."""
        return {name: sums.cpu().numpy() for name, sums in self._sums().items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave."""
        for name, sums in self._sums().items():
            _refill(sums, state[name])

    def _sums(self) -> dict[str, Tensor]:
        return dict(zip(FOOTPRINT, (self._rows, self._columns, self._small), strict=True))

    def footprint(self, count: int = 1) -> Footprint:
        """What was taken in, per map."""
        return Footprint(_numpy(self._rows / count), _numpy(self._columns / count), _numpy(self._small / count))


def _block_sums(band: Tensor, block: int, before: tuple[int, int]) -> Tensor:
    """Sums over blocks, of the first of which so many rows and columns are missing."""
    rows, columns = (-(-(lack + length) // block) for lack, length in zip(before, band.shape, strict=True))
    padding = (
        before[1], columns * block - before[1] - band.shape[1], before[0], rows * block - before[0] - band.shape[0],
    )  # fmt: skip
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
        self._draws: dict[str, Footprint | None] = {}
        place = folder or Path(gettempdir())
        try:
            self._file: IO[bytes] = TemporaryFile(dir=place)  # noqa: SIM115 (closed by close)
            try:
                self._set_down(running)
            except OSError:
                with suppress(OSError):  # what is still to be written cannot be
                    self._file.close()
                raise
        except OSError as error:
            raise OutputError(f"sums cannot be set aside in {place} ({error}); free some space there") from error

    def _set_down(self, running: RunningMoments) -> None:
        for definition in running.definitions:
            moments = running.moments(definition)
            self._places[definition] = (self._file.tell(), moments.mean.shape)
            self._draws[definition] = moments.draws
            moments.mean.tofile(self._file)
            moments.deviations.tofile(self._file)
        self._file.flush()
        self._draw_sums = {name: sums for name, sums in running.state().items() if name.startswith("draws/")}

    def state(self) -> dict[str, NDArray[Any]]:
        """What `RunningMoments.restore` takes."""
        found = [self.moments(definition) for definition in self._places]
        return {
            "count": np.array(self.count),
            "mean": np.stack([moments.mean for moments in found]),
            "deviations": np.stack([moments.deviations for moments in found]),
        } | self._draw_sums

    def moments(self, definition: str) -> Moments:
        """Moments of one definition, read back."""
        offset, shape = self._places[definition]
        self._file.seek(offset)
        size = int(np.prod(shape))
        mean, deviations = (np.fromfile(self._file, np.float64, size).reshape(shape) for _ in range(2))
        return Moments(self.count, mean, deviations, self._draws[definition])

    def close(self) -> None:
        self._file.close()
