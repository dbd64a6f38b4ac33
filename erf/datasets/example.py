"""Annotated images, alone and as a set."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from erf.box import Box
from erf.errors import InputError
from erf.images import Image

LABEL_MARK = "|"
"""Separator between the labels of an image."""

NO_LABEL = "no finding"
"""Label column of an image without any label, in multi-label data."""


@dataclass(frozen=True)
class Finding:
    """Finding outlined by an expert."""

    box: Box[int]
    """In pixels of the file."""
    kind: str = ""
    """Kind of finding, such as 'mass'."""

    @property
    def size(self) -> float:
        """Square root of the box's area, in pixels of the file (Taha et al. 2022, appendix)."""
        return math.sqrt(math.prod(self.box.shape))


@dataclass(frozen=True)
class Example:
    """An image with its annotations."""

    image: Image
    labels: tuple[str, ...] = ()
    """One label, or any number in multi-label data."""
    findings: tuple[Finding, ...] = ()
    mask: Path | None = None
    """An image of the same size that holds the class of every pixel."""
    split: str = ""
    """'train', 'val', 'test', or '' if the data do not specify it."""

    @property
    def patient(self) -> str:
        """Identifier of the patient; an image without one counts as its own patient."""
        return self.image.patient_id or self.image.id


@dataclass(frozen=True)
class ExampleSet:
    """Examples and the classes that their labels come from."""

    examples: tuple[Example, ...]
    classes: tuple[str, ...]
    """Class names in the order of a network's outputs; of two classes, the second is the positive one."""

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    def __len__(self) -> int:
        return len(self.examples)

    def of_split(self, split: str) -> "ExampleSet":
        """Return the examples of split 'train', 'val' or 'test'; `InputError` if there are none."""
        chosen = tuple(example for example in self.examples if example.split == split)
        if not chosen:
            there = ", ".join(sorted({example.split or "none" for example in self.examples}))
            raise InputError(f"no images of split '{split}'; found {there}")
        return replace(self, examples=chosen)

    def where(self, column: str, value: str) -> "ExampleSet":
        """Return the examples whose manifest column has this value; `InputError` if there are none."""
        chosen = tuple(example for example in self.examples if example.image.value(column) == value)
        if not chosen:
            there = sorted({example.image.value(column) for example in self.examples})
            raise InputError(f"no images with {column} '{value}'; found {', '.join(map(repr, there[:12]))}")
        return replace(self, examples=chosen)

    def index(self, label: str) -> int:
        """Return the number of a class."""
        return self.classes.index(label)


def find_classes(examples: Sequence[Example], wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the classes in order: `wanted` if given, otherwise all occurring labels, sorted.

    Raises:
        InputError: a label occurs that is not in `wanted`.
    """
    found = sorted({label for example in examples for label in example.labels})
    unknown = [label for label in found if wanted and label not in wanted]
    if unknown:
        raise InputError(f"found label '{unknown[0]}', expected one of {', '.join(wanted)}", remedy="see `classes`")
    return tuple(wanted) or tuple(found)
