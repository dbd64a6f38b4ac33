"""Training loop over stages, which can stop at any update and be resumed with identical results.

accelerate handles processes and devices. Random numbers are seeded by the number of the update and of the example, so
that only the weights and the optimiser's state have to be saved.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from erf.datasets import ExampleSet
from erf.errors import CheckpointError, InputError, InterruptedRunError, TrainingError
from erf.evaluation import Predictions
from erf.evaluation.scores import summarise
from erf.images import Framing
from erf.network.devices import memory_errors, memory_layout
from erf.training.asam import at_sharpest
from erf.training.batches import Batch, Feed
from erf.training.folder import Folder, State
from erf.training.prediction import outcomes_of
from erf.training.recipe import Recipe, Stage, learning_rate
from erf.training.tasks import Task, task_of

SAVE_EVERY = 120.0
"""Seconds between snapshots within an epoch."""

_TOLD = ("model", "model_options", "weights_sha256", "trained_on", "normalisation", "resample", "erf")
"""Entries of `Training.about` that must be unchanged when the training is resumed."""

Progress = Callable[[str, int, int], None]
AfterUpdate = Callable[[nn.Module], None]
AfterEpoch = Callable[[nn.Module, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """Settings and data of a training."""

    recipe: Recipe
    train: ExampleSet
    validation: ExampleSet | None
    framing: Framing
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    """`float32`, or `bfloat16` for mixed precision."""
    micro_batch: int = 0
    """Patches or images per forward pass; 0 for the whole batch of a process."""
    workers: int = 2
    """Threads that prepare batches ahead."""
    save_every: float = SAVE_EVERY


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
        self._state = State(self._identity())
        if self.folder.resume and self.folder.is_finished:
            about, self._state.epochs = self.folder.finished()
            self._check_same(about)
            return self._state
        saved = self.folder.load() if self.folder.resume else None
        with torch.random.fork_rng():
            if saved is not None:
                self._go_on_from(saved)
            layout = memory_layout(self._accelerator.device)
            if layout is not None:  # nearly twice as fast on a CPU
                self.model.to(memory_format=layout)
            self._wrapped = self._accelerator.prepare_model(self.model)
            if saved is None:
                self._begin()
            for number in range(self._state.stage, len(plan.recipe.stages)):
                self._train_stage(number)
        self._finish()
        return self._state

    def _identity(self) -> dict[str, Any]:
        """Settings that must be unchanged when the training is resumed."""
        plan = self.plan
        parts = {"images": plan.train, "validation images": plan.validation}
        found: dict[str, Any] = {
            name: _digest([f"{example.image.id}\t{example.labels}" for example in part]) if part else ""
            for name, part in parts.items()
        }
        found |= {name: self.about[name] for name in _TOLD if name in self.about}
        found |= {
            "recipe": {key: value for key, value in plan.recipe.as_dict().items() if key != "source"},
            "classes": list(plan.train.classes),
            "size": list(plan.framing.size),
            "seed": plan.seed,
            "precision": plan.precision,
            "processes": self._accelerator.num_processes,
            "micro_batch": plan.micro_batch,
        }
        return dict(json.loads(json.dumps(found)))

    def _check_same(self, saved: Mapping[str, Any]) -> None:
        changed = [name for name, value in self._state.identity.items() if saved.get(name) != value]
        if changed:
            raise CheckpointError(f"{self.folder.path} holds a training with other {', '.join(changed)}")

    def _go_on_from(self, saved: State) -> None:
        self._check_same(saved.identity)
        self.model.load_state_dict(dict(saved.model))
        self._state = saved

    def _begin(self) -> None:
        if self._accelerator.is_main_process:
            self.folder.describe({**self.about, **self._state.identity})
        self._end_epoch({"epoch": 0, "stage": "initial", "epoch_of_stage": 0, "updates": 0})

    def _train_stage(self, number: int) -> None:
        stage = self.plan.recipe.stages[number]
        feed = self._feeds[number]
        optimiser = torch.optim.Adam(self.model.parameters(), stage.lr, weight_decay=self.plan.recipe.weight_decay)
        if self._state.optimiser:
            optimiser.load_state_dict(dict(self._state.optimiser))
        while self._state.epoch < stage.epochs and not self._is_stuck(stage):
            self._train_epoch(stage, feed, optimiser)
        self._state.stage, self._state.epoch, self._state.step = number + 1, 0, 0
        self._state.optimiser = {}

    def _feed(self, stage: Stage, number: int) -> Feed:
        accelerator, plan = self._accelerator, self.plan
        part = (accelerator.process_index, accelerator.num_processes)
        return Feed(plan.train, plan.framing, self._task, plan.recipe, stage, number, plan.seed, part)

    def _train_epoch(self, stage: Stage, feed: Feed, optimiser: torch.optim.Optimizer) -> None:
        state, steps = self._state, feed.steps
        saved = started = time.monotonic()
        self.model.train()
        for batch in feed.batches(state.epoch, state.step, self.plan.workers):
            lr = learning_rate(self.plan.recipe, stage, state.epoch * steps + state.step, stage.epochs * steps)
            loss = self._update(batch, optimiser, lr, f"{stage.name}, epoch {state.epoch + 1}, step {state.step + 1}")
            state.step, state.updates = state.step + 1, state.updates + 1
            state.steps.append(
                {"step": state.updates, "stage": stage.name, "epoch": state.epoch + 1, "lr": lr, "loss": loss}
            )
            if self.progress is not None:
                self.progress(f"{stage.name} {state.epoch + 1}/{stage.epochs}, loss {loss:.3f}", state.step, steps)
            if self._is_stopped() and state.step < steps:
                self._save(optimiser)
                raise InterruptedRunError(f"stopped after {state.updates} updates")
            if time.monotonic() - saved > self.plan.save_every:
                self._save(optimiser)
                saved = time.monotonic()
        state.epoch, state.step = state.epoch + 1, 0
        losses = [row["loss"] for row in state.steps[-steps:]]
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
        self._save(optimiser)
        if self._is_stopped():
            raise InterruptedRunError(f"stopped after {state.updates} updates")

    def _update(self, batch: Batch, optimiser: torch.optim.Optimizer, lr: float, where: str) -> float:
        """Update the weights once; return the batch's mean loss before the update."""
        for group in optimiser.param_groups:
            group["lr"] = lr
        optimiser.zero_grad()
        with memory_errors("use a smaller `micro_batch` or `size`"):
            loss = self._backward(batch)
            self._check_finite(loss, batch, where)
            if self.plan.recipe.optimiser == "asam":
                with at_sharpest(self.model, self.plan.recipe.rho):
                    self._backward(batch)
        optimiser.step()
        if self.after_update is not None:
            self.after_update(self.model)
        return loss

    def _backward(self, batch: Batch) -> float:
        """Accumulate the gradients of the batch's mean loss in micro-batches; return the loss over all processes."""
        accelerator = self._accelerator
        torch.manual_seed(_seed(self.plan.seed, self._state.updates, accelerator.process_index))
        count = len(batch.pixels)
        size = self.plan.micro_batch or count
        total = torch.zeros((), device=accelerator.device)
        for start in range(0, count, size):
            part = slice(start, start + size)
            pixels, targets = (one[part].to(accelerator.device) for one in (batch.pixels, batch.targets))
            with self._synchronised(start + size >= count), self._autocast():
                loss = self._task.loss(self._wrapped(pixels), targets) * (len(pixels) / count)
                accelerator.backward(loss)
            total += loss.detach()
        return float(accelerator.reduce(total, "mean"))

    @contextmanager
    def _synchronised(self, last: bool) -> Iterator[None]:
        """Exchange gradients between processes only with the last micro-batch."""
        if last:
            yield
        else:
            with self._accelerator.no_sync(self._wrapped):
                yield

    def _autocast(self) -> torch.autocast:
        # Not accelerate's autocast, whose replacement of the network's forward is shared by copies of the network.
        is_mixed = self.plan.precision == "bfloat16"
        return torch.autocast(self._accelerator.device.type, torch.bfloat16, enabled=is_mixed)

    def _check_finite(self, loss: float, batch: Batch, where: str) -> None:
        if math.isfinite(loss):
            return
        names = ", ".join(dict.fromkeys(batch.names))
        raise TrainingError(
            f"loss is {loss} in {where} (images: {names}); look at these images, or take a smaller learning rate"
        )

    def _is_stuck(self, stage: Stage) -> bool:
        """Whether the validation loss has not fallen for `patience` epochs."""
        patience = self.plan.recipe.patience
        losses = [row["validation_loss"] for row in self._state.epochs if row["stage"] == stage.name]
        return bool(patience and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience]))

    def _end_epoch(self, row: dict[str, Any]) -> None:
        """Validate, write weights, and call `after_epoch`."""
        if self.plan.validation is not None:
            row |= self._validate(self.plan.validation)
        self._state.epochs.append(row)
        if self._accelerator.is_main_process:
            name = f"checkpoints/{row['epoch']:03d}-{row['stage']}.safetensors"
            self.folder.save_weights(name, self.model.state_dict(), self._header(row))
            if self.after_epoch is not None:
                was_training = self.model.training
                self.after_epoch(self.model.eval(), row)
                self.model.train(was_training)
            self.folder.write_log(self._state)
        self._accelerator.wait_for_everyone()

    def _validate(self, examples: ExampleSet) -> dict[str, float]:
        accelerator = self._accelerator
        rank, processes = accelerator.process_index, accelerator.num_processes
        own = list(
            outcomes_of(
                self.model,
                examples.examples[rank::processes],
                self._task,
                self.plan.framing,
                accelerator.device,
                self.plan.workers,
                self.progress,
            )
        )
        found = gather_object(own) if processes > 1 else own
        predictions = Predictions(
            self.plan.recipe.task, examples.classes, tuple(outcome.prediction for outcome in found)
        )
        loss = float(np.mean([outcome.loss for outcome in found]))
        return {"validation_loss": loss} | {
            f"validation_{name}": value for name, value in summarise(predictions).items()
        }

    def _header(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the header of a weights file; it is the same for a training that was interrupted and resumed."""
        about = {key: self.about[key] for key in ("model", "model_options", "trained_on") if key in self.about}
        moment = {key: row[key] for key in ("epoch", "stage", "epoch_of_stage", "updates")}
        return about | moment | {"classes": list(self.plan.train.classes)}

    def _is_stopped(self) -> bool:
        """Whether any process has received a request to stop."""
        accelerator = self._accelerator
        if accelerator.num_processes == 1:
            return self.stop()
        asked = torch.tensor(float(self.stop()), device=accelerator.device)
        return bool(accelerator.reduce(asked, "sum") > 0)

    def _save(self, optimiser: torch.optim.Optimizer) -> None:
        if self._accelerator.is_main_process:
            moment = replace(self._state, model=self.model.state_dict(), optimiser=optimiser.state_dict())
            self.folder.save(moment)

    def _finish(self) -> None:
        if self._accelerator.is_main_process:
            self.folder.save_weights("final.safetensors", self.model.state_dict(), self._header(self._state.epochs[-1]))
            self.folder.finish()
        self._accelerator.wait_for_everyone()


def _accelerator(plan: Plan) -> Accelerator:
    if plan.precision not in ("float32", "bfloat16"):
        raise InputError(f"precision '{plan.precision}' not known; expected float32 or bfloat16")
    return Accelerator(mixed_precision="no", cpu=plan.device == "cpu")


def _seed(*numbers: int) -> int:
    """Derive a seed for PyTorch from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _digest(names: list[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
