"""State of a training and its files, written by the first process."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from erf.errors import CheckpointError
from erf.training.folder import Folder, State
from erf.training.plan import Plan
from erf.training.recipe import Stage

AfterEpoch = Callable[[nn.Module, Mapping[str, Any]], None]


class Record:
    """State of a training, kept in its folder.

    Args:
        folder: output folder of the training.
        plan: settings and data.
        about: entries for run.json and the headers of weights files.
        accelerator: tells which process is the first.
    """

    def __init__(self, folder: Folder, plan: Plan, about: Mapping[str, Any], accelerator: Accelerator) -> None:
        self._folder, self._plan, self._about, self._accelerator = folder, plan, about, accelerator
        self.state = State(plan.identity(about, accelerator.num_processes))

    def load_finished(self) -> bool:
        """Load the epochs of a finished training that is asked to resume; return whether there is one.

        Raises:
            CheckpointError: it is damaged, or has other settings.
        """
        if not (self._folder.resume and self._folder.is_finished):
            return False
        about, self.state.epochs = self._folder.finished()
        self._check_same(about)
        return True

    def load_snapshot(self, model: nn.Module) -> bool:
        """Load the snapshot of an interrupted training that is asked to resume; return whether there is one.

        Raises:
            CheckpointError: it is damaged, or has other settings.
        """
        saved = self._folder.load() if self._folder.resume else None
        if saved is None:
            return False
        self._check_same(saved.identity)
        model.load_state_dict(dict(saved.model))
        self.state = saved
        return True

    def _check_same(self, saved: Mapping[str, Any]) -> None:
        changed = [name for name, value in self.state.identity.items() if saved.get(name) != value]
        if changed:
            raise CheckpointError(f"{self._folder.path} holds a training with other {', '.join(changed)}")

    def begin(self) -> None:
        """Write the settings to run.json."""
        if self._accelerator.is_main_process:
            self._folder.describe({**self._about, **self.state.identity})

    def add_step(self, stage: Stage, lr: float, loss: float) -> None:
        """Count an update, with its learning rate and loss."""
        state = self.state
        state.step, state.updates = state.step + 1, state.updates + 1
        state.steps.append(
            {"step": state.updates, "stage": stage.name, "epoch": state.epoch + 1, "lr": lr, "loss": loss}
        )

    def add_epoch(self, row: dict[str, Any], model: nn.Module, after_epoch: AfterEpoch | None) -> None:
        """Add a row of epochs.json, write the weights, and call `after_epoch` with the network in eval mode."""
        self.state.epochs.append(row)
        if self._accelerator.is_main_process:
            name = f"checkpoints/{row['epoch']:03d}-{row['stage']}.safetensors"
            self._folder.save_weights(name, model.state_dict(), self._header(row))
            if after_epoch is not None:
                was_training = model.training
                after_epoch(model.eval(), row)
                model.train(was_training)
            self._folder.write_log(self.state)
        self._accelerator.wait_for_everyone()

    def save(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Write the snapshot from which the training can be resumed."""
        if self._accelerator.is_main_process:
            self._folder.save(replace(self.state, model=model.state_dict(), optimiser=optimiser.state_dict()))

    def finish(self, model: nn.Module) -> None:
        """Write the final weights and mark the training as finished."""
        if self._accelerator.is_main_process:
            header = self._header(self.state.epochs[-1])
            self._folder.save_weights("final.safetensors", model.state_dict(), header)
            self._folder.finish()
        self._accelerator.wait_for_everyone()

    def _header(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the header of a weights file; it is the same for a training that was interrupted and resumed."""
        about = {key: self._about[key] for key in ("model", "model_options", "trained_on") if key in self._about}
        moment = {key: row[key] for key in ("epoch", "stage", "epoch_of_stage", "updates")}
        return about | moment | {"classes": list(self._plan.train.classes)}
