"""Predictions of a network on examples."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from erf.datasets import Example, ExampleSet
from erf.evaluation import Prediction, Predictions
from erf.images import Framing, Progress
from erf.images.stream import ahead
from erf.network.devices import memory_errors, memory_layout
from erf.training.tasks import Task


@dataclass(frozen=True)
class Outcome:
    """Prediction and loss for one example."""

    prediction: Prediction
    loss: float


def predict(
    model: nn.Module,
    examples: ExampleSet,
    task: Task,
    framing: Framing,
    *,
    kind: str,
    device: torch.device,
    workers: int = 1,
    progress: Progress | None = None,
    model_name: str = "",
    weights: str = "",
    trained_on: str = "",
) -> Predictions:
    """Predict all examples with a network in eval mode.

    The memory format of the weights is changed for speed, so do not use it within a training.

    Args:
        model: the network, on `device`.
        examples: images with their labels.
        task: defines targets, loss and scores.
        framing: preprocessing of the images.
        kind: name of the task, stored in the result.
        device: device of the computation.
        workers: threads that decode ahead.
        progress: called as (stage, done, total).
        model_name: stored in the result, like the next two.
        weights: identifies the weights.
        trained_on: part of the data that the network was trained on.
    """
    layout = memory_layout(device)
    if layout is not None:
        model = model.to(memory_format=layout)
    outcomes = outcomes_of(model, examples.examples, task, framing, device, workers, progress)
    rows = tuple(outcome.prediction for outcome in outcomes)
    height, width = framing.size
    return Predictions(kind, examples.classes, rows, model_name, weights, f"{height}x{width}", trained_on)


def outcomes_of(
    model: nn.Module,
    examples: Sequence[Example],
    task: Task,
    framing: Framing,
    device: torch.device,
    workers: int = 1,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Yield the outcomes in the order of the examples; meanwhile the network is in eval mode.

    Arguments are those of `predict`.
    """

    def prepare(example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        sample = framing.apply(example.image, example.image.decode())
        target = task.target(example, sample.placement, framing.size)
        return torch.from_numpy(sample.pixels)[None], torch.from_numpy(target.copy())[None]

    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), memory_errors("use a smaller `size`"):
            for done, (pixels, target) in enumerate(ahead(prepare, examples, workers), start=1):
                outputs = model(pixels.to(device))
                loss = float(task.loss(outputs, target.to(device)))
                prediction = _prediction(examples[done - 1], task, task.scores(outputs).cpu()[0], target[0])
                yield Outcome(prediction, loss)
                if progress is not None:
                    progress("predictions", done, len(examples))
    finally:
        model.train(was_training)


def _prediction(example: Example, task: Task, scores: torch.Tensor, target: torch.Tensor) -> Prediction:
    image = example.image
    counts = None
    if scores.ndim == 2:  # the class of every pixel
        counts = np.zeros((len(task.classes), len(task.classes)), np.int64)
        np.add.at(counts, (target.numpy().ravel(), scores.numpy().ravel()), 1)
    return Prediction(
        image=image.path,
        truth=example.labels,
        scores=() if counts is not None else tuple(float(score) for score in scores),
        pixels=counts,
        patient=image.patient_id,
        laterality=image.laterality,
        view=image.view,
        findings=tuple(dict.fromkeys(finding.kind for finding in example.findings if finding.kind)),
        finding_size=max((finding.size for finding in example.findings), default=math.nan),
        columns={name: value for name, value in image.columns.items() if name not in ("label", "finding", "mask")},
    )
