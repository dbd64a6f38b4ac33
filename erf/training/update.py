"""One update of a network's weights from a batch: gradients in micro-batches, over all processes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from erf.errors import TrainingError
from erf.network.devices import memory_errors
from erf.training.asam import at_sharpest
from erf.training.batches import Batch
from erf.training.plan import Plan
from erf.training.tasks import Task


@dataclass(frozen=True)
class Updater:
    """Updates of a network's weights."""

    model: nn.Module
    wrapped: Any
    """The model as accelerate prepares it for several processes."""
    accelerator: Accelerator
    task: Task
    plan: Plan

    def update(
        self, batch: Batch, optimiser: torch.optim.Optimizer, learning_rate: float, number: int, where: str
    ) -> float:
        """Update the weights once.

        Args:
            batch: pixels and targets.
            optimiser: takes the step.
            learning_rate: of this step.
            number: number of updates before this one, which seeds random numbers in the network.
            where: position in the training, for messages.

        Returns:
            The batch's mean loss over all processes before the update.

        Raises:
            TrainingError: the loss is not finite.
            InsufficientMemoryError: the pass does not fit into memory.
        """
        for group in optimiser.param_groups:
            group["lr"] = learning_rate
        optimiser.zero_grad()
        with memory_errors("use a smaller `micro_batch` or `size`"):
            loss = self._backward(batch, number)
            _check_finite(loss, batch, where)
            if self.plan.recipe.optimiser == "asam":
                with at_sharpest(self.model, self.plan.recipe.rho):
                    self._backward(batch, number)
        optimiser.step()
        return loss

    def _backward(self, batch: Batch, number: int) -> float:
        """Accumulate the gradients of the batch's mean loss in micro-batches; return the loss over all processes."""
        accelerator = self.accelerator
        torch.manual_seed(_seed(self.plan.seed, number, accelerator.process_index))
        count = len(batch.pixels)
        size = self.plan.micro_batch or count
        total = torch.zeros((), device=accelerator.device)
        for start in range(0, count, size):
            part = slice(start, start + size)
            pixels, targets = (one[part].to(accelerator.device) for one in (batch.pixels, batch.targets))
            with self._synchronised(start + size >= count), self._autocast():
                loss = self.task.loss(self.wrapped(pixels), targets) * (len(pixels) / count)
                accelerator.backward(loss)
            total += loss.detach()
        return float(accelerator.reduce(total, "mean"))

    @contextmanager
    def _synchronised(self, last: bool) -> Iterator[None]:
        """Exchange gradients between processes only with the last micro-batch."""
        if last:
            yield
        else:
            with self.accelerator.no_sync(self.wrapped):
                yield

    def _autocast(self) -> torch.autocast:
        # Not accelerate's autocast, whose replacement of the network's forward is shared by copies of the network.
        is_mixed = self.plan.precision == "bfloat16"
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=is_mixed)


def _check_finite(loss: float, batch: Batch, where: str) -> None:
    if math.isfinite(loss):
        return
    names = ", ".join(dict.fromkeys(batch.names))
    raise TrainingError(
        f"loss is {loss} in {where} (images: {names}); look at these images, or take a smaller learning rate"
    )


def _seed(*numbers: int) -> int:
    """Derive a seed for PyTorch from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
