"""Compare ERF files of two folders, by dataset and attribute, bit for bit.

Attributes that describe the occasion of a run, such as its time, are left out. Use it before and after a change that
must not alter results:

    python scripts/compare_files.py before/ after/
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

OCCASION = ("created", "command", "versions", "source", "identity")
"""Attributes that may differ between equal runs."""


def compare_files(one: Path, two: Path) -> list[str]:
    """List the datasets and attributes in which two HDF5 files differ, in words.

    Args:
        one: path of the first file.
        two: path of the second file.

    Returns:
        One line for each difference; empty if the files hold the same.
    """
    with h5py.File(one, "r") as first, h5py.File(two, "r") as second:
        here, there = dict(_contents(first)), dict(_contents(second))
    names = sorted(here.keys() | there.keys())
    return [f"{name}: {words}" for name in names if (words := _difference(here.get(name), there.get(name)))]


def _contents(file: h5py.File) -> Iterator[tuple[str, object]]:
    """Yield name and value of every dataset and of every attribute (`path@name`)."""
    nodes = {"/": file}
    file.visititems(lambda name, node: nodes.update({name: node}))
    for path, node in nodes.items():
        for name, value in node.attrs.items():
            if name not in OCCASION and name not in ("DIMENSION_LIST", "REFERENCE_LIST"):
                yield f"{path}@{name}", value
        if isinstance(node, h5py.Dataset):
            yield path, node[()]


def _difference(one: object, two: object) -> str:
    if one is None or two is None:
        return "only in one of the files"
    here, there = np.asarray(one), np.asarray(two)
    if here.dtype != there.dtype or here.shape != there.shape:
        return f"{here.dtype} {here.shape} and {there.dtype} {there.shape}"
    if here.dtype.kind == "f":
        same = (here == there) | (np.isnan(here) & np.isnan(there))
        if not same.all():
            with np.errstate(invalid="ignore"):
                largest = np.nanmax(np.abs(np.where(same, 0, here.astype(np.float64) - there)))
            return f"{int((~same).sum())} of {here.size} values differ, by at most {largest:.3g}"
        return ""
    return "" if np.array_equal(here, there) else f"{here.tolist()!r:.80} and {there.tolist()!r:.80}"


def main() -> int:
    """Compare the files of two folders; return the number of files that differ or are missing."""
    one, two = map(Path, sys.argv[1:3])
    names = sorted({path.name for folder in (one, two) for path in folder.glob("*.h5")})
    unlike = 0
    for name in names:
        missing = [str(folder) for folder in (one, two) if not (folder / name).exists()]
        found = [f"missing in {', '.join(missing)}"] if missing else compare_files(one / name, two / name)
        unlike += bool(found)
        print(f"{name}: {'; '.join(found[:5]) or 'equal'}{f' and {len(found) - 5} more' if len(found) > 5 else ''}")
    print(f"{len(names) - unlike} of {len(names)} files are equal")
    return unlike


if __name__ == "__main__":
    sys.exit(main())
