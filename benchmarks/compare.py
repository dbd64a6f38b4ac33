"""Time and memory of the engine against the usual loop, captum and openerf, side by side in one run.

Each way is a process of its own with the same weights and images; they take turns, so that none gains from a quiet
moment of the machine. Times are medians per image, without decoding; peaks are above what the process held before its
first image. Against openerf, both run from the same PNG files, decoding included. Needs the extra dev, and for openerf
`pip install --no-deps openerf`.

    python -m benchmarks.compare
    python -m benchmarks.compare --networks gmic hct --rounds 7
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image as Pillow
from torch import nn

from benchmarks.loops import LOOPS
from erf.engine import compute
from erf.images import load_images
from erf.models import create_model, model_card


@dataclass(frozen=True)
class Subject:
    """A network at a size; `batch` images are visited in one call."""

    model: str
    size: tuple[int, int]
    batch: int = 1


SUBJECTS = {
    subject.model: subject
    for subject in (
        Subject("gmic", (3328, 2560)),
        Subject("def-gmic", (3328, 2560)),
        Subject("hct", (3328, 2560)),
        Subject("unet-srb-f", (512, 512)),
        Subject("resnet50", (1024, 1024)),
        Subject("swin-tiny", (224, 224), 5),
    )
}

FILES = ("resnet50", "swin_tiny_patch4_window7_224", "convnext_tiny")
"""Networks of timm that openerf and the engine visit from files of 224x224 pixels."""
_LAYERS = {"resnet50": "layer4", "convnext_tiny": "stages.3"}
_FILES = 96


def visit_arrays(side: str, subject: Subject) -> Callable[[], int]:
    """A call that visits a batch of images, which are the same for all sides, and says how many they are."""
    card = model_card(subject.model)
    network = create_model(subject.model, size=subject.size)
    visit = LOOPS[side](network, card.default_layer, torch.device("cpu"))
    rng = np.random.default_rng(0)
    shape = (card.in_channels, *subject.size)
    images = [rng.standard_normal(shape, dtype=np.float32) for _ in range(subject.batch)]

    def call() -> int:
        visit(images)
        return len(images)

    return call


def visit_files(side: str, name: str, folder: str) -> Callable[[], int]:
    """A call that makes a whole ERF of a folder of files."""
    import timm

    torch.manual_seed(0)
    if side == "ours" and name.startswith("swin"):
        network: nn.Module = create_model("swin-tiny", size=(224, 224))
        layer = model_card("swin-tiny").default_layer
    else:
        network = timm.create_model(name, pretrained=False).eval()
        layer = _LAYERS.get(name, "forward_features")

    def theirs() -> int:
        from openerf.erf import compute_erf

        compute_erf(network, folder, target_layer=layer, device="cpu", show_progress=False)
        return _FILES

    def engine() -> int:
        images = load_images(folder, n=_FILES, size=(224, 224), channels=3, normalisation="unit")
        compute(network, images, layer=layer, device="cpu")
        return _FILES

    return engine if side == "ours" else theirs


def work(pipe: Connection, make: Callable[..., Callable[[], int]], arguments: tuple[object, ...]) -> None:
    """One side's process: visits when told to, and answers with seconds per image and peak gigabytes."""
    call = make(*arguments)
    before = psutil.Process().memory_info().rss
    while pipe.recv():
        start = time.perf_counter()
        count = call()
        seconds = (time.perf_counter() - start) / count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pipe.send((seconds, (peak - before) / 1e9))


def take_turns(sides: dict[str, tuple[object, ...]], make: object, rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds per image and peak of each side; the first round is not counted."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for side, arguments in sides.items():
        pipes[side], far = context.Pipe()
        context.Process(target=work, args=(far, make, arguments), daemon=True).start()
    answers: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(rounds + 1):
        for side, pipe in pipes.items():
            pipe.send(True)
            answers[side].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    return {
        side: (float(np.median([seconds for seconds, _ in found[1:]])), found[-1][1]) for side, found in answers.items()
    }


def show(title: str, found: dict[str, tuple[float, float]], reference: str) -> None:
    for side, (seconds, peak) in found.items():
        words = f"{found[reference][0] / seconds:6.2f} times {reference}" if side != reference else ""
        print(f"{title:32s} {side:8s} {seconds:7.3f} s per image   peak {peak:5.2f} GB   {words}", flush=True)


def write_files(folder: str) -> None:
    rng = np.random.default_rng(0)
    for index in range(_FILES):
        pixels = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).resize((224, 224), Pillow.Resampling.BICUBIC).save(Path(folder) / f"{index:03d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(SUBJECTS), choices=list(SUBJECTS))
    parser.add_argument("--files", nargs="*", default=list(FILES), choices=list(FILES))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, median of {options.rounds} rounds", flush=True
    )
    for name in options.networks:
        subject = SUBJECTS[name]
        found = take_turns({side: (side, subject) for side in LOOPS}, visit_arrays, options.rounds)
        show(f"{name} {subject.size[0]}x{subject.size[1]}", found, "plain")
    if options.files and find_spec("openerf") is None:
        print("openerf is not installed: `pip install --no-deps openerf` adds it to the comparison")
        return
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder)
        for name in options.files:
            sides = {side: (side, name, folder) for side in ("openerf", "ours")}
            show(f"{name.split('_patch')[0]} 224, files", take_turns(sides, visit_files, options.rounds), "openerf")


if __name__ == "__main__":
    main()
