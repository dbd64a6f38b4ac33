"""Several processes on one run, as `torchrun` starts them: each takes a shard, the first merges them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from erf.errors import InputError

if TYPE_CHECKING:
    from erf.result import ERF

_LONGEST_WAIT = timedelta(days=7)
"""For the slowest process; `torchrun` ends all of them when one fails."""


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls) -> "Processes":
        """As `torchrun` tells; a single one without it."""
        rank, count, local_rank = (
            int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
        )
        return cls(rank, count, local_rank)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part(self, file: Path) -> Path:
        """Where this process puts its shard of a file."""
        return file.with_name(f".{file.name}.rank{self.rank}.h5") if self.count > 1 else file

    def device(self, name: str) -> str:
        """Each process of a machine has a GPU of its own."""
        import torch

        spread = self.count > 1 and (name == "cuda" or (name == "auto" and torch.cuda.is_available()))
        return f"cuda:{self.local_rank % torch.cuda.device_count()}" if spread else name

    def gather(self, files: Sequence[Path], overwrite: bool) -> "tuple[ERF, ...]":
        """Wait for all processes; the first makes each file of their shards, which then go. Empty for the others."""
        import torch.distributed as dist

        dist.init_process_group("gloo", timeout=_LONGEST_WAIT)
        dist.barrier()
        dist.destroy_process_group()
        return tuple(self._merge(file, overwrite) for file in files) if self.is_first else ()

    def _merge(self, file: Path, overwrite: bool) -> "ERF":
        from erf.merging import merge
        from erf.storage import FileSink, load

        parts = [Processes(rank, self.count).part(file) for rank in range(self.count)]
        with FileSink(file, overwrite=overwrite) as sink:
            merged = merge([load(part) for part in parts], sink=sink)
        for part in parts:
            part.unlink()
        return merged


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) from a text such as 2/8, counted from 1."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match:
        raise InputError(f"shard '{text}' not understood; expected I/N with I from 1 to N, such as 2/8")
    return int(match[1]), int(match[2])
