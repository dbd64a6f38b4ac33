"""Open untrusted weights files: a file's index is read and checked before any of its tensors.

Formats: safetensors, `torch.save`, and `torch.save` before PyTorch 1.6. Tensors are read one by one and only when
requested, whatever a file claims.
"""

import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from .pickles import PickleError
from .safetensors import read_safetensors
from .sections import EXPECTED, IndexedFile
from .torch_save import read_archive, read_old_file


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a weights file and yield its content, with a `StoredTensor` for each tensor.

    Tensors can be read only within the context.

    Raises:
        WeightsError: the file is missing, damaged, not allowed, or was changed within the context.
    """
    try:
        _check_regular(path)
        with IndexedFile(path) as file:
            before = file.state
            yield _read_index(file)
            if file.state != before:
                raise ValueError("it was changed meanwhile; try again")
    except WeightsError:
        raise
    except PickleError as error:
        raise WeightsError(
            f"weights {path} refused: {error}, expected tensors only; save the model's state_dict() again, as "
            "safetensors or with torch.save"
        ) from error
    except Exception as error:  # a damaged file can make the readers raise anything
        raise WeightsError(f"weights {path} cannot be read: {_first_line(error)}") from error


def _read_index(file: IndexedFile) -> Any:
    head = bytes(file.part(0, min(9, file.state[0])))
    if head[8:9] == b"{":
        return read_safetensors(file)
    if head[:4] == b"PK\x03\x04":
        return read_archive(file, zipfile.ZipFile(file).infolist())
    return read_old_file(file)


def _check_regular(path: Path) -> None:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        reason = "" if isinstance(error, FileNotFoundError) else f" ({getattr(error, 'strerror', '') or error})"
        raise WeightsError(f"weights {path} not found{reason}; {EXPECTED}") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise WeightsError(f"weights {path} is {kind}; {EXPECTED}")
    if not found.st_size:
        raise WeightsError(f"weights {path} cannot be read: the file is empty; {EXPECTED}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
