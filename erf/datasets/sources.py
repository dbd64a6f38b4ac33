"""Load examples from the phantom generator, a manifest CSV, or the folder of a public data set."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from erf.box import Box
from erf.datasets.example import LABEL_MARK, NO_LABEL, Example, ExampleSet, Finding, find_classes
from erf.datasets.layouts import recognise
from erf.errors import InputError
from erf.images import PHANTOM, Image, list_images, list_phantoms
from erf.images.image import leaves_folder
from erf.images.phantom import find_lesions
from erf.images.stream import ahead

PHANTOM_CLASSES = ("negative", "positive")

_SPLIT_WORDS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def load_examples(
    source: str | Path = PHANTOM,
    *,
    n: int = 0,
    seed: int = 0,
    size: tuple[int, int] = (3328, 2560),
    classes: Sequence[str] = (),
    allow_outside: bool = False,
) -> ExampleSet:
    """Load examples from the phantom generator, a manifest CSV or the folder of a public data set.

    Examples are not split; they have a split only if the data specify one.

    Args:
        source: `phantom`, a manifest CSV, or a folder.
        n: number of phantoms (0 for 100), half of them with a finding; or number of images, 0 for all.
        seed: seed of the phantoms, or of the random choice of images.
        size: (height, width) of phantoms, in pixels.
        classes: names in the order of a network's outputs; empty for all occurring labels, sorted.
        allow_outside: whether paths of a manifest may lead out of its folder.

    Raises:
        InputError: the source cannot be used.
    """
    if source == PHANTOM:
        examples = _phantoms(n or 100, seed, size)
        return ExampleSet(examples, find_classes(examples, classes or PHANTOM_CLASSES))
    examples = tuple(_from_image(image, Path(source), allow_outside) for image in _images(Path(source), allow_outside))
    if n and n < len(examples):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(examples))[:n])
        examples = tuple(examples[index] for index in chosen)
    return ExampleSet(examples, find_classes(examples, classes))


def _phantoms(n: int, seed: int, size: tuple[int, int]) -> tuple[Example, ...]:
    healthy, ill = list_phantoms(n, seed, size), list_phantoms(n, seed, size, lesions=1)
    is_ill = np.random.default_rng((seed, 0x1E)).permuted(np.arange(n) % 2 == 0)
    numbers = [number for number in range(n) if is_ill[number]]
    found = ahead(lambda number: find_lesions(number, seed, size, 1), numbers, os.cpu_count() or 1)
    lesions = dict(zip(numbers, found, strict=True))
    return tuple(
        Example(ill[number], ("positive",), tuple(Finding(one.box, one.label) for one in lesions[number]))
        if number in lesions
        else Example(healthy[number], ("negative",))
        for number in range(n)
    )


def _images(source: Path, allow_outside: bool) -> list[Image]:
    rows = recognise(source) if source.is_dir() else None
    if rows is not None:
        return rows
    if source.is_dir():
        raise InputError(
            f"{source}: found a folder without labels; expected a manifest CSV with columns path and label, "
            "or the folder of BreakHis, ISIC 2017/2018 or ChestX-ray14 as it is published"
        )
    return list_images(source, allow_outside)


def _from_image(image: Image, source: Path, allow_outside: bool) -> Example:
    """Build an example from the manifest's columns label, boxes, finding, mask and split."""
    text = image.value("label")
    labels = tuple(part.strip() for part in text.split(LABEL_MARK) if part.strip()) if text != NO_LABEL else ()
    split = image.value("split").lower()
    split = _SPLIT_WORDS.get(split, split)
    mask = image.value("mask")
    if mask and not allow_outside and source.is_file() and leaves_folder(mask):
        raise InputError(
            f"{source}: mask '{mask}' lies outside the manifest's folder", remedy="move it, or ask for `allow_outside`"
        )
    folder = source.parent if source.is_file() else source
    return Example(image, labels, _findings(image), folder / mask if mask else None, split)


def _findings(image: Image) -> tuple[Finding, ...]:
    """Parse the findings of an image.

    Column `boxes` has 'top left bottom right' in pixels, several separated by ';', column `finding` their kinds.
    """
    texts = [text for text in image.value("boxes").split(";") if text.strip()]
    kinds = [kind.strip() for kind in image.value("finding").split(";")]
    kinds = kinds if len(kinds) == len(texts) else [kinds[0]] * len(texts)
    found = []
    for text, kind in zip(texts, kinds, strict=True):
        try:
            top, left, bottom, right = (round(float(number)) for number in text.split())
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{image.path}: box '{text.strip()}'; expected 'top left bottom right' in pixels"
            ) from error
        if not (bottom > top and right > left):
            raise InputError(f"{image.path}: box '{text.strip()}' is empty; expected 'top left bottom right' in pixels")
        found.append(Finding(Box(top, left, bottom, right), kind))
    return tuple(found)
