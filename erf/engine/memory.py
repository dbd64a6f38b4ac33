"""Memory and disk space that a run needs, estimated before its first image."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from tempfile import gettempdir

import torch

from erf.box import Box
from erf.engine.passes import Pass
from erf.engine.settings import Settings
from erf.engine.units import MeasuredUnit
from erf.errors import InsufficientMemoryError, OutputError
from erf.network.devices import available_memory

REMEDY = "use a smaller `size`, fewer `definitions` or a smaller `batch_size`"

_PIXELS_PER_PASS, _PIXELS_PER_GPU_PASS, _LARGEST_BATCH = 2**18, 2**24, 16
"""Pixels and images per batch above which larger batches gain little."""

_SUM, _RING = 8, 2
"""Bytes of a float64 sum, of which each definition has two per pixel, and of the index of a pixel's ring."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Estimate of the bytes that the parts of a run need."""

    shape: tuple[int, int, int]
    """(C, H, W) of an image."""
    settings: Settings
    device: torch.device

    def images(self, count: int) -> int:
        """Return the bytes of images, or of gradients on whole images, in float32."""
        return 4 * count * self.shape[0] * self.shape[1] * self.shape[2]

    def sums(self, passes: Sequence[Pass]) -> int:
        """Return the bytes of the sums of all measured units, which cover the crops of their passes."""
        per_pixel = 2 * _SUM * len(self.settings.definitions) + _RING
        pixels = sum(_pixels(each) * len(set(each.units)) for each in passes)
        return per_pixel * len(self.settings.arguments.parts) * pixels

    def gradients(self, passes: Sequence[Pass]) -> int:
        """Return the bytes of the gradients of one image, of all targets and draws."""
        pixels = sum(_pixels(each) * len(each.units) for each in passes)
        return 4 * self.shape[0] * pixels * self.settings.projections

    def needed(self, passes: Sequence[Pass], batch: int = 1) -> int:
        """Return the bytes that sums, gradients and images need at least, in batches of `batch` images."""
        on_device = worker_count(self.settings.workers, self.device) if self.device.type == "cuda" else 0
        images = self.images(2 * batch + on_device)  # the batch, the one ahead, and those copied to the device
        return self.sums(passes) + batch * self.gradients(passes) + images

    def kept(self, passes: Sequence[Pass], units: Iterable[MeasuredUnit]) -> int:
        """Estimate the bytes that autograd keeps per image: at least half of the intermediate maps, at most all."""
        largest = max(_pixels(each) for each in passes) / (self.shape[1] * self.shape[2])
        return int(activation_bytes(units) // 2 * largest)

    def total(self, passes: Sequence[Pass], units: Iterable[MeasuredUnit], batch: int) -> int:
        """Return the bytes that a run needs at least, in batches of `batch` images."""
        return self.needed(passes, batch) + batch * self.kept(passes, units)

    def batch_size(self, passes: Sequence[Pass], units: Iterable[MeasuredUnit]) -> int:
        """Return the number of images that fill a pass, or a quarter of the memory, where the settings give none."""
        return fitting_batch(_pixels(passes[0]), self.device, self.total(passes, units, 1))

    def check(self, needed: int) -> None:
        """Raise `InsufficientMemoryError` if a number of bytes is not available."""
        available = available_memory(self.device)
        if needed > available:
            raise InsufficientMemoryError(
                f"a run at {self.shape[1]}x{self.shape[2]} needs at least {needed / 1e9:.1f} GB on {self.device.type}, "
                f"{available / 1e9:.1f} GB are free",
                remedy=REMEDY,
            )


def activation_bytes(units: Iterable[MeasuredUnit]) -> int:
    """Return the bytes per image of all maps up to the deepest layer."""
    return max(each.trace.activation_bytes for each in units)


def fitting_batch(pixels: int, device: torch.device, per_image: int) -> int:
    """Return the number of images per batch.

    Args:
        pixels: pixels of the crop that the network is given.
        device: device of the run.
        per_image: bytes that one image takes; a batch takes at most a quarter of the memory.
    """
    filling = (_PIXELS_PER_PASS if device.type == "cpu" else _PIXELS_PER_GPU_PASS) // max(1, pixels)
    return max(1, min(filling, _LARGEST_BATCH, available_memory(device) // (4 * per_image)))


def worker_count(workers: int | None, device: torch.device) -> int:
    """Return the number of threads that decode ahead."""
    return (1 if device.type == "cpu" else 4) if workers is None else workers


def check_disk(boxes: Sequence[Box[int]], groups: int, definitions: int, folder: Path | None) -> None:
    """Raise `OutputError` if the disk has no room for the sums of all image groups.

    Args:
        boxes: part of the image that each accumulator covers.
        groups: number of image groups, each of which leaves two float64 sums per definition on disk.
        definitions: number of definitions.
        folder: folder of the temporary files; None for the system's.
    """
    folder = folder or Path(gettempdir())
    pixels = sum(math.prod(box.shape) for box in boxes)
    needed, free = groups * 2 * _SUM * definitions * pixels, disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{groups * len(boxes)} groups of images set {needed / 1e9:.1f} GB of sums aside, {free / 1e9:.1f} GB are "
            f"free in {folder}",
            remedy="use subsets with fewer values, or fewer `definitions`",
        )


def _pixels(each: Pass) -> int:
    return math.prod(each.crop.shape)
