"""Sides of a comparison, which take turns so that none gains from a quiet moment of the machine."""

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
"""Visits some images, and says how many they are."""


@dataclass(frozen=True)
class Cost:
    """Of an image, or of a whole job."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of all threads, user and system."""
    peak: float
    """The most memory that the process held, in GB."""
    base: float = 0.0
    """Of that, what a process that visits images again and again held before its first one."""


Side = Callable[[], Cost]


def take_turns(sides: Mapping[str, Side], rounds: int) -> dict[str, Cost]:
    """Cost of each side: medians of time, the largest memory."""
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
    """A process of its own that visits images whenever it is called; its first visit is not counted."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=_work, args=(far, make, arguments), daemon=True)
    process.start()
    far.close()  # so that the death of the process ends the waiting for it

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
    """Bytes; `getrusage` would begin with the peak of the process that started this one."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def show(title: str, found: Mapping[str, Cost], reference: str = "", unit: str = "s per image") -> None:
    """Print a line for each side, with its ratio to one of them."""
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
    """NaN where the difference of two runs is lost in their noise."""
    return numerator / denominator if denominator > 0 else float("nan")
