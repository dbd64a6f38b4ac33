"""The ways of having an ERF that are compared: the usual loop, captum, and the engine."""

from collections.abc import Sequence

import torch
from captum.attr import NeuronGradient
from torch import Tensor, nn

from erf.benchmark import Pixels, RunningMean, Visit, engine_loop, plain_loop
from erf.units import center_unit


def captum_loop(model: nn.Module, layer: str, device: torch.device) -> Visit:
    """`NeuronGradient`, with the sum over the channels of the unit as the neuron."""
    neuron, mean = NeuronGradient(model.to(device), model.get_submodule(layer)), RunningMean()

    def value(output: Tensor) -> Tensor:
        y, x = center_unit((output.shape[2], output.shape[3]))
        return output[:, :, y, x].sum(1)

    def visit(images: Sequence[Pixels]) -> None:
        for pixels in images:
            image = torch.from_numpy(pixels)[None].to(device).requires_grad_()
            mean.add(neuron.attribute(image, value).detach())

    return visit


LOOPS = {"plain": plain_loop, "captum": captum_loop, "ours": engine_loop}
