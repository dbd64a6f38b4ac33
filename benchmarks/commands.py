"""The whole command `erf compute`, as users run it: from the start of the process to the picture."""

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
    """`erf compute` for a network, with the code of a source tree."""

    model: str
    size: tuple[int, int]
    tree: Path = OWN_TREE
    device: str = "cpu"

    def run(self, images: str, n: int) -> Cost:
        """What the command costs for n images."""
        height, width = self.size
        words = ["--model", self.model, "--size", f"{height}x{width}", "--images", images, "-n", str(n)]
        command = [sys.executable, "-m", "erf", "compute", *words, "--device", self.device, "--output", "erf.h5"]
        with tempfile.TemporaryDirectory() as folder:  # Python would prefer a package in the working folder
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
        """Cost of one image more, from a short and a long run; `images` has where to find so many of them."""
        (few, from_few), (many, from_many) = sorted(images.items())
        return per_image(self.run(from_few, few), self.run(from_many, many), many - few)


def per_image(short: Cost, long: Cost, images: int) -> Cost:
    """Cost of one of the images by which two runs differ, at the peak of the longer one."""
    return Cost((long.wall - short.wall) / images, (long.cpu - short.cpu) / images, long.peak)


def command_sides(
    model: str,
    size: tuple[int, int],
    folder: Path,
    sources: Sequence[str],
    counts: Sequence[int],
    trees: Mapping[str, Path],
) -> dict[str, Side]:
    """Cost of an image from each source, with the code of each tree."""
    return {
        f"{source}{label}": partial(
            Command(model, size, tree).per_image, {n: location(folder, source, n) for n in counts}
        )
        for source in sources
        for label, tree in trees.items()
    }


def job_sides(model: str, size: tuple[int, int], n: int, trees: Mapping[str, Path]) -> dict[str, Side]:
    """Cost of a whole run over n phantoms, with the code of each tree."""
    return {f"job{label}": partial(Command(model, size, tree).run, PHANTOM, n) for label, tree in trees.items()}
