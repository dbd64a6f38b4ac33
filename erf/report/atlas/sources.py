"""What an atlas is made of: names of networks, patterns, ERF files, and maps of other programs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from erf.errors import InputError
from erf.importing.arrays import SUFFIXES as ARRAYS
from erf.importing.arrays import array_names
from erf.storage import SUFFIXES

LIST_SUFFIX = ".txt"

_LARGEST_LIST = 2**20


@dataclass(frozen=True)
class Source:
    """One network of an atlas."""

    name: str
    """Name of a network, or path of a file."""
    kind: str
    """'network', 'file' (an ERF file) or 'map' (of another program)."""
    array: str = ""
    """Name of the array in an archive of maps."""

    @property
    def label(self) -> str:
        if self.kind == "network":
            return self.name
        return self.array or Path(self.name).stem


def expand(names: Sequence[str | Path]) -> list[Source]:
    """Return the networks that names, patterns, files and lists of names stand for, each once.

    Raises:
        InputError: A pattern matches nothing, or there is no network at all.
        FormatError: A file cannot be read.
    """
    found = list(dict.fromkeys(source for name in names for source in _expanded(str(name))))
    if not found:
        raise InputError("no networks; expected names, patterns such as timm:resnet*, or files")
    return found


def _expanded(name: str) -> Iterator[Source]:
    suffix = Path(name).suffix.lower()
    if suffix in SUFFIXES:
        yield Source(name, "file")
    elif suffix in ARRAYS:
        yield from (Source(name, "map", array) for array in array_names(Path(name)))
    elif suffix == LIST_SUFFIX:
        yield from (source for line in _lines(Path(name)) for source in _expanded(line))
    else:
        from erf.building.names import matching_names  # PyTorch, which an atlas of files does not need

        yield from (Source(one, "network") for one in matching_names(name))


def _lines(path: Path) -> list[str]:
    """Lines of a list of names, without comments behind `#` and lists of lists."""
    if not path.is_file():
        raise InputError(f"{path}: no such list of networks")
    if path.stat().st_size > _LARGEST_LIST:
        raise InputError(f"{path}: a list of {path.stat().st_size} bytes; expected one name per line")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8; expected one name per line") from error
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    nested = [line for line in lines if line.lower().endswith(LIST_SUFFIX)]
    if nested:
        raise InputError(f"{path}: the list names another one, {nested[0]}")
    return [line for line in lines if line]
