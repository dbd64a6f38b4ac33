"""Training loop over stages, which can stop at any update and be resumed with identical results.

accelerate handles processes and devices. Random numbers are seeded by the number of the update and of the example, so
that only the weights and the optimiser's state have to be saved.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from erf.datasets import ExampleSet
from erf.errors import InputError, InterruptedRunError
from erf.evaluation import Predictions
from erf.evaluation.scores import summarise
from erf.images import Progress
from erf.network.devices import memory_layout
from erf.training.batches import Feed
from erf.training.folder import Folder, State
from erf.training.plan import Plan
from erf.training.prediction import outcomes_of
from erf.training.recipe import Stage, learning_rate
from erf.training.record import AfterEpoch, Record
from erf.training.tasks import Task, task_of
from erf.training.update import Updater

AfterUpdate = Callable[[nn.Module], None]


@dataclass
class Training:
    """Training of a network by a recipe. `run` may be called once."""

    model: nn.Module
    plan: Plan
    folder: Folder
    about: Mapping[str, Any] = field(default_factory=dict)
    """Entries for run.json and the headers of weights files."""
    after_update: AfterUpdate | None = None
    """Called with the network after each update."""
    after_epoch: AfterEpoch | None = None
    """Called with the network and its row of epochs.json, before training (epoch 0) and after each epoch."""
    progress: Progress | None = None
    stop: Callable[[], bool] = lambda: False

    def run(self) -> State:
        """Train to the end and return the final state.

        Raises:
            TrainingError: the loss is not finite.
            InterruptedRunError: `stop` returned True.
            CheckpointError: the folder holds a training with other settings.
            InputError: the examples do not fit the task.
        """
        plan = self.plan
        self._accelerator = _accelerator(plan)
        self._task: Task = task_of(plan.recipe, plan.train.classes)
        for examples in (plan.train, plan.validation):
            if examples is not None:
                self._task.check(examples)
        self._feeds = [self._feed(stage, number) for number, stage in enumerate(plan.recipe.stages)]
        self._record = Record(self.folder, plan, self.about, self._accelerator)
        if self._record.load_finished():
            return self._record.state
        with torch.random.fork_rng():
            is_resumed = self._record.load_snapshot(self.model)
            layout = memory_layout(self._accelerator.device)
            if layout is not None:  # nearly twice as fast on a CPU
                self.model.to(memory_format=layout)
            wrapped = self._accelerator.prepare_model(self.model)
            self._updater = Updater(self.model, wrapped, self._accelerator, self._task, plan)
            if not is_resumed:
                self._record.begin()
                self._end_epoch({"epoch": 0, "stage": "initial", "epoch_of_stage": 0, "updates": 0})
            for number in range(self._record.state.stage, len(plan.recipe.stages)):
                self._train_stage(number)
        self._record.finish(self.model)
        return self._record.state

    def _feed(self, stage: Stage, number: int) -> Feed:
        accelerator, plan = self._accelerator, self.plan
        part = (accelerator.process_index, accelerator.num_processes)
        return Feed(plan.train, plan.framing, self._task, plan.recipe, stage, number, plan.seed, part)

    def _train_stage(self, number: int) -> None:
        stage, state = self.plan.recipe.stages[number], self._record.state
        optimiser = torch.optim.Adam(self.model.parameters(), stage.lr, weight_decay=self.plan.recipe.weight_decay)
        if state.optimiser:
            optimiser.load_state_dict(dict(state.optimiser))
        while state.epoch < stage.epochs and not self._is_stuck(stage):
            self._train_epoch(stage, self._feeds[number], optimiser)
        state.stage, state.epoch, state.step = number + 1, 0, 0
        state.optimiser = {}

    def _train_epoch(self, stage: Stage, feed: Feed, optimiser: torch.optim.Optimizer) -> None:
        state, started = self._record.state, time.monotonic()
        self._update_all(stage, feed, optimiser)
        state.epoch, state.step = state.epoch + 1, 0
        losses = [row["loss"] for row in state.steps[-feed.steps :]]
        self._end_epoch(
            {
                "epoch": len(state.epochs),
                "stage": stage.name,
                "epoch_of_stage": state.epoch,
                "updates": state.updates,
                "loss": float(np.mean(losses)),
                "seconds": round(time.monotonic() - started, 1),
            }
        )
        self._record.save(self.model, optimiser)
        if self._is_stopped():
            raise InterruptedRunError(f"stopped after {state.updates} updates")

    def _update_all(self, stage: Stage, feed: Feed, optimiser: torch.optim.Optimizer) -> None:
        """Make the updates that are left of the current epoch, with snapshots between them."""
        state, steps, saved = self._record.state, feed.steps, time.monotonic()
        self.model.train()
        for batch in feed.batches(state.epoch, state.step, self.plan.workers):
            lr = learning_rate(self.plan.recipe, stage, state.epoch * steps + state.step, stage.epochs * steps)
            where = f"{stage.name}, epoch {state.epoch + 1}, step {state.step + 1}"
            loss = self._updater.update(batch, optimiser, lr, state.updates, where)
            if self.after_update is not None:
                self.after_update(self.model)
            self._record.add_step(stage, lr, loss)
            if self.progress is not None:
                self.progress(f"{stage.name} {state.epoch + 1}/{stage.epochs}, loss {loss:.3f}", state.step, steps)
            if self._is_stopped() and state.step < steps:
                self._record.save(self.model, optimiser)
                raise InterruptedRunError(f"stopped after {state.updates} updates")
            if time.monotonic() - saved > self.plan.save_every:
                self._record.save(self.model, optimiser)
                saved = time.monotonic()

    def _is_stuck(self, stage: Stage) -> bool:
        """Whether the validation loss has not fallen for `patience` epochs."""
        patience = self.plan.recipe.patience
        losses = [row["validation_loss"] for row in self._record.state.epochs if row["stage"] == stage.name]
        return bool(patience and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience]))

    def _is_stopped(self) -> bool:
        """Whether any process has received a request to stop."""
        accelerator = self._accelerator
        if accelerator.num_processes == 1:
            return self.stop()
        asked = torch.tensor(float(self.stop()), device=accelerator.device)
        return bool(accelerator.reduce(asked, "sum") > 0)

    def _end_epoch(self, row: dict[str, Any]) -> None:
        if self.plan.validation is not None:
            row |= self._validate(self.plan.validation)
        self._record.add_epoch(row, self.model, self.after_epoch)

    def _validate(self, examples: ExampleSet) -> dict[str, float]:
        """Return loss and scores on the validation examples, which the processes share."""
        accelerator, plan = self._accelerator, self.plan
        rank, processes = accelerator.process_index, accelerator.num_processes
        own = examples.examples[rank::processes]
        outcomes = list(
            outcomes_of(self.model, own, self._task, plan.framing, accelerator.device, plan.workers, self.progress)
        )
        found = gather_object(outcomes) if processes > 1 else outcomes
        rows = tuple(outcome.prediction for outcome in found)
        scores = summarise(Predictions(plan.recipe.task, examples.classes, rows))
        loss = float(np.mean([outcome.loss for outcome in found]))
        return {"validation_loss": loss} | {f"validation_{name}": value for name, value in scores.items()}


def _accelerator(plan: Plan) -> Accelerator:
    if plan.precision not in ("float32", "bfloat16"):
        raise InputError(f"precision '{plan.precision}' not known; expected float32 or bfloat16")
    return Accelerator(mixed_precision="no", cpu=plan.device == "cpu")
