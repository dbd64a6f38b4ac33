"""Work on several items at a time in threads."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")


def map_in_threads(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Apply a function to each item, as many at a time as there are cores.

    NumPy, compression and file access release the interpreter's lock. Matrix products are limited to one thread each,
    because threads of several products wait for each other.

    Args:
        work: Function of one item.
        items: The items.

    Returns:
        Results in the order of the items.
    """
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, items))
