"""Kill commands at reproducible random moments, repeat them until they finish, and compare the results.

`python -m tests.kills --kills 120` prints a table. Every command runs in a fork of this process, which has already
imported all slow modules. Half of the kills come at a random time, half right before a file operation (creating,
renaming or deleting), so that every moment between two operations is covered.
"""

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # forking a process with threads is unsafe

import h5py
import numpy as np

import erf.storage.checkpoint
from erf.cli import main

SLOW_TO_IMPORT = (
    "erf.cli.computing", "erf.cli.erf_files", "erf.evaluation.tables", "erf.plotting.evaluation",
    "erf.plotting.layouts",
    "erf.plotting.series", "erf.plotting.training", "erf.report", "erf.training", "torch.distributed", "rich.progress",
)  # fmt: skip

OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "open", "os.truncate")
SMALL = ["-m", "gmic", "--size", "64x48", "--device", "cpu", "--workers", "0"]
COMPUTE = ["compute", *SMALL, "--layer", "stem", "-n", "7", "--batch-size", "1"]
TRAIN = [
    "train", *SMALL, "-n", "16", "--split", "50:25:25", "--set", "patch.patch=32", "--set", "epochs=1",
    "--set", "batch_size=4", "--erf-every", "1", "--erf-n", "2", "-o", "run",
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Commands that run one after the other and are killed."""

    name: str
    commands: Sequence[Sequence[str]]
    resumes: bool = False
    """Whether they are repeated with --resume."""
    processes: int = 1
    before: Sequence[Sequence[str]] = ()
    """Commands that produce the required inputs."""


TWO = [
    [*COMPUTE, "--no-picture", "-o", "a.h5"],
    [*COMPUTE, "--no-picture", "--mirror", "-o", "b.h5"],
]
SHARDS = [[*COMPUTE, "--no-picture", "--shard", f"{part}/2", "-o", f"part{part}.h5"] for part in (1, 2)]
KINDS = (
    Kind("single", [COMPUTE], resumes=True),
    Kind("layers", [[*COMPUTE, "--layer", "stem,stage1,final", "--no-picture"]], resumes=True),
    Kind("shards", SHARDS, resumes=True),
    Kind("processes", [[*COMPUTE, "--layer", "stem,stage1", "--no-picture"]], resumes=True, processes=2),
    Kind("merge", [["merge", "part1.h5", "part2.h5", "-o", "whole.h5"]], before=SHARDS),
    Kind("train", [TRAIN], resumes=True),
    Kind("evaluate", [["evaluate", "run", "-o", "t.csv", "-o", "t.md", "--picture", "t.png", "--draws", "100"]], before=[TRAIN]),
    Kind("report", [["report", "a.h5", "b.h5", "-o", "r.html", "--resamples", "100", "--allow-different"]], before=TWO),
    Kind("compare", [["compare", "a.h5", "b.h5", "-o", "c.csv", "-o", "c.tex", "--resamples", "100", "--allow-different"]], before=TWO),
    Kind("plot", [["plot", "a.h5", "b.h5", "-o", "p.png"]], before=TWO),
)  # fmt: skip


@dataclass
class Count:
    """Outcome of the kills of one kind of command."""

    kills: int = 0
    lost: int = 0
    """Images, rows or files of the uninterrupted run that are missing or different."""
    doubled: int = 0
    refused: int = 0
    left_over: int = 0
    told: list[str] = field(default_factory=list)
    """Messages about unexpected results."""


class Run:
    """Processes of one command."""

    def __init__(self, folder: Path, words: Sequence[str], count: int, die_at: int = 0) -> None:
        self.folder, port = folder, str(_free_port())
        first_to_die = random.randrange(count)
        self.pids = [
            self._fork(words, rank, count, port, die_at if rank == first_to_die else 0) for rank in range(count)
        ]

    def _fork(self, words: Sequence[str], rank: int, count: int, port: str, die_at: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.chdir(self.folder)
            log = os.open(f"../{self.folder.name}.log{rank}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if count > 1:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            erf.storage.checkpoint.EVERY = 0.0
            _watch(self.folder, die_at)
            sys.argv = ["erf", *words]
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        finally:
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(code)

    def kill(self) -> None:
        """Kill all processes at once, as in a crash of the machine."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait(self) -> list[int]:
        """Wait for all processes and return their exit codes; if one fails the others are ended, as `torchrun` does."""
        codes: dict[int, int] = {}
        while len(codes) < len(self.pids):
            pid, status = os.waitpid(-1, 0)
            codes[pid] = os.waitstatus_to_exitcode(status)
            if codes[pid]:
                for other in set(self.pids) - set(codes):
                    os.kill(other, signal.SIGTERM)
        return [codes[pid] for pid in self.pids]

    def output(self) -> str:
        """Return the printed messages."""
        logs = sorted(self.folder.parent.glob(f"{self.folder.name}.log*"))
        return " | ".join(line for log in logs for line in log.read_text().splitlines() if "erf: " in line)


def _watch(folder: Path, die_at: int) -> None:
    """Count file operations in a folder, and kill this process right before the one with number `die_at`."""
    counted = 0

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal counted
        if event not in OPERATIONS or not arguments or not isinstance(arguments[0], str | os.PathLike | bytes):
            return
        place = os.path.abspath(os.fsdecode(arguments[0]))
        if not place.startswith(f"{folder}/") or (event == "open" and not _writes(arguments)):
            return
        counted += 1
        if counted == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if not die_at:
            with open(f"{folder}.count", "w") as file:  # outside the folder
                file.write(str(counted))

    sys.addaudithook(note)


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = (*arguments[1:3], None, 0)[:2]
    return bool((isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def finish(folder: Path, words: Sequence[str], count: int = 1) -> tuple[list[int], str]:
    """Run a command to the end; return exit codes and printed messages."""
    run = Run(folder, words, count)
    return run.wait(), run.output()


def contents(folder: Path) -> dict[str, Any]:
    """Return the content to compare of each file of a folder, including hidden ones, by relative path."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and any(path.iterdir()):
            continue
        found[str(path.relative_to(folder))] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".h5":
        return _arrays(path)
    if path.suffix in (".csv", ".md", ".tex", ".safetensors"):
        return path.read_bytes()
    if path.name == "epochs.json":
        return [{key: value for key, value in row.items() if key != "seconds"} for row in json.loads(path.read_text())]
    return ""


def _arrays(path: Path) -> dict[str, Any]:
    """Read the datasets of an HDF5 file, except the provenance, which has times and commands."""
    found: dict[str, Any] = {}

    def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and name != "provenance":
            found[name] = np.asarray(item[()]).tobytes()

    with h5py.File(path) as file:
        file.visititems(note)
        found["ids"] = [one.decode() for one in file["images/id"][()]] if "images/id" in file else []
    return found


class Trial:
    """Trials of one kind of command, with the results and duration of an uninterrupted run."""

    def __init__(self, kind: Kind, root: Path, rng: random.Random) -> None:
        self.kind, self.root, self.rng, self.count = kind, root, rng, Count()
        self.start = root / f"{kind.name}-start"
        self.start.mkdir()
        for words in kind.before:
            assert finish(self.start, words)[0] == [0], words
        whole = self._copy("whole")
        self.seconds, self.operations = [], []
        for words in kind.commands:
            began = time.monotonic()
            codes, output = finish(whole, words, kind.processes)
            assert not any(codes), (words, output)
            self.seconds.append(time.monotonic() - began)
            self.operations.append(int(Path(f"{whole}.count").read_text()))
        self.expected = contents(whole)

    def _copy(self, name: str) -> Path:
        folder = self.root / f"{self.kind.name}-{name}"
        shutil.copytree(self.start, folder)
        return folder

    def attempt(self, number: int) -> None:
        """Kill a command once or twice, then let it finish and compare the results."""
        folder = self._copy(str(number))
        place = self.rng.randrange(len(self.kind.commands))
        for index, words in enumerate(self.kind.commands):
            for again in range(self.rng.choice((1, 1, 2)) if index == place else 0):
                self._kill(folder, self._words(words), index, by_time=(number + again) % 2 == 0)
            if self._is_done(folder):
                continue
            codes, output = finish(folder, self._words(words), self.kind.processes)
            if any(codes):
                self.count.refused += 1
                self.count.told.append(f"{self.kind.name} {number}: {codes} {output[-300:]}")
        self._compare(folder, number)
        shutil.rmtree(folder)

    def _words(self, words: Sequence[str]) -> list[str]:
        return [*words, *(["--resume"] if self.kind.resumes else [])]

    def _kill(self, folder: Path, words: Sequence[str], index: int, by_time: bool) -> None:
        if by_time:
            run = Run(folder, words, self.kind.processes)
            time.sleep(self.rng.uniform(0, self.seconds[index]))
            run.kill()
        else:
            run = Run(folder, words, self.kind.processes, self.rng.randint(1, self.operations[index]))
        self.count.kills += any(code == -signal.SIGKILL for code in run.wait())

    def _is_done(self, folder: Path) -> bool:
        """Whether a command that does not resume finished before it was killed, so that it need not be repeated."""
        return not self.kind.resumes and contents(folder).keys() == self.expected.keys()

    def _compare(self, folder: Path, number: int) -> None:
        found, before = contents(folder), self.count.lost + self.count.doubled + self.count.left_over
        self.count.left_over += len(found.keys() - self.expected.keys())
        for name, content in self.expected.items():
            ids = found.get(name, {}).get("ids", []) if isinstance(content, dict) else []
            self.count.doubled += len(ids) - len(set(ids))
            self.count.lost += not _same(found.get(name), content, loosely=self.kind.processes > 1)
        if self.count.lost + self.count.doubled + self.count.left_over > before:
            odd = sorted(found.keys() ^ self.expected.keys())
            self.count.told.append(f"{self.kind.name} {number}: {odd}")


def _same(one: Any, other: Any, loosely: bool) -> bool:
    return bool(one is not None and one == other)


def count_kills(kills: int, seed: int = 0, kinds: Sequence[Kind] = KINDS) -> Iterator[tuple[str, Count]]:
    """Distribute `kills` over the kinds of commands, and yield the name and outcome of each kind."""
    for module in SLOW_TO_IMPORT:
        importlib.import_module(module)
    rng = random.Random(seed)
    random.seed(seed)
    with tempfile.TemporaryDirectory() as root:
        shares = [kills // len(kinds) + (place < kills % len(kinds)) for place in range(len(kinds))]
        for kind, share in zip(kinds, shares, strict=True):
            trial = Trial(kind, Path(root), rng)
            number = 0
            while trial.count.kills < share:
                trial.attempt(number)
                number += 1
            yield kind.name, trial.count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="")
    chosen = parser.parse_args()
    wanted = [kind for kind in KINDS if not chosen.kinds or kind.name in chosen.kinds.split(",")]
    bad = 0
    print(f"{'kind':10} kills  lost  doubled  refused  left over", flush=True)
    for name, count in count_kills(chosen.kills, chosen.seed, wanted):
        print(
            f"{name:10} {count.kills:5} {count.lost:5} {count.doubled:8} {count.refused:8} {count.left_over:10}",
            flush=True,
        )
        print(*count.told, sep="\n", end="\n" if count.told else "", flush=True)
        bad += count.lost + count.doubled + count.refused + count.left_over
    sys.exit(bad > 0)
