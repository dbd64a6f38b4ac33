"""Choice of labelled images: source, split and task, as stored with a training."""

import math
from dataclasses import dataclass, replace

from erf.datasets.example import ExampleSet
from erf.datasets.sources import load_examples
from erf.datasets.split import split_by_patient
from erf.errors import InputError
from erf.images import PHANTOM

PHANTOMS = 200
"""Default number of phantoms."""

SMALLEST = 16
"""Smallest side of a phantom, in pixels, in which a lesion fits."""

MASK_CLASSES = ("background", "object")


@dataclass(frozen=True)
class ExampleChoice:
    """Choice of labelled images; stored in run.json, so that a training can be evaluated on its own images."""

    source: str
    n: int = 0
    """Number of images; 0 for all, or `PHANTOMS` phantoms."""
    seed: int = 0
    split: str = "80:10:10"
    """Shares of training, validation and test."""
    classes: tuple[str, ...] = ()
    where: str = ""
    """COLUMN=VALUE that selects the training images; the split is made over all images."""
    allow_outside: bool = False
    task: str = "classes"

    def examples(self, frame: tuple[int, int]) -> ExampleSet:
        """Load all images with their splits; phantoms have the (height, width) of `frame`.

        Raises:
            InputError: The source cannot be used, or phantoms do not fit the task or the frame.
        """
        if self.source == PHANTOM and self.task != "classes":
            raise InputError(
                "phantoms have one label and no masks", remedy="give another `source`, or a recipe for classes"
            )
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

    def chosen(self, examples: ExampleSet) -> ExampleSet:
        """Return the examples selected by `where`."""
        if not self.where:
            return examples
        column, equals, value = (part.strip() for part in self.where.partition("="))
        if not equals:
            raise InputError(f"condition '{self.where}'; expected COLUMN=VALUE, such as magnification=40X")
        return examples.where(column, value)


def parse_shares(text: str) -> tuple[float, float, float]:
    """Parse the shares of training, validation and test from a text such as 80:10:10; `InputError` if it is wrong."""
    try:
        train, val, test = (float(part) for part in text.split(":"))
    except ValueError as error:
        raise InputError(f"split '{text}' not understood; expected three shares, such as 80:10:10") from error
    if not math.isfinite(train + val + test) or train <= 0 or min(val, test) < 0:
        raise InputError(f"split '{text}'; expected a positive share for training, and none below 0")
    return train, val, test
