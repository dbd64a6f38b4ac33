"""Compared methods to compute an ERF from arrays: a standard autograd loop, captum, and the engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import NeuronGradient
from torch import Tensor, nn

from benchmarks import turns
from erf.engine.benchmark import Pixels, RunningMean, Visit, engine_loop, plain_loop
from erf.gradients.units import center_unit
from erf.models import create_model, model_card
from erf.process import ask_for_large_pages


def captum_loop(model: nn.Module, layer: str, device: torch.device) -> Visit:
    """Return a loop that uses captum's `NeuronGradient`, with the sum over the unit's channels as the neuron."""
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


@dataclass(frozen=True)
class Subject:
    """A network with an input size; `batch` images are processed per call."""

    model: str
    size: tuple[int, int]
    batch: int = 1


SUBJECTS = {
    subject.model: subject
    for subject in (
        Subject("gmic", (3328, 2560)),
        Subject("def-gmic", (3328, 2560)),
        Subject("hct", (3328, 2560)),
        Subject("unet-srb-f", (512, 512)),
        Subject("resnet50", (1024, 1024)),
        Subject("swin-tiny", (224, 224), 5),
    )
}


def visit_arrays(side: str, subject: Subject) -> turns.Visit:
    """Return a function that processes one batch, the same for all methods; ours in large pages like `erf compute`."""
    if side == "ours":
        ask_for_large_pages()
    card = model_card(subject.model)
    network = create_model(subject.model, size=subject.size)
    visit = LOOPS[side](network, card.default_layer, torch.device("cpu"))
    rng = np.random.default_rng(0)
    shape = (card.in_channels, *subject.size)
    images = [rng.standard_normal(shape, dtype=np.float32) for _ in range(subject.batch)]

    def call() -> int:
        visit(images)
        return len(images)

    return call
