"""Streaming mean and variance of maps over images, in float64.

Uses Welford's update for single images, and Chan, Golub, LeVeque (Stanford report STAN-CS-79-773) for merging. Maps are
updated in bands of rows that stay in the cache, so that no full-size temporary is allocated.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erf.accumulation.moments import Moments
from erf.box import Box
from erf.definitions import DEFINITIONS
from erf.results import Profile, stack_profiles
from erf.results.grid import ZONE, Grid

_BAND_ELEMENTS, _GPU_BAND_ELEMENTS = 1 << 18, 1 << 22
"""Pixels per band: on a CPU as many as fit the cache; on a GPU enough to amortise kernel launches."""

_BAND_ROWS = 256


class RunningMoments:
    """Running moments of all definitions over the images of one group.

    Args:
        definitions: names of the definitions.
        grid: blocks and zones of the per-image sums.
        device: where the sums are kept, in float64.
        draws: draws of random projections per image; a map is the mean over them.
        box: part of the image that the maps cover, outside which all of them are zero; by default the whole image.
    """

    def __init__(
        self,
        definitions: Sequence[str],
        grid: Grid,
        device: torch.device,
        draws: int = 1,
        box: Box[int] | None = None,
    ) -> None:
        self.definitions = tuple(definitions)
        self.count = 0
        self._box = box or Box.whole(grid.size)
        self._mean = torch.zeros(len(self.definitions), *self._box.shape, dtype=torch.float64, device=device)
        self._deviations = torch.zeros_like(self._mean)
        self._places = _Places(grid, self._box, device)
        several = draws if draws > 1 else 0
        self._draws = [[_MapSums(self._places).total() for _ in range(several)] for _ in definitions]
        self._band = max(1, (_BAND_ELEMENTS if device.type == "cpu" else _GPU_BAND_ELEMENTS) // self._box.shape[1])

    def add(self, gradients: Sequence[Tensor]) -> dict[str, Profile]:
        """Add one image.

        Args:
            gradients: gradients (C, h, w) of the image, one per draw.

        Returns:
            The per-image profile for each definition.
        """
        self.count += 1
        return {name: self._add_map(index, name, gradients) for index, name in enumerate(self.definitions)}

    def _add_map(self, index: int, definition: str, gradients: Sequence[Tensor]) -> Profile:
        draws, whole, (top, bottom) = self._draws[index], _MapSums(self._places), self._box.axes[0]
        singles = [_MapSums(self._places) for _ in draws]
        for first in range(0, bottom - top, self._band):
            rows = slice(first, min(first + self._band, bottom - top))
            maps = [DEFINITIONS[definition](gradient[:, rows]).to(torch.float64) for gradient in gradients]
            for single, one in zip(singles, maps, strict=False):
                single.add(top + first, one)
            band = maps[0] if len(maps) == 1 else torch.stack(maps).mean(0)
            self._update(self._mean[index, rows], self._deviations[index, rows], band)
            whole.add(top + first, band)
        for draw, single in zip(draws, singles, strict=True):
            for name, sums in single.total().items():
                draw[name] += sums
        return _profile(whole.total())

    def _update(self, mean: Tensor, deviations: Tensor, band: Tensor) -> None:
        delta = band - mean
        mean.add_(delta, alpha=1 / self.count)
        deviations.addcmul_(delta, delta, value=(self.count - 1) / self.count)

    def moments(self, definition: str) -> Moments:
        """Return the moments of one definition, as arrays (h, w) of the covered region."""
        index = self.definitions.index(definition)
        draws = [_profile(draw, self.count) for draw in self._draws[index]]
        return Moments(
            self.count,
            self._mean[index].cpu().numpy(),
            self._deviations[index].cpu().numpy(),
            stack_profiles(draws) if draws else None,
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the complete state as arrays, for `restore`."""
        return {
            "count": np.array(self.count),
            "mean": self._mean.cpu().numpy(),
            "deviations": self._deviations.cpu().numpy(),
        } | {
            f"draws/{index}/{number}/{name}": array
            for index, several in enumerate(self._draws)
            for number, sums in enumerate(several)
            for name, array in sums.items()
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what `state` returned; raises `ValueError` if the shapes differ."""
        self.count = int(state["count"])
        _refill(self._mean, state["mean"])
        _refill(self._deviations, state["deviations"])
        for index, several in enumerate(self._draws):
            for number, sums in enumerate(several):
                for name, array in sums.items():
                    _refill(torch.from_numpy(array), state[f"draws/{index}/{number}/{name}"])


def _refill(tensor: Tensor, array: NDArray[Any]) -> None:
    if tensor.shape != array.shape or array.dtype != np.float64:
        raise ValueError(f"sums of shape {array.shape}, expected {tuple(tensor.shape)}")
    tensor.copy_(torch.from_numpy(array))


class _Places:
    """Block row, ring index, and distance from the unit, for the pixels of a region of the image."""

    def __init__(self, grid: Grid, box: Box[int], device: torch.device) -> None:
        top, left, bottom, right = box
        self.grid, self.device, self.top, self.columns = grid, device, top, slice(left, right)
        rows = np.diff(grid.bounds[0])
        self.block_rows = np.repeat(np.arange(len(rows)), rows)
        self.away_y, self.away_x = (torch.from_numpy(away).to(device) for away in grid.distances)
        self.away_x = self.away_x[left:right]
        right_of_center = torch.arange(left, right, dtype=torch.float64, device=device) - grid.center[1]
        self.row_weights = torch.stack([torch.ones_like(right_of_center), right_of_center], 1)
        self.rings = self._rings(self.away_y[top:bottom])

    def _rings(self, away_y: Tensor) -> Tensor:
        """Return the ring index of each pixel, in the smallest sufficient dtype."""
        last = self.grid.rings - 1
        dtype = torch.int16 if last <= torch.iinfo(torch.int16).max else torch.int32
        bands = (torch.hypot(rows[:, None], self.away_x) / ZONE + 0.5 for rows in away_y.split(_BAND_ROWS))
        return torch.cat([band.clamp_(max=last).to(dtype) for band in bands])

    def row_lengths(self, rows: slice) -> list[int]:
        """Count how many of some rows lie in each block row."""
        lengths: list[int] = np.unique(self.block_rows[rows], return_counts=True)[1].tolist()
        return lengths

    def columns_within(self, distance: float) -> tuple[int, int]:
        """Return the half-open range of the region's columns within a distance of the unit's centre."""
        places = np.flatnonzero(self.grid.distances[1][self.columns] <= distance)
        return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


class _MapSums:
    """Sums of a map over rows, columns, blocks and zones around the unit, accumulated band by band.

    For square frames, `inner` holds by row the sum over the upper and lower sides, and `outer` by column the rest.
    """

    def __init__(self, places: _Places) -> None:
        grid, self._places = places.grid, places
        height, width = grid.size
        shapes: dict[str, tuple[int, ...]] = {
            "across_columns": (height,),
            "rings": (grid.rings,),
            "cross_moment": (1,),
            "rows of blocks": (grid.shape[0], width),
            "inner": (height,),
            "outer": (width,),
        }
        self._sums = {
            name: torch.zeros(shape, dtype=torch.float64, device=places.device) for name, shape in shapes.items()
        }

    def add(self, top: int, band: Tensor) -> None:
        """Add a band of rows of a map, beginning at row `top`."""
        places, rows = self._places, slice(top, top + len(band))
        sums, products = (band @ places.row_weights).unbind(1)
        self._sums["across_columns"][rows] += sums
        below = torch.arange(rows.start, rows.stop, dtype=torch.float64, device=band.device) - places.grid.center[0]
        self._sums["cross_moment"] += below @ products
        first = int(places.block_rows[top])
        for number, part in enumerate(band.split(places.row_lengths(rows)), start=first):
            self._sums["rows of blocks"][number, places.columns] += part.sum(0)
        self._add_frames(rows, band)
        _add_by_number(self._sums["rings"], places.rings[top - places.top :][: len(band)], band)

    def _add_frames(self, rows: slice, band: Tensor) -> None:
        """Add the sums over frames.

        Only columns about as far from the centre as the rows contain pixels of both kinds.
        """
        away_y, away_x = self._places.away_y[rows, None], self._places.away_x
        outer, inner = self._sums["outer"][self._places.columns], self._sums["inner"][rows]
        away = self._places.grid.distances[0][rows]
        first, end = self._places.columns_within(away.min())
        left, right = self._places.columns_within(away.max())
        if first == end:
            first = end = (left + right) // 2
        inner += band[:, first:end].sum(1)
        for side in (slice(left, first), slice(end, right)):
            is_inner, part = away_x[side] <= away_y, band[:, side]
            inner += torch.where(is_inner, part, 0).sum(1)
            outer[side] += torch.where(is_inner, 0, part).sum(0)
        for side in (slice(0, left), slice(right, len(outer))):
            outer[side] += band[:, side].sum(0)

    def total(self) -> dict[str, NDArray[np.float64]]:
        """Return the sums under the field names of `Profile`."""
        sums, grid = {name: values.cpu().numpy() for name, values in self._sums.items()}, self._places.grid
        rows, sides = sums.pop("rows of blocks"), (sums.pop("inner"), sums.pop("outer"))
        frames = np.zeros(grid.frames)
        for away, masses in zip(grid.distances, sides, strict=True):
            frames += np.bincount((away / ZONE + 0.5).astype(np.intp), masses, grid.frames)
        return sums | {
            "across_rows": rows.sum(0),
            "small": np.add.reduceat(rows, grid.bounds[1][:-1], axis=1),
            "frames": frames,
        }


def _add_by_number(sums: Tensor, numbers: Tensor, values: Tensor) -> None:
    """Add each value to the sum at its index."""
    if values.is_cuda:  # where bincount has no deterministic algorithm
        sums.index_add_(0, numbers.flatten().to(torch.int32), values.flatten())
    else:
        sums += torch.bincount(numbers.flatten(), values.flatten(), len(sums))


def _profile(sums: Mapping[str, NDArray[np.float64]], count: int = 1) -> Profile:
    """Convert sums over `count` maps to a per-image profile in float32."""
    return Profile(**{name: (values / count).astype(np.float32) for name, values in sums.items()})
