"""Measure the whole command `erf compute` as users run it, from the start of the process to the picture."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.sources import location
from benchmarks.turns import Cost, Side
from erf.images import PHANTOM

OWN_TREE = Path(__file__).parents[1]
_CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True)
class Command:
    """`erf compute` of a network, with the code of a source tree."""

    model: str
    size: tuple[int, int]
    tree: Path = OWN_TREE
    device: str = "cpu"

    def run(self, images: str, n: int) -> Cost:
        """Run the command on n images and return its cost.

        Args:
            images: value of the option `--images`.
            n: number of images.

        Raises:
            RuntimeError: the command failed.
        """
        height, width = self.size
        words = ["--model", self.model, "--size", f"{height}x{width}", "--images", images, "-n", str(n)]
        command = [sys.executable, "-m", "erf", "compute", *words, "--device", self.device, "--output", "erf.h5"]
        with tempfile.TemporaryDirectory() as folder:  # Python would import a package in the working folder first
            done = subprocess.run(
                [sys.executable, str(_CHILD), *command],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(self.tree)},
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} with the code in {self.tree} failed:\n{done.stderr}")
        return Cost(**json.loads(done.stdout))

    def per_image(self, images: Mapping[int, str]) -> Cost:
        """Measure the cost of one more image, from a short and a long run; `images` maps their numbers to sources."""
        (few, from_few), (many, from_many) = sorted(images.items())
        return per_image(self.run(from_few, few), self.run(from_many, many), many - few)


def per_image(short: Cost, long: Cost, images: int) -> Cost:
    """Compute the cost of one of the `images` by which two runs differ, with the peak memory of the longer run."""
    return Cost((long.wall - short.wall) / images, (long.cpu - short.cpu) / images, long.peak)


def command_sides(
    model: str,
    size: tuple[int, int],
    folder: Path,
    sources: Sequence[str],
    counts: Sequence[int],
    trees: Mapping[str, Path],
) -> dict[str, Side]:
    """Return, for each image source and source tree, a function that measures the cost of one image.

    Args:
        model: name of the network.
        size: (height, width) of the input in pixels.
        folder: folder with the files of `write_sources`.
        sources: image sources.
        counts: numbers of images of the short and the long run.
        trees: source trees by the suffix of the side's name.
    """
    return {
        f"{source}{label}": partial(
            Command(model, size, tree).per_image, {n: location(folder, source, n) for n in counts}
        )
        for source in sources
        for label, tree in trees.items()
    }


def job_sides(model: str, size: tuple[int, int], n: int, trees: Mapping[str, Path]) -> dict[str, Side]:
    """Return, for each source tree, a function that measures the cost of a whole run over n phantoms."""
    return {f"job{label}": partial(Command(model, size, tree).run, PHANTOM, n) for label, tree in trees.items()}
