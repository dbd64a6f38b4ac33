"""Reading of untrusted CSV tables, with line numbers for error messages."""

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from erf.errors import InputError
from erf.images.files import read_file

MAX_BYTES = 1 << 28
"""Largest size of a table in bytes; some million rows."""


@dataclass(frozen=True)
class Row:
    """One row: the line at which it begins, and its values by column name, without surrounding spaces."""

    line: int
    values: dict[str, str]


def read_table(path: Path) -> tuple[tuple[str, ...], list[Row]]:
    """Read a CSV table with a header.

    Args:
        path: CSV file in UTF-8.

    Returns:
        Names of the columns that have one, and the rows that are not empty.

    Raises:
        InputError: The table is malformed; the message gives file and line.
    """
    lines = read_records(path)
    columns = [name.strip() for name in lines[0][1]] if lines else []
    repeated = [name for name, count in Counter(filter(None, columns)).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: found two columns '{repeated[0]}'; expected each name once")
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(columns):
            raise InputError(f"{path}, line {line}: number of fields differs from the header's; correct this line")
        if any("\0" in cell for cell in cells):
            raise InputError(f"{path}, line {line}: found a zero byte; expected text")
        values = {name: cell.strip() for name, cell in zip(columns, cells, strict=True) if name}
        rows.append(Row(line, values))
    return tuple(filter(None, columns)), rows


def read_records(path: Path) -> list[tuple[int, list[str]]]:
    """Read the records of a CSV file.

    Args:
        path: CSV file in UTF-8.

    Returns:
        For each record that is not empty, the line at which it begins and its fields.

    Raises:
        InputError: The file cannot be read, or is no CSV in UTF-8.
    """
    try:
        text = read_file(path, MAX_BYTES).decode("utf-8-sig")
        # Strict: otherwise an unclosed quotation mark would absorb the rest of the file.
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        records, line = [], 1
        for cells in reader:
            if cells:
                records.append((line, cells))
            line = reader.line_num + 1
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: table cannot be read ({reason}); expected a CSV in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: {error}; expected a CSV with closed quotation marks") from error
    return records


def identity(path: Path) -> object:
    """Return a key that is equal for all names of one file; the normalised path if the file does not exist."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return os.path.normpath(path)
    return found.st_dev, found.st_ino
