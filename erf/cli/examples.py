"""Choice of labelled images and their splits, shared by `erf train` and `erf evaluate`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from erf.cli.console import parse_size
from erf.errors import InputError

if TYPE_CHECKING:
    from erf.datasets import ExampleSet

PHANTOMS = 200
"""Default number of phantoms."""

SMALLEST = 16
"""Smallest side of a phantom, in pixels, in which a lesion fits."""

MASK_CLASSES = ("background", "object")


@dataclass(frozen=True)
class Data:
    """Choice of labelled images by options; stored in run.json, so that a training can be evaluated on its own data."""

    source: str
    n: int = 0
    seed: int = 0
    split: str = "80:10:10"
    classes: tuple[str, ...] = ()
    where: str = ""
    """COLUMN=VALUE that selects the training images; the split is made over all images."""
    allow_outside: bool = False
    task: str = "classes"

    def examples(self, frame: tuple[int, int]) -> "ExampleSet":
        """Load all images with their splits; phantoms have the (height, width) of `frame`.

        Raises:
            InputError: the source cannot be used, or phantoms do not fit the task or the frame.
        """
        from erf.datasets import load_examples, split_by_patient
        from erf.images import PHANTOM

        if self.source == PHANTOM and self.task != "classes":
            raise InputError("phantoms have one label and no masks; give --images, or a preset for classes")
        if self.source == PHANTOM and min(frame) < SMALLEST:
            raise InputError(f"phantoms of {frame[0]}x{frame[1]}; expected at least {SMALLEST}x{SMALLEST}")
        classes = self.classes or (MASK_CLASSES if self.task == "masks" else ())
        found = load_examples(
            self.source,
            n=self.n or (PHANTOMS if self.source == PHANTOM else 0),
            seed=self.seed,
            size=frame,
            classes=classes,
            allow_outside=self.allow_outside,
        )
        return replace(found, examples=split_by_patient(found.examples, parse_shares(self.split), self.seed))

    def chosen(self, examples: "ExampleSet") -> "ExampleSet":
        """Return the examples selected by `where`."""
        if not self.where:
            return examples
        column, equals, value = (part.strip() for part in self.where.partition("="))
        if not equals:
            raise InputError(f"--where '{self.where}' not understood; expected COLUMN=VALUE, such as magnification=40X")
        return examples.where(column, value)


def parse_shares(text: str) -> tuple[float, float, float]:
    """Parse the shares of training, validation and test from a text such as 80:10:10; `InputError` if it is wrong."""
    try:
        train, val, test = (float(part) for part in text.split(":"))
    except ValueError as error:
        raise InputError(f"--split '{text}' not understood; expected three shares, such as 80:10:10") from error
    if not math.isfinite(train + val + test) or train <= 0 or min(val, test) < 0:
        raise InputError(f"--split '{text}': expected a share for training and none below 0")
    return train, val, test


def frame_of(model: str, size: str) -> tuple[int, int]:
    """Return the (height, width) of a network's input: from the option, from its card, or the fallback."""
    from erf.models import model_card
    from erf.models.sources import FALLBACK_SIZE

    if size:
        return parse_size(size)
    own = model_card(model).input_size
    return own if all(own) else FALLBACK_SIZE


def with_classes(model: str, model_arg: Sequence[str] | None, classes: Sequence[str]) -> list[str]:
    """Return a network's options, with the number of classes added if the network takes it and it is not given."""
    from erf.models.sources import is_code

    given = list(model_arg or [])
    source = model.split(":", maxsplit=1)[0]
    name = {"timm": "num_classes", "torchvision": "num_classes"}.get(source, "classes")
    if is_code(model) or any(text.split("=")[0].strip() == name for text in given):
        return given
    return [*given, f"{name}={len(classes)}"]
