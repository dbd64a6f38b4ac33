"""One image and what a network should find in it; many of them as a set."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from erf.errors import InputError
from erf.images import Image

LABEL_MARK = "|"
"""Between the labels of an image that has several."""

NO_LABEL = "no finding"
"""Of multi-label data, an image without any label."""


@dataclass(frozen=True)
class Finding:
    """Something that an expert has outlined."""

    box: tuple[int, int, int, int]
    """Half-open (top, left, bottom, right), in pixels of the file."""
    kind: str = ""
    """Such as 'mass'."""

    @property
    def size(self) -> float:
        """Square root of the box's area, in pixels of the file (Taha et al. 2022, appendix)."""
        return math.sqrt((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


@dataclass(frozen=True)
class Example:
    """An image with labels."""

    image: Image
    labels: tuple[str, ...] = ()
    """One, or any number where the data are multi-label."""
    findings: tuple[Finding, ...] = ()
    mask: Path | None = None
    """An image of the same size that holds the class of every pixel."""
    split: str = ""
    """'train', 'val', 'test', or '' where the data do not say."""

    @property
    def patient(self) -> str:
        """Who is in the image; without a patient every image is taken for one of its own."""
        return self.image.patient_id or self.image.id


@dataclass(frozen=True)
class ExampleSet:
    """Examples and the classes that their labels come from."""

    examples: tuple[Example, ...]
    classes: tuple[str, ...]
    """In the order of a network's outputs; of two, the second is the positive one."""

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    def __len__(self) -> int:
        return len(self.examples)

    def of_split(self, split: str) -> "ExampleSet":
        """Those of 'train', 'val' or 'test'; `InputError` where there are none."""
        chosen = tuple(example for example in self.examples if example.split == split)
        if not chosen:
            there = ", ".join(sorted({example.split or "none" for example in self.examples}))
            raise InputError(f"no images of split '{split}'; found {there}")
        return replace(self, examples=chosen)

    def where(self, column: str, value: str) -> "ExampleSet":
        """Those whose manifest column has this value; `InputError` where there are none."""
        chosen = tuple(example for example in self.examples if example.image.value(column) == value)
        if not chosen:
            there = sorted({example.image.value(column) for example in self.examples})
            raise InputError(f"no images with {column} '{value}'; found {', '.join(map(repr, there[:12]))}")
        return replace(self, examples=chosen)

    def index(self, label: str) -> int:
        """The number of a class."""
        return self.classes.index(label)


def find_classes(examples: Sequence[Example], wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """Classes in order: those that are wanted, or all labels that occur, sorted.

    Raises `InputError` for a label that is not among those wanted.
    """
    found = sorted({label for example in examples for label in example.labels})
    unknown = [label for label in found if wanted and label not in wanted]
    if unknown:
        raise InputError(f"found label '{unknown[0]}', expected one of {', '.join(wanted)}; see --classes")
    return tuple(wanted) or tuple(found)
