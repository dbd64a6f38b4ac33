"""Settings and data of a training, and the identity by which it is resumed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erf.datasets import ExampleSet
from erf.images import Framing
from erf.training.recipe import Recipe

SAVE_EVERY = 120.0
"""Seconds between snapshots within an epoch."""

_TOLD = ("model", "model_options", "weights_sha256", "trained_on", "normalisation", "fit", "interpolation", "erf")
"""Facts of the caller that must be unchanged when the training is resumed."""


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

    def identity(self, about: Mapping[str, Any], processes: int) -> dict[str, Any]:
        """Return the settings that must be unchanged when the training is resumed.

        Args:
            about: facts that the caller adds to run.json.
            processes: number of processes.

        Returns:
            Values by name, as they are read back from JSON.
        """
        parts = {"images": self.train, "validation images": self.validation}
        found: dict[str, Any] = {
            name: _digest([f"{example.image.id}\t{example.labels}" for example in part]) if part else ""
            for name, part in parts.items()
        }
        found |= {name: about[name] for name in _TOLD if name in about}
        found |= {
            "recipe": {key: value for key, value in self.recipe.as_dict().items() if key != "source"},
            "classes": list(self.train.classes),
            "size": list(self.framing.size),
            "seed": self.seed,
            "precision": self.precision,
            "processes": processes,
            "micro_batch": self.micro_batch,
        }
        return dict(json.loads(json.dumps(found)))


def _digest(names: list[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
