"""Training tasks: the target of an example, the loss of a batch, and the scores of the outputs.

One of several classes: cross entropy (Taha et al. 2022). Any of several labels: binary cross entropy in which positive
and negative labels of a batch are weighted against each other, as Wang et al. (CVPR 2017) do for ChestX-ray14 and Li
et al. (ICME 2020) after them. One class per pixel: pixel-wise cross entropy (Li et al. 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from erf.datasets import Example, ExampleSet
from erf.errors import ImageError, InputError, LayerError
from erf.images import read_image
from erf.images.image import Placement
from erf.training.recipe import Recipe


class Task(Protocol):
    """Interface of a training task."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the network's outputs."""

    def check(self, examples: ExampleSet) -> None:
        """Raise `InputError` if the examples do not fit the task."""

    def target(self, example: Example, placement: Placement, size: tuple[int, int]) -> NDArray[Any]:
        """Return the desired output for an example in a frame of (height, width) `size`."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over the examples of a batch."""

    def scores(self, outputs: Tensor) -> Tensor:
        """Return probabilities (N, classes); for `masks` the class of every pixel (N, H, W)."""


def task_of(recipe: Recipe, classes: Sequence[str]) -> Task:
    """Return the task of a recipe, for the given classes."""
    kinds: dict[str, type[Classes] | type[Labels] | type[Masks]] = {
        "classes": Classes,
        "labels": Labels,
        "masks": Masks,
    }
    return kinds[recipe.task](tuple(classes), recipe.balance)


@dataclass(frozen=True)
class Classes:
    """Task with exactly one class per image."""

    classes: tuple[str, ...]
    balance: bool = False

    def check(self, examples: ExampleSet) -> None:
        for example in examples:
            if len(example.labels) != 1:
                raise InputError(
                    f"{example.image.path}: found {len(example.labels)} labels, expected one: a column 'label' in the "
                    "manifest; of multi-label data, the preset srb-multilabel"
                )
        if len(examples.classes) < 2:
            raise InputError(f"found the single class '{examples.classes[0]}'; expected two or more")

    def target(self, example: Example, placement: Placement, size: tuple[int, int]) -> NDArray[Any]:
        return np.asarray(self.classes.index(example.labels[0]), np.int64)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        _check_outputs(outputs, len(self.classes), 2)
        return functional.cross_entropy(outputs.float(), targets)

    def scores(self, outputs: Tensor) -> Tensor:
        _check_outputs(outputs, len(self.classes), 2)
        return outputs.float().softmax(1)


@dataclass(frozen=True)
class Labels:
    """Task with any number of labels per image."""

    classes: tuple[str, ...]
    balance: bool = False

    def check(self, examples: ExampleSet) -> None:
        if not examples.classes:
            raise InputError("found no labels; expected a column 'label' with labels joined by '|'")

    def target(self, example: Example, placement: Placement, size: tuple[int, int]) -> NDArray[Any]:
        return np.asarray([name in example.labels for name in self.classes], np.float32)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        _check_outputs(outputs, len(self.classes), 2)
        return functional.binary_cross_entropy_with_logits(outputs.float(), targets, self._weights(targets))

    def _weights(self, targets: Tensor) -> Tensor | None:
        """Weights (N, classes) that give all positive and all negative labels of a batch equal total weight, mean 1."""
        if not self.balance:
            return None
        positive = targets.sum()
        negative = targets.numel() - positive
        if not positive or not negative:
            return None
        return 0.5 * targets.numel() * (targets / positive + (1 - targets) / negative)

    def scores(self, outputs: Tensor) -> Tensor:
        _check_outputs(outputs, len(self.classes), 2)
        return outputs.float().sigmoid()


@dataclass(frozen=True)
class Masks:
    """Task with one class per pixel."""

    classes: tuple[str, ...]
    balance: bool = False

    def check(self, examples: ExampleSet) -> None:
        for example in examples:
            if example.mask is None:
                raise InputError(f"{example.image.path}: no mask; expected a column 'mask' with the path of an image")

    def target(self, example: Example, placement: Placement, size: tuple[int, int]) -> NDArray[Any]:
        assert example.mask is not None
        mask = read_image(example.mask).pixels[0]
        # Masks of two classes are often black and white (0 and 255).
        values = (mask > 0).astype(np.int64) if len(self.classes) == 2 else mask.astype(np.int64)
        if values.min() < 0 or values.max() >= len(self.classes):
            raise ImageError(
                f"{example.mask}: found class {values.max()}, expected numbers from 0 to {len(self.classes) - 1}"
            )
        return frame_mask(values, placement, size)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        _check_outputs(outputs, len(self.classes), 4)
        return functional.cross_entropy(outputs.float(), targets)

    def scores(self, outputs: Tensor) -> Tensor:
        _check_outputs(outputs, len(self.classes), 4)
        return outputs.argmax(1)


def frame_mask(mask: NDArray[Any], placement: Placement, size: tuple[int, int]) -> NDArray[Any]:
    """Transform a mask (h, w) in file pixels to the frame of its image; 0 outside the file.

    Args:
        mask: class of each pixel of the file.
        placement: position and scale of the image in its frame.
        size: (height, width) of the frame.
    """
    framed = mask
    starts = (placement.top, placement.left)
    for axis, (start, length, scale) in enumerate(zip(starts, size, placement.scale, strict=True)):
        places = np.floor((np.arange(length) - start + 0.5) / scale).astype(np.intp)
        inside = (places >= 0) & (places < framed.shape[axis])
        framed = np.take(framed, np.where(inside, places, 0), axis)
        framed = np.where(inside[:, None] if axis == 0 else inside[None, :], framed, 0)
    return framed[:, ::-1].copy() if placement.mirrored_width else framed


def _check_outputs(outputs: Any, classes: int, axes: int) -> None:
    if not torch.is_tensor(outputs) or outputs.ndim != axes or outputs.shape[1] != classes:
        found = tuple(outputs.shape) if torch.is_tensor(outputs) else type(outputs).__name__
        expected = f"(N, {classes})" if axes == 2 else f"(N, {classes}, H, W)"
        raise LayerError(f"the network gives {found}, expected {expected}: one output for each class")
