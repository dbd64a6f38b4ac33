"""The ways of having an ERF that are compared: each takes a network and decoded images, and visits one batch a call."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from captum.attr import NeuronGradient
from numpy.typing import NDArray
from torch import Tensor, nn

from erf.backward import input_gradients_only
from erf.devices import reuse_freed_memory
from erf.gradients import frozen, unit_gradient
from erf.layers import center_unit
from erf.moments import RunningMoments
from erf.tracing import trace
from erf.windows import Window, find_window

Pixels = NDArray[np.float32]
Visit = Callable[[Sequence[Pixels]], None]


class RunningMean:
    """Of absolute gradients, in NumPy, as it is usually done."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: NDArray[np.floating] | float = 0.0

    def add(self, gradient: Tensor) -> None:
        self.count += 1
        self.mean += (gradient[0].abs().sum(0).numpy() - self.mean) / self.count


def plain(model: nn.Module, layer: str) -> Visit:
    """The loop that is usually copied: batch 1, parameters that require gradients, full forward and backward pass."""
    kept: list[Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[2]))
    mean = RunningMean()

    def visit(images: Sequence[Pixels]) -> None:
        for pixels in images:
            image = torch.from_numpy(pixels)[None].requires_grad_()
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


def captum(model: nn.Module, layer: str) -> Visit:
    """`NeuronGradient`, with the sum over the channels of the unit as the neuron."""
    neuron, mean = NeuronGradient(model, model.get_submodule(layer)), RunningMean()

    def value(output: Tensor) -> Tensor:
        y, x = center_unit((output.shape[2], output.shape[3]))
        return output[:, :, y, x].sum(1)

    def visit(images: Sequence[Pixels]) -> None:
        for pixels in images:
            image = torch.from_numpy(pixels)[None].requires_grad_()
            mean.add(neuron.attribute(image, value).detach())

    return visit


def ours(model: nn.Module, layer: str) -> Visit:
    """What the engine does with decoded images; variance, curves and each image's footprint come with it."""
    reuse_freed_memory()
    state: list[tuple[Window, RunningMoments]] = []

    def visit(images: Sequence[Pixels]) -> None:
        shape = images[0].shape
        if not state:
            traces = trace(model, [layer], shape)
            window = find_window(model, traces, {layer: center_unit(traces[layer].feature_shape[1:])}, shape)
            state.append((window, RunningMoments(("abs",), shape[1:], torch.device("cpu"), part=window.part)))
        window, running = state[0]
        inputs = window.cut(torch.from_numpy(np.stack(images))).contiguous()
        with frozen(model, torch.channels_last), input_gradients_only(model):
            for gradient in unit_gradient(model, inputs, layer, window.units[layer]):
                running.add([gradient])

    return visit


LOOPS = {"plain": plain, "captum": captum, "ours": ours}
