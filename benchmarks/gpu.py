"""Benchmark of the engine on a GPU: time relative to a standard loop and to the bandwidth, memory, whole commands.

    python -m benchmarks.gpu --output gpu

*pass* is the forward and backward pass alone, for images on the device; *erf* also includes copies and sums. The floor
is the time that the device needs to write and read every map once in the forward pass and its gradient once in the
backward pass, at its measured copy bandwidth; kernels that fuse operators can be faster. All runs use float32 without
TF32.
"""

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.commands import Command
from benchmarks.loops import SUBJECTS, Subject
from benchmarks.sources import PHANTOMS, location, write_sources
from erf.cli.console import parse_size
from erf.engine.benchmark import Pixels, engine_loop, plain_loop
from erf.gradients.autograd import unit_gradients
from erf.gradients.crops import Crop, find_crop
from erf.gradients.units import center_unit
from erf.gradients.way import Way
from erf.models import create_model, model_card
from erf.network.devices import float32_convolutions, memory_layout, pick_device
from erf.theory.tracing import trace

SOURCES = ("npy", "png", PHANTOMS)


@dataclass(frozen=True)
class Row:
    """Time and memory of one method on one network."""

    network: str
    way: str
    seconds: float
    """Seconds per image."""
    floor: float
    """Seconds per image at the limit of the bandwidth."""
    peak: float
    """Peak memory on the device in GB; 0 if it cannot be measured."""

    @property
    def description(self) -> str:
        times = f"{self.seconds / self.floor:6.2f} times the floor"
        return (
            f"{self.network:24s} {self.way:6s} {1e3 * self.seconds:9.2f} ms per image {times} peak {self.peak:6.2f} GB"
        )


def timed(call: Callable[[], None], device: torch.device, rounds: int) -> float:
    """Measure the median time of a call in seconds, after two warm-up calls."""
    return median([_seconds(call, device) for _ in range(rounds + 2)][2:])


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def bandwidth(device: torch.device, rounds: int) -> float:
    """Measure the bandwidth of a copy on the device, in bytes read and written per second."""
    source = torch.zeros(2**28 if device.type == "cuda" else 2**22, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / timed(lambda: target.copy_(source), device, rounds)


def measure_ways(subject: Subject, device: torch.device, rounds: int, speed: float) -> list[Row]:
    """Measure the standard loop, the pass alone, and the engine.

    Args:
        subject: the network, with input size and batch.
        device: device of the measurement.
        rounds: measured calls of each method.
        speed: bandwidth of the device in bytes per second.
    """
    card = model_card(subject.model)
    network, layer = create_model(subject.model, size=subject.size).to(device), card.default_layer
    shape = (card.in_channels, *subject.size)
    rng = np.random.default_rng(0)
    images = [rng.standard_normal(shape, dtype=np.float32) for _ in range(subject.batch)]
    traces = trace(network, [layer], shape)
    crop = find_crop(network, traces, [(layer, center_unit(traces[layer].feature_shape[1:]))], shape)
    maps = trace(network, [layer], (card.in_channels, *crop.shape))[layer].activation_bytes
    usual, engine = plain_loop(copy.deepcopy(network), layer, device), engine_loop(network, layer, device)
    ways = {
        "usual": lambda: usual(images),
        "pass": one_pass(network, images, crop, device),
        "erf": lambda: engine(images),
    }
    rows = []
    for name, call in ways.items():
        seconds, peak = _cost(call, device, rounds)
        rows.append(Row(subject.model, name, seconds / subject.batch, 4 * maps / speed, peak))
    return rows


def one_pass(network: nn.Module, images: Sequence[Pixels], crop: Crop, device: torch.device) -> Callable[[], None]:
    """Return a function that computes the gradients of images already on the device."""
    way = Way(channels_last=memory_layout(device) is not None, crops=True, own_backward=True)
    inputs = crop.cut(torch.from_numpy(np.stack(images)).to(device)).contiguous()

    def call() -> None:
        with way.applied(network, device):
            list(unit_gradients(network, inputs, crop.targets))

    return call


def _cost(call: Callable[[], None], device: torch.device, rounds: int) -> tuple[float, float]:
    """Measure the median time in seconds and the peak of additional memory in GB."""
    if device.type != "cuda":
        return timed(call, device, rounds), 0.0
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    seconds = timed(call, device, rounds)
    return seconds, (torch.cuda.max_memory_allocated(device) - before) / 1e9


def measure_commands(subject: Subject, device: str, counts: tuple[int, int]) -> dict[str, float]:
    """Measure images per second of `erf compute` by source, from the difference of a long and a short run."""
    command = Command(subject.model, subject.size, device=device)
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder), SOURCES, subject.size, counts)
        return {
            source: 1 / command.per_image({n: location(Path(folder), source, n) for n in counts}).wall
            for source in SOURCES
        }


def main() -> None:
    """Run the selected benchmarks, print them, and write gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--networks", nargs="*", default=list(SUBJECTS), choices=list(SUBJECTS))
    parser.add_argument("--commands", nargs="*", default=list(SUBJECTS), choices=list(SUBJECTS))
    parser.add_argument("--size", type=parse_size, help="instead of that of each network")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--counts", type=int, nargs=2, default=(8, 40), help="images of a short and a long run")
    options = parser.parse_args()
    device = pick_device(options.device)
    options.output.mkdir(parents=True, exist_ok=True)

    def subject(name: str) -> Subject:
        return replace(SUBJECTS[name], size=options.size or SUBJECTS[name].size)

    found: dict[str, Any] = {"bandwidth": bandwidth(device, options.rounds), "ways": [], "commands": {}}
    print(f"a copy on the device reads and writes {found['bandwidth'] / 1e9:.1f} GB/s", flush=True)
    for name in options.networks:
        with float32_convolutions(device):
            rows = measure_ways(subject(name), device, options.rounds, found["bandwidth"])
        print(*(row.description for row in rows), sep="\n", flush=True)
        found["ways"] += map(asdict, rows)
        write(options.output, found)
    for name in options.commands:
        rates = found["commands"][name] = measure_commands(subject(name), options.device, tuple(options.counts))
        print(f"{name:24s}", *(f"{source} {rate:.2f}" for source, rate in rates.items()), "images/s", flush=True)
        write(options.output, found)


def write(folder: Path, found: dict[str, Any]) -> None:
    """Save the results so far, because the remaining time may not suffice for the rest."""
    (folder / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
