"""Devices: which one, how much memory, how to be deterministic on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from erf.errors import InputError, InsufficientMemoryError


def pick_device(name: str = "auto") -> torch.device:
    """The named device, or the fastest there is; `InputError` for one that is not at hand."""
    found = ["cpu"]
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if name == "auto":
        return torch.device(found[0])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device '{name}' not understood; expected one of {', '.join(found)}") from error
    if device.type not in found or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise InputError(f"device '{name}' is not at hand; expected one of {', '.join(found)}")
    return device


def available_memory(device: torch.device) -> int:
    """Bytes that can still be taken on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Only algorithms that give the same bits each time, while the context lasts."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    try:
        if wanted:
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


@contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
    """Turns PyTorch's and Python's out-of-memory errors into one clear line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, InsufficientMemoryError) or not _is_memory_error(error):
            raise
        raise InsufficientMemoryError(f"out of memory ({str(error).splitlines()[0][:120]}); {remedy}") from error


def _is_memory_error(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
