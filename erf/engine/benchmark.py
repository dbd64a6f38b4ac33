"""Speed of the engine for a network, compared with a standard autograd loop."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from erf.accumulation.running import RunningMoments
from erf.gradients.autograd import unit_gradients
from erf.gradients.crops import Crop, find_crop
from erf.gradients.units import center_unit
from erf.gradients.way import Way
from erf.network.devices import memory_layout, reuse_freed_memory, synchronise
from erf.results.grid import Grid, small_block
from erf.theory.tracing import trace

Pixels = NDArray[np.float32]
Visit = Callable[[Sequence[Pixels]], None]
"""Function that processes a batch of images (C, H, W)."""


class RunningMean:
    """Running mean of absolute gradients in NumPy, as in a standard loop."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: NDArray[np.floating] | float = 0.0

    def add(self, gradient: Tensor) -> None:
        """Add the gradient (1, C, H, W) of one image."""
        self.count += 1
        self.mean += (gradient[0].abs().sum(0).cpu().numpy() - self.mean) / self.count


def plain_loop(model: nn.Module, layer: str, device: torch.device) -> Visit:
    """Build the standard loop: batch 1, parameters that require gradients, full forward pass, backward pass."""
    kept: list[Tensor] = []
    model.to(device).get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[2]))
    mean = RunningMean()

    def visit(images: Sequence[Pixels]) -> None:
        for pixels in images:
            image = torch.from_numpy(pixels)[None].to(device).requires_grad_()
            kept.clear()
            model.zero_grad()
            model(image)
            unit = torch.zeros_like(kept[0])
            y, x = center_unit((unit.shape[2], unit.shape[3]))
            unit[:, :, y, x] = 1
            kept[0].backward(unit)
            assert image.grad is not None
            mean.add(image.grad)

    return visit


def engine_loop(model: nn.Module, layer: str, device: torch.device) -> Visit:
    """Build the engine's loop over decoded images, which also computes variance, curves and per-image profiles."""
    reuse_freed_memory()
    model.to(device)
    way = Way(channels_last=memory_layout(device) is not None, crops=True, own_backward=True)
    state: list[tuple[Crop, RunningMoments]] = []

    def visit(images: Sequence[Pixels]) -> None:
        channels, height, width = images[0].shape
        if not state:
            shape = channels, height, width
            traces = trace(model, [layer], shape)
            crop = find_crop(model, traces, [(layer, center_unit(traces[layer].feature_shape[1:]))], shape)
            size = height, width
            grid = Grid(size, small_block(size), ((height - 1) / 2, (width - 1) / 2), finest=1)
            state.append((crop, RunningMoments(("abs",), grid, device, box=crop.box)))
        crop, running = state[0]
        inputs = crop.cut(torch.from_numpy(np.stack(images))).to(device).contiguous()
        with way.applied(model, device):
            for gradients in unit_gradients(model, inputs, crop.targets):
                for gradient in gradients:
                    running.add([gradient])

    return visit


def take_turns(
    visits: Mapping[str, Visit], images: Sequence[Pixels], rounds: int, device: torch.device
) -> dict[str, float]:
    """Measure the median seconds per image of each loop; loops alternate, and the first round is not counted.

    Args:
        visits: loops by name.
        images: one batch of images (C, H, W).
        rounds: number of rounds that count.
        device: device to synchronise before the clock is read.
    """
    times: dict[str, list[float]] = {name: [] for name in visits}
    for _ in range(rounds + 1):
        for name, visit in visits.items():
            start = time.perf_counter()
            visit(images)
            synchronise(device)
            times[name].append((time.perf_counter() - start) / len(images))
    return {name: median(seconds[1:]) for name, seconds in times.items()}
