"""Training recipes: stages, tasks and learning rates, with presets from the papers."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from erf.errors import InputError

OPTIMISERS = ("adam", "asam")
SCHEDULES = ("cosine", "steps", "constant")
TASKS = ("classes", "labels", "masks")


@dataclass(frozen=True)
class Stage:
    """One stage of a training, with its own schedule."""

    name: str
    epochs: int
    batch_size: int
    """Patches or images per update."""
    lr: float
    """Learning rate at the start of the stage."""
    patch: int = 0
    """Side of the training patches, in pixels of the frame; 0 for whole frames."""
    patches: int = 1
    """Patches per image and epoch."""


@dataclass(frozen=True)
class Recipe:
    """Complete description of a training. `PRESETS` has the papers' recipes."""

    name: str
    stages: tuple[Stage, ...]
    task: str = "classes"
    """Task: `classes` (one of several), `labels` (any of several), or `masks` (one class per pixel)."""
    optimiser: str = "adam"
    rho: float = 0.05
    """Radius of ASAM's perturbation, relative to the size of the weights."""
    weight_decay: float = 0.0
    schedule: str = "cosine"
    """Schedule of the learning rate within a stage: `cosine` to 0, `steps` that divide by 10, or `constant`."""
    decay_epochs: int = 20
    """Epochs between two divisions by 10 of the schedule `steps`."""
    flip: bool = True
    """Whether images are flipped horizontally and vertically, at random."""
    noise: float = 0.0
    """Standard deviation of added Gaussian noise, in units of the normalised image."""
    balance: bool = False
    """Whether positive and negative labels of multi-label data get equal total weight."""
    patience: int = 0
    """Epochs without a better validation loss after which a stage ends; 0 for never."""
    source: str = ""
    """Source of the recipe, and the settings that it leaves open."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("optimiser", self.optimiser, OPTIMISERS),
            ("schedule", self.schedule, SCHEDULES),
            ("task", self.task, TASKS),
        ):
            if value not in known:
                raise InputError(f"{name} '{value}' not known; expected one of {', '.join(known)}")
        for stage in self.stages:
            numbers = (stage.epochs, stage.batch_size, stage.patches)
            if min(numbers) < 1 or stage.patch < 0 or not stage.lr > 0:
                raise InputError(f"stage '{stage.name}': epochs, batch size, patches and learning rate must be above 0")

    def changed(self, changes: Mapping[str, Any]) -> "Recipe":
        """Return the recipe with other values.

        Args:
            changes: values by name: `noise`; `epochs` for all stages; `STAGE.epochs` for one stage.

        Raises:
            InputError: an unknown name, or a value of another type.
        """
        recipe = self
        for name, value in changes.items():
            recipe = recipe._with(name, value)
        return recipe

    def _with(self, name: str, value: Any) -> "Recipe":
        stage, _, field = name.rpartition(".")
        own = {item.name for item in fields(Recipe)} - {"name", "stages", "source"}
        of_stage = {item.name for item in fields(Stage)} - {"name"}
        names = [one.name for one in self.stages]
        if not stage and field in own:
            return replace(self, **{field: _as(name, value, getattr(self, field))})
        if field not in of_stage or (stage and stage not in names):
            known = sorted(own | of_stage | {f"{one}.{each}" for one in names for each in of_stage})
            raise InputError(f"the recipe has no '{name}'; expected one of {', '.join(known)}")
        stages = tuple(
            replace(one, **{field: _as(name, value, getattr(one, field))}) if stage in ("", one.name) else one
            for one in self.stages
        )
        return replace(self, stages=stages)

    def without(self, stages: tuple[str, ...]) -> "Recipe":
        """Return the recipe with only the named stages, in their original order."""
        names = tuple(stage.name for stage in self.stages)
        unknown = [name for name in stages if name not in names]
        if unknown:
            raise InputError(f"the recipe '{self.name}' has no stage '{unknown[0]}'; expected of {', '.join(names)}")
        return replace(self, stages=tuple(stage for stage in self.stages if stage.name in stages))

    def as_dict(self) -> dict[str, Any]:
        """Return all values as a dictionary, for storage."""
        return asdict(self)


def _as(name: str, value: Any, model: Any) -> Any:
    """Check that a value has the type of the field's current value, and convert int to float if needed."""
    if isinstance(model, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(model):
        raise InputError(f"{name}={value!r}; expected {type(model).__name__}, such as {model!r}")
    return value


def learning_rate(recipe: Recipe, stage: Stage, step: int, steps: int) -> float:
    """Return the learning rate at step `step` of the `steps` of a stage, counted from 0."""
    if recipe.schedule == "cosine":
        return stage.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
    if recipe.schedule == "steps":
        epoch = step * stage.epochs // steps
        return float(stage.lr * 0.1 ** (epoch // recipe.decay_epochs))
    return stage.lr


_HCT = "Taha et al. 2022 (HCT, arXiv 2208.06066), section 3"
_SRB = "Li et al. 2020 (SRB, doi 10.1109/ICME46284.2020.9102949)"

PRESETS = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="hct-paper",
            stages=(
                Stage("patch", epochs=80, batch_size=160, lr=6e-4, patch=512),
                Stage("image", epochs=80, batch_size=32, lr=2e-5),
            ),
            optimiser="asam",
            noise=0.05,
            source=f"{_HCT}; the strength of the noise is open, as is the decay of weights (none here)",
        ),
        Recipe(
            name="phantom-small",
            stages=(
                Stage("patch", epochs=5, batch_size=32, lr=6e-4, patch=512, patches=8),
                Stage("image", epochs=4, batch_size=4, lr=1e-4),
            ),
            noise=0.05,
            source=f"the two stages of {_HCT}, for a few hundred images on a laptop: less of everything, higher rates",
        ),
        Recipe(
            name="srb-segmentation",
            stages=(Stage("image", epochs=150, batch_size=8, lr=1e-3),),
            task="masks",
            weight_decay=1e-4,
            schedule="constant",
            flip=False,
            source=f"{_SRB}, section 3.1; the batch size is open",
        ),
        Recipe(
            name="srb-multilabel",
            stages=(Stage("image", epochs=60, batch_size=32, lr=1e-3),),
            task="labels",
            schedule="steps",
            balance=True,
            patience=10,
            source=f"{_SRB}, section 3.3; batch size, number of epochs and patience are open; no crops, no colours",
        ),
        Recipe(
            name="magnification",
            stages=(Stage("image", epochs=300, batch_size=128, lr=1e-3),),
            source="Jeevan et al. 2023 (arXiv 2302.11488), section 2.3; rate open, Adam for timm's script",
        ),
    )
}
