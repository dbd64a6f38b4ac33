"""Run the sides of a comparison in turns, so that none benefits from a quiet phase of the machine."""

import multiprocessing
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import psutil

Visit = Callable[[], int]
"""Function that processes some images and returns their number."""


@dataclass(frozen=True)
class Cost:
    """Cost of one image or of a whole job."""

    wall: float
    """Wall time in seconds."""
    cpu: float
    """CPU time of all threads in seconds, user and system."""
    peak: float
    """Peak memory of the process in GB."""
    base: float = 0.0
    """Memory in GB that a reused process held before its first image; part of the peak."""


Side = Callable[[], Cost]


def take_turns(sides: Mapping[str, Side], rounds: int) -> dict[str, Cost]:
    """Measure the cost of each side in turn; return medians of times and the largest memory."""
    found: dict[str, list[Cost]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return {name: _summary(costs) for name, costs in found.items()}


def _summary(costs: Sequence[Cost]) -> Cost:
    wall, cpu = median(cost.wall for cost in costs), median(cost.cpu for cost in costs)
    return Cost(wall, cpu, max(cost.peak for cost in costs), costs[0].base)


@contextmanager
def running(make: Callable[..., Visit], *arguments: object) -> Iterator[Side]:
    """Yield a function that measures one visit in a separate process; a first visit is not counted.

    Args:
        make: builds the function that processes images, in the new process.
        arguments: arguments of `make`.
    """
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=_work, args=(far, make, arguments), daemon=True)
    process.start()
    far.close()  # so that the wait ends if the process dies

    def ask() -> Cost:
        near.send(True)
        found: Cost = near.recv()
        return found

    near.recv()
    try:
        yield ask
    finally:
        near.close()
        process.join()


def _work(pipe: Connection, make: Callable[..., Visit], arguments: Sequence[object]) -> None:
    visit = make(*arguments)
    base = psutil.Process().memory_info().rss
    visit()
    pipe.send(True)
    try:
        while pipe.recv():
            pipe.send(_measured(visit, base))
    except EOFError:  # the other end was closed
        return


def _measured(visit: Visit, base: int) -> Cost:
    start, before = time.perf_counter(), time.process_time()
    count = visit()
    wall, cpu = time.perf_counter() - start, time.process_time() - before
    return Cost(wall / count, cpu / count, _peak() / 1e9, base / 1e9)


def _peak() -> int:
    """Read the peak memory in bytes; `getrusage` would include the peak of the process that started this one."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def show(title: str, found: Mapping[str, Cost], reference: str = "", unit: str = "s per image") -> None:
    """Print one line per side, with the ratio to the side `reference`."""
    for side, cost in found.items():
        words = [f"{cost.wall:8.3f} {unit}", f"{cost.cpu:8.3f} s CPU", f"peak {cost.peak:5.2f} GB"]
        if cost.base:
            words[-1] += f", {cost.peak - cost.base:5.2f} above base"
        if reference not in ("", side):
            other = found[reference]
            wall, cpu = _ratio(other.wall, cost.wall), _ratio(other.cpu, cost.cpu)
            words.append(f"{wall:6.2f} times {reference}, {cpu:6.2f} in CPU time")
        print(f"{title:40s} {side:18s}", *words, sep="   ", flush=True)


def _ratio(numerator: float, denominator: float) -> float:
    """Divide; NaN if the denominator, a difference of two runs, is not positive because of noise."""
    return numerator / denominator if denominator > 0 else float("nan")
