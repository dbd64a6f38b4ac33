"""Devices: choice, free memory, precision and determinism."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import torch

from erf.errors import InputError, InsufficientMemoryError

# Constants of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4


def pick_device(name: str = "auto") -> torch.device:
    """Return the named device, or the fastest available for 'auto'; raises `InputError` if it is not available."""
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
        raise InputError(f"device '{name}' is not available; expected one of {', '.join(found)}")
    return device


def available_memory(device: torch.device) -> int:
    """Return the bytes of memory available on the device."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return int(psutil.virtual_memory().available)


def scarce_memory() -> int:
    """Return the bytes of maps above which memory matters more than time: an eighth of the machine's memory."""
    return int(psutil.virtual_memory().total // 8)


def keep_freed_memory() -> None:
    """Let this process keep all freed memory for the next pass, which saves a tenth of its time and costs 0.2 GB.

    For a process that waits for its user between passes of one kind. Does nothing where the C library is another one.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def reuse_freed_memory() -> None:
    """Let this process keep freed blocks of up to 8 MB for the next pass instead of handing them back to the system.

    glibc maps and unmaps large blocks one by one, and faulting their pages in again takes time. Larger blocks are not
    kept: in pages of 2 MB, for which the command line asks, that costs little, and keeping them 0.4 GB at full size.
    Does nothing where the C library is another one.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 8 * 10**6)
        mallopt(_M_TRIM_THRESHOLD, 512 * 10**6)


def memory_layout(device: torch.device) -> torch.memory_format | None:
    """Return the fastest memory layout: channels last, which halves a pass on a CPU; None on MPS, with no gain."""
    return None if device.type == "mps" else torch.channels_last


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def float32_convolutions(device: torch.device) -> Iterator[None]:
    """Context manager that allows TF32 for convolutions on a GPU only where matrix products use it.

    By default PyTorch rounds the operands of convolutions, but not of matrix products, to 10 bits.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.get_float32_matmul_precision() != "highest"
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Context manager that, if wanted, allows only algorithms that give the same bits each time.

    Raises:
        InputError: an operation has no deterministic algorithm on the device.
    """
    if not wanted:  # setting it imports PyTorch's compiler, which takes seconds
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, PyTorch refuses products on a GPU
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        words = str(error).split(" does not", 1)[0]
        raise InputError(
            f"{words} has no deterministic algorithm on this device", remedy="leave out `deterministic`"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


@contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
    """Context manager that converts out-of-memory errors to `InsufficientMemoryError` with this remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, InsufficientMemoryError) or not is_memory_error(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InsufficientMemoryError(f"out of memory ({reason[:120]})", remedy=remedy) from error


def is_memory_error(error: BaseException) -> bool:
    """Whether an error of Python or PyTorch says that memory ran out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error)
        for words in ("allocate memory", "STATUS_ALLOC_FAILED")  # of the CPU; of cuBLAS and cuDNN
    )
