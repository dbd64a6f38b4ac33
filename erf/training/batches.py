"""Training batches: examples as patches or whole frames, with random flips and noise.

All random choices for an example depend only on the seed, the stage, the epoch and the example's number: training that
is resumed, or that uses another number of threads, gets the same pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erf.box import Box
from erf.datasets import Example, ExampleSet
from erf.errors import InputError
from erf.images import Framing, Sample
from erf.images.image import Placement
from erf.images.laterality import tissue_threshold
from erf.images.stream import ahead
from erf.training.recipe import Recipe, Stage
from erf.training.tasks import Task

_TRIES = 10_000
"""Most points drawn to find one within the tissue."""

Pair = tuple[NDArray[np.float32], NDArray[Any]]
"""Pixels (C, h, w) and target."""


@dataclass(frozen=True)
class Batch:
    """Pixels (N, C, h, w), targets, and the paths of the images they come from."""

    pixels: Tensor
    targets: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class Feed:
    """Source of the batches of one stage, reproducible from the seed."""

    examples: ExampleSet
    framing: Framing
    task: Task
    recipe: Recipe
    stage: Stage
    number: int
    """Number of the stage, from 0."""
    seed: int
    part: tuple[int, int] = (0, 1)
    """(rank, number of processes), which selects this process's images of each batch."""

    def __post_init__(self) -> None:
        if self.stage.patch > min(self.framing.size):
            height, width = self.framing.size
            raise InputError(
                f"patches of {self.stage.patch} pixels from a frame of {height}x{width}",
                remedy=f"choose a larger `size`, or a smaller {self.stage.name}.patch in the recipe",
            )
        if self.stage.patch and not self._usable():
            raise InputError("no patches: found neither boxes in positive images nor negative images")

    @property
    def steps(self) -> int:
        """Number of updates per epoch."""
        return -(-len(self._usable()) // self._images_per_batch)

    @property
    def _images_per_batch(self) -> int:
        images = self.stage.batch_size // (self.stage.patches if self.stage.patch else 1)
        return max(images, self.part[1])

    def _usable(self) -> tuple[int, ...]:
        """Numbers of usable examples: patches of a positive image are centred on its boxes, so it needs some."""
        if not self.stage.patch:
            return tuple(range(len(self.examples)))
        return tuple(number for number, one in enumerate(self.examples) if one.findings or self._is_negative(one))

    def _is_negative(self, example: Example) -> bool:
        """Whether an example has no findings: its class is the first one, or it has no label."""
        return not example.labels or example.labels[0] == self.examples.classes[0]

    def batches(self, epoch: int, first: int, workers: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `first`, prepared ahead by `workers` threads."""
        usable = self._usable()
        order = np.random.default_rng((self.seed, self.number, epoch)).permutation(len(usable))
        size = self._images_per_batch
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        rank, processes = self.part
        if len(groups[-1]) % processes:  # all processes need the same number of images
            groups[-1] = np.append(groups[-1], order[: processes - len(groups[-1]) % processes])
        own = [[usable[place] for place in group[rank::processes]] for group in groups[first:]]
        made = ahead(lambda number: self._pairs(epoch, number), [number for group in own for number in group], workers)
        try:
            for group in own:
                pairs = [pair for _ in group for pair in next(made)]
                names = tuple(self.examples.examples[number].image.path for number in group)
                yield _stack(pairs, names)
        finally:
            made.close()

    def _pairs(self, epoch: int, number: int) -> list[Pair]:
        """Return the patches, or the whole frame, of an example."""
        example = self.examples.examples[number]
        rng = np.random.default_rng((self.seed, self.number, epoch, number))
        sample = self.framing.apply(example.image, example.image.decode())
        target = self.task.target(example, sample.placement, self.framing.size)
        if not self.stage.patch:
            return [self._augmented(rng, sample.pixels, target)]
        corners = [self._corner(rng, example, sample) for _ in range(self.stage.patches)]
        return [self._augmented(rng, *self._cut(sample, target, corner)) for corner in corners]

    def _corner(self, rng: np.random.Generator, example: Example, sample: Sample) -> tuple[int, int]:
        """Draw the corner (top, left) of a patch around a finding, or within the tissue if there are no findings."""
        if example.findings:
            box = example.findings[int(rng.integers(len(example.findings)))].box
            point = box_center(box, sample.placement)
        else:
            point = _tissue_point(rng, sample.pixels)
        side = self.stage.patch
        height, width = self.framing.size
        y, x = (round(place) - side // 2 for place in point)
        return min(max(y, 0), height - side), min(max(x, 0), width - side)

    def _cut(self, sample: Sample, target: NDArray[Any], corner: tuple[int, int]) -> Pair:
        rows, columns = (slice(start, start + self.stage.patch) for start in corner)
        return sample.pixels[:, rows, columns], target[rows, columns] if target.ndim == 2 else target

    def _augmented(self, rng: np.random.Generator, pixels: NDArray[np.float32], target: NDArray[Any]) -> Pair:
        if self.recipe.flip:
            turned = tuple(axis for axis in (-1, -2) if rng.integers(2))
            pixels = np.flip(pixels, turned)
            target = np.flip(target, turned) if target.ndim == 2 else target
        if self.recipe.noise:
            noise = rng.standard_normal(pixels.shape, dtype=np.float32)
            pixels = pixels + np.float32(self.recipe.noise) * noise
        return pixels, target


def box_center(box: Box[int], placement: Placement) -> tuple[float, float]:
    """Return the centre (y, x) of a box in file pixels, in pixels of the frame."""
    return placement.to_frame((box.top + box.bottom - 1) / 2, (box.left + box.right - 1) / 2)


def _tissue_point(rng: np.random.Generator, pixels: NDArray[np.float32]) -> tuple[int, int]:
    threshold = tissue_threshold(pixels)[0]
    height, width = pixels.shape[1:]
    y, x = height // 2, width // 2
    for _ in range(_TRIES):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        if pixels[0, y, x] > threshold:
            break
    return y, x


def _stack(pairs: Sequence[Pair], names: tuple[str, ...]) -> Batch:
    pixels, targets = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*pairs, strict=True))
    return Batch(pixels, targets, names)
