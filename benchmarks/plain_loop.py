"""Time and memory of the engine against the loop that is usually copied, side by side in one run.

The usual loop: batch 1, parameters that require gradients, full forward pass, unit gradient, backward pass, running
mean in NumPy. Each side is a process of its own with the same model, weights and images; they take turns image by
image, so that neither gains from a quiet moment of the machine. Times are medians without the decoding.

    python -m benchmarks.plain_loop --model gmic hct --size 3328x2560 --rounds 7
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from erf.cli.console import parse_size
from erf.devices import reuse_freed_memory
from erf.gradients import frozen, unit_gradient
from erf.images import Sample, load_images
from erf.layers import center_unit
from erf.models import create_model, model_card
from erf.moments import RunningMoments
from erf.tracing import trace

Visit = Callable[[NDArray[np.float32]], None]


def plain_loop(model: nn.Module, layer: str, size: tuple[int, int]) -> Visit:
    """The loop that is usually copied."""
    kept: list[torch.Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[2]))
    mean, count = np.zeros(size), 0

    def visit(pixels: NDArray[np.float32]) -> None:
        nonlocal mean, count
        image = torch.from_numpy(pixels)[None].requires_grad_()
        kept.clear()
        model.zero_grad()
        model(image)
        unit = torch.zeros_like(kept[0])
        y, x = center_unit((unit.shape[2], unit.shape[3]))
        unit[:, :, y, x] = 1
        kept[0].backward(unit)
        assert image.grad is not None
        count += 1
        mean += (image.grad[0].abs().sum(0).numpy() - mean) / count

    return visit


def engine(model: nn.Module, layer: str, size: tuple[int, int]) -> Visit:
    """What `erf compute` does with a decoded image; the variance and the image's footprint come with it."""
    reuse_freed_memory()
    running = RunningMoments(("abs",), size, torch.device("cpu"))
    unit = center_unit(trace(model, [layer], (1, *size))[layer].feature_shape[1:])

    def visit(pixels: NDArray[np.float32]) -> None:
        with frozen(model, torch.channels_last):
            running.add(unit_gradient(model, torch.from_numpy(pixels)[None], layer, unit)[0])

    return visit


SIDES = {"plain": plain_loop, "engine": engine}


def work(pipe: Connection, name: str, side: str, size: tuple[int, int]) -> None:
    """One side's process: visits image after image when told to, and answers with seconds and peak gigabytes."""
    visit = SIDES[side](create_model(name), model_card(name).default_layer, size)
    images = load_images(n=1000, size=size)
    for image in images.images:
        sample = images.sample(image)
        assert isinstance(sample, Sample)
        if not pipe.recv():
            return
        start = time.perf_counter()
        visit(sample.pixels)
        pipe.send((time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9))


def compare(name: str, size: tuple[int, int], rounds: int) -> None:
    """Let both sides take turns; print medians, peaks and their ratio."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for side in SIDES:
        pipes[side], far = context.Pipe()
        context.Process(target=work, args=(far, name, side, size), daemon=True).start()
    answers: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for _ in range(rounds + 1):
        for side, pipe in pipes.items():
            pipe.send(True)
            answers[side].append(pipe.recv())
            time.sleep(0.5)  # until the other process has decoded its next image
    for pipe in pipes.values():
        pipe.send(False)
    seconds = {side: float(np.median([answer[0] for answer in answers[side][1:]])) for side in SIDES}
    for side in SIDES:
        print(f"{name:9s} {side:7s} {seconds[side]:6.2f} s per image   peak {answers[side][-1][1]:.2f} GB")
    print(f"{name:9s} ratio   {seconds['plain'] / seconds['engine']:6.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["gmic", "hct"])
    parser.add_argument("--size", default="3328x2560")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    threads, version = torch.get_num_threads(), torch.__version__
    print(f"{options.size}, {threads} threads, torch {version}, median of {options.rounds} rounds", flush=True)
    for name in options.model:
        compare(name, parse_size(options.size), options.rounds)


if __name__ == "__main__":
    main()
