"""Runs with several processes, as started by `torchrun`: each computes a shard, the first merges them."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType

from erf.errors import InputError, LostProcessError

_LONGEST_WAIT = timedelta(days=7)
"""Time limit to wait for the slowest process; `torchrun` ends all processes when one fails."""
_START_WAIT = timedelta(minutes=10)
"""Time limit for all processes to start."""


@dataclass(frozen=True)
class Processes:
    """Rank of this process and number of processes; a `with` block connects them."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls) -> "Processes":
        """Read the variables set by `torchrun`; without them it is a single process.

        Raises:
            InputError: the variables are inconsistent.
        """
        found = cls(_number("RANK", 0), _number("WORLD_SIZE", 1), _number("LOCAL_RANK", 0))
        if found.count < 1 or not 0 <= found.rank < found.count:
            raise InputError(
                f"environment: RANK {found.rank} of WORLD_SIZE {found.count}; expected a rank below the number of "
                "processes, as `torchrun` sets them"
            )
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if found.count > 1 and missing:
            raise InputError(
                f"environment: WORLD_SIZE is {found.count}, but {' and '.join(missing)} are not set; start several "
                "processes with `torchrun`, or unset WORLD_SIZE"
            )
        if found.count > 1:
            _number("MASTER_PORT", 0)
        return found

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def name(self) -> str:
        """Name of this process, for its files."""
        return f"{self.rank + 1}-of-{self.count}"

    def __enter__(self) -> "Processes":
        if self.count > 1:
            import torch.distributed as dist

            try:
                dist.init_process_group("gloo", timeout=_START_WAIT)
            except (RuntimeError, ValueError, OSError) as error:
                first = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
                raise InputError(f"{self.count} processes do not find each other ({first})") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.count > 1:
            import torch.distributed as dist

            dist.destroy_process_group()

    def from_first(self, value: bool) -> bool:
        """Return the first process's value, in all processes."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        values = [value]
        with _loss_reported():
            dist.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.count > 1:
            import torch.distributed as dist

            with _loss_reported():
                dist.monitored_barrier(timeout=_LONGEST_WAIT)

    def device(self, name: str) -> str:
        """Return this process's device: each process of a machine gets its own GPU."""
        import torch

        spread = self.count > 1 and (name == "cuda" or (name == "auto" and torch.cuda.is_available()))
        return f"cuda:{self.local_rank % torch.cuda.device_count()}" if spread else name


@contextmanager
def _loss_reported() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError("another process ended before its part was done") from error


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise InputError(f"environment: {name} is '{text}'; expected a number, as `torchrun` sets it, or nothing")
    return int(text)


def parse_shard(text: str) -> tuple[int, int]:
    """Parse (i, n), counted from 1, from a text such as 2/8; `InputError` if it has another form."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    if not match:
        raise InputError(f"shard '{text}' not understood; expected I/N with I from 1 to N, such as 2/8")
    return int(match[1]), int(match[2])
