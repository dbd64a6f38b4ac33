"""Image sets, and prefetching of preprocessed images."""

import difflib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TypeVar

import numpy as np

from erf.errors import ImageError, InputError
from erf.images.frame import Framing
from erf.images.image import KNOWN_COLUMNS, Failure, Image, Sample
from erf.profiling import stage

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, repr=False)
class ImageSet:
    """The images of a run and their common preprocessing."""

    images: tuple[Image, ...]
    framing: Framing
    """Preprocessing of each single input, also for a network that takes several."""
    part: tuple[int, int] = (1, 1)
    """(i, n), counted from 1: this set is part i of the n parts of a run."""
    thumbnails: bool = True
    """Whether results may contain thumbnails of the images."""

    @classmethod
    def of(cls, images: Sequence[Image], framing: Framing) -> "ImageSet":
        """Make a set of images and number them in the given order."""
        return cls(tuple(replace(image, number=number) for number, image in enumerate(images)), framing)

    @property
    def digest(self) -> str:
        """SHA-256 of everything known about the images before decoding."""
        digest = sha256()
        for image in self.images:
            for one in (image, *image.parts):
                about = (
                    one.id,
                    one.path,
                    one.laterality,
                    one.view,
                    one.patient_id,
                    one.pixel_spacing,
                    dict(one.columns),
                )
                digest.update(repr((image.number, about)).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def shard(self, index: int, count: int) -> "ImageSet":
        """Return one of several parts, to which the images are assigned in turn.

        Args:
            index: Number of the part, counted from 1.
            count: Number of parts.

        Returns:
            A set with every `count`-th image.

        Raises:
            InputError: `index` is out of range, or there are more parts than images.
        """
        if not 1 <= index <= count:
            raise InputError(f"shard {index}/{count}; expected a number from 1 to {count}")
        if count > len(self):
            raise InputError(f"{count} shards of {len(self)} images; expected at least one image for each")
        return replace(self, images=self.images[index - 1 :: count], part=(index, count))

    def only(self, *ids: str) -> "ImageSet":
        """Return the images of these ids; raises `InputError` for one that is not there.

        Example:
            >>> import erf
            >>> images = erf.load_images("phantom", n=4, size=(64, 48))
            >>> len(images.only(images.images[2].id))
            1
        """
        known = {image.id for image in self.images}
        for name in ids:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3) or sorted(known)[:3]
                raise InputError(f"no image '{name}'; expected one such as {', '.join(near)}")
        return replace(self, images=tuple(image for image in self.images if image.id in ids))

    @property
    def inputs(self) -> int:
        """Number of images in a case."""
        return max(1, len(self.images[0].parts))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of a preprocessed image or case."""
        channels, height, width = self.framing.shape
        return self.inputs * channels, height, width

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raise `InputError` if a column is missing from all images or has values that cannot name a subset."""
        known = dict.fromkeys([*KNOWN_COLUMNS, *(name for image in self.images for name in image.columns)])
        for column in columns:
            if column not in known:
                near = difflib.get_close_matches(column, known, n=3) or known
                raise InputError(f"no image has a column '{column}'; expected one such as {', '.join(near)}")
            for value in {image.value(column) for image in self.images}:
                if not value.isprintable():
                    raise InputError(f"column '{column}' has the value {value!r}; expected printable text for a subset")

    def __repr__(self) -> str:
        sides = Counter(image.laterality or "unknown side" for image in self.images)
        counts = ", ".join(f"{count} {side}" for side, count in sorted(sides.items()))
        shape = "x".join(map(str, self.shape))
        preprocessing = f"fit {self.framing.fit}, normalisation {self.framing.normalisation}"
        return f"ImageSet of {len(self)} images ({counts}), {shape}, {preprocessing}"

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, image: Image) -> Sample | Failure:
        """Decode, frame and normalise one image, or all images of a case.

        Args:
            image: A member of this set.

        Returns:
            The preprocessed image, or the reason why there is none; expected errors are not raised.
        """
        if image.parts:
            return _joined(image, [self.sample(part) for part in image.parts])
        try:
            decoded = image.decode()
            with stage("frame"):
                return self.framing.apply(image, decoded)
        except ImageError as error:
            return Failure(image, str(error))
        except MemoryError:
            return Failure(image, f"{image.path}: too large for the available memory")


def ahead(work: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    """Apply a function to items in background threads and yield the results in order.

    Args:
        work: Function of one item.
        items: The items, consumed as needed.
        workers: Number of threads, and of results prepared in advance; 0 computes each when it is requested.

    Yields:
        The result for each item.
    """
    if workers < 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="erf-decode")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _joined(case: Image, samples: Sequence[Sample | Failure]) -> Sample | Failure:
    """Concatenate the channels of the samples of a case; a failure of one is a failure of the case."""
    parts = [sample for sample in samples if isinstance(sample, Sample)]
    if len(parts) < len(samples):
        return Failure(case, "; ".join(sample.reason for sample in samples if isinstance(sample, Failure)))
    pixels = np.concatenate([part.pixels for part in parts])
    notes = tuple(note for part in parts for note in part.notes)
    return Sample(case, pixels, "", notes, parts[0].placement, parts[0].file_shape, tuple(parts))
