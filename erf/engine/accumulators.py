"""Accumulators of the measured units of a run: sums of the current image group and of the complete ones."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import count, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from erf.accumulation.moments import Moments
from erf.accumulation.running import RunningMoments
from erf.accumulation.stored import StoredMoments
from erf.box import Box
from erf.engine.settings import Settings
from erf.engine.units import MeasuredUnit
from erf.images import Progress
from erf.profiling import stage
from erf.results import ERF, Profile, Provenance, Row, Sink, Statistics, input_subset, without_input
from erf.storage.packing import Sums

Subsets = tuple[str, ...]


@dataclass
class Accumulator:
    """Sums of the gradients of one measured unit with respect to one input of the network."""

    name: str
    """Name of the input; '' where there is only one."""
    channels: slice
    """Channels of the image that belong to this input."""
    running: RunningMoments | None = None
    """Sums of the current image group; None between groups."""
    groups: list[tuple[Subsets, StoredMoments | None]] = field(default_factory=list)
    """Subsets and sums of each complete group; no sums where no image could be used."""

    def subsets(self, subsets: Subsets) -> Subsets:
        """Extend the subsets of an image by the subset of this input."""
        return (*subsets, input_subset(self.name)) if self.name else subsets

    def begin_group(self, moments: RunningMoments, state: Sums | None) -> None:
        """Begin an image group, from saved sums if there are any."""
        self.running = moments
        if state:
            moments.restore(state)

    def add(self, gradients: Sequence[Tensor]) -> dict[str, Profile]:
        """Add the gradients (C, h, w) of one image, one per draw; return the per-image profile per definition."""
        assert self.running is not None
        with stage("accumulate"):
            return self.running.add([draw[self.channels] for draw in gradients])

    def end_group(self, subsets: Subsets, scratch: Path | None) -> None:
        """Complete an image group and set its sums aside in the folder `scratch`."""
        running, self.running = self.running, None
        stored = StoredMoments(running, scratch) if running is not None and running.count else None
        self.groups.append((self.subsets(subsets), stored))

    def stored(self) -> list[tuple[Subsets, StoredMoments]]:
        return [(subsets, stored) for subsets, stored in self.groups if stored]


@dataclass
class Measurement:
    """One measured unit of a run, with its provenance, accumulators (one per input) and sink."""

    unit: MeasuredUnit
    box: Box[int]
    """Region of the image that the sums cover."""
    settings: Settings
    provenance: Provenance
    sink: Sink
    accumulators: tuple[Accumulator, ...]

    def begin_group(self, device: torch.device, states: Iterator[Sums]) -> None:
        definitions, draws, grid = self.settings.definitions, self.settings.projections, self.provenance.grid
        for accumulator in self.accumulators:
            moments = RunningMoments(definitions, grid, device, draws, self.box)
            accumulator.begin_group(moments, next(states, None))

    def add_image(self, row: Row) -> None:
        with stage("write"):
            self.sink.add_image(row.record, row.profiles, row.overview)

    def finish(self, progress: Callable[[], None]) -> None:
        """Merge the image groups into subsets and write their statistics to the sink."""
        for subset, definition in self.maps():
            members = (stored.moments(definition) for subsets, stored in self._stored() if subset in subsets)
            moments = reduce(Moments.merge, members)
            with stage("write"):
                self.sink.add_statistics(subset, definition, self._statistics(moments))
            progress()

    def maps(self) -> list[tuple[str, str]]:
        """List the (subset, definition) pairs, each of which has a map."""
        names = dict.fromkeys(name for subsets, _ in self._stored() for name in subsets)
        return list(product(names, self.settings.definitions))

    def _statistics(self, moments: Moments) -> Statistics:
        """Return the maps of the whole image, which are zero outside the crop."""
        _, height, width = self.provenance.input_shape
        top, left, bottom, right = self.box
        kept = np.float32 if self.provenance.shard == (1, 1) else np.float64  # shards are merged
        return moments.statistics(kept, ((top, height - bottom), (left, width - right)))

    def _stored(self) -> list[tuple[Subsets, StoredMoments]]:
        return [each for accumulator in self.accumulators for each in accumulator.stored()]


@dataclass(frozen=True)
class Measurements:
    """All measurements of a run, which begin and complete image groups together."""

    members: tuple[Measurement, ...]
    device: torch.device
    """Device on which the sums are kept."""
    scratch: Path | None
    """Folder of temporary files; None for the system's."""

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.members)

    @property
    def accumulators(self) -> list[Accumulator]:
        return [accumulator for each in self.members for accumulator in each.accumulators]

    @property
    def provenance(self) -> list[Provenance]:
        """Provenance by accumulator."""
        return [each.provenance for each in self.members for _ in each.accumulators]

    @property
    def groups(self) -> list[Subsets]:
        """Subsets of the images of each complete group."""
        return [without_input(subsets) for subsets, _ in self.accumulators[0].groups]

    @property
    def has_begun_group(self) -> bool:
        return self.accumulators[0].running is not None

    def recall(self, provenance: Sequence[Provenance]) -> None:
        """Take over the provenance, by accumulator, with which a run began."""
        begun = iter(provenance)
        for each in self.members:
            own = [next(begun) for _ in each.accumulators]
            each.provenance = own[0]

    def begin(self) -> None:
        """Pass the provenance of each measurement to its sink."""
        for each in self.members:
            each.sink.begin(each.provenance)

    def begin_group(self, states: Sequence[Sums] = ()) -> None:
        """Begin an image group, from the saved sums of the accumulators if there are any."""
        given = iter(states)
        for each in self.members:
            each.begin_group(self.device, given)

    def end_group(self, subsets: Subsets) -> None:
        """Complete the image group, whose images belong to these subsets."""
        for accumulator in self.accumulators:
            accumulator.end_group(subsets, self.scratch)

    def add_image(self, rows: Sequence[Row]) -> None:
        """Write the rows of one processed image, one per accumulator, to the sinks."""
        owners = [each for each in self.members for _ in each.accumulators]
        for owner, row in zip(owners, rows, strict=True):
            owner.add_image(row)

    def group_sums(self, number: int) -> list[Sums]:
        """Return the sums of a complete group by accumulator; none where no image could be used."""
        stored = (accumulator.groups[number][1] for accumulator in self.accumulators)
        return [stored.state() for stored in stored if stored]

    def running_sums(self) -> list[Sums]:
        """Return the sums of the current group by accumulator; none between groups."""
        return [accumulator.running.state() for accumulator in self.accumulators if accumulator.running]

    def finish(self, progress: Progress | None) -> tuple[ERF, ...]:
        """Write all maps to the sinks and return the results; none if no image could be used."""
        maps, done = sum(len(each.maps()) for each in self.members), count(1)
        if not maps:
            return ()
        for each in self.members:
            each.finish(lambda: progress("maps", next(done), maps) if progress else None)
        with stage("write"):
            return tuple(each.sink.result() for each in self.members)

    def close(self) -> None:
        """Close the temporary files."""
        for accumulator in self.accumulators:
            for _, stored in accumulator.stored():
                stored.close()
