"""The table of an atlas as CSV, at full precision."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erf.measures import Measure
from erf.report.atlas.entry import Entry
from erf.storage.files import complete_file
from erf.text import for_csv

COLUMNS = (
    *("network", "kind", "reason", "remark", "weights", "parameters", "channels", "height", "width", "layer"),
    *("center_y", "center_x", "field_height", "field_width", "field_kind", "images", "definition", "file"),
)


def write_table(entries: Sequence[Entry], measures: Sequence[Measure], path: Path) -> None:
    """Write a row per network; cells of what is not known are empty, and an infinite field is `inf`."""
    names = [f"{each.name}{edge}" for each in measures for edge in ("", "_low", "_high")]
    with complete_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *names], restval="", lineterminator="\n")
        writer.writeheader()
        for entry in entries:
            writer.writerow({name: for_csv(value) for name, value in _row(entry).items()})


def _row(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {
        "network": entry.label, "kind": entry.kind, "reason": entry.reason, "remark": entry.remark,
        "weights": entry.weights, "file": entry.file, "definition": entry.definition,
        "images": _known(entry.images), "parameters": _known(entry.parameters),
    }  # fmt: skip
    origin = entry.origin
    if origin is None:
        return row
    row |= dict(zip(("channels", "height", "width"), origin.input_shape, strict=True))
    row |= dict(zip(("center_y", "center_x"), origin.unit_center, strict=True))
    if not origin.imported:
        row |= {"layer": origin.layer, "field_kind": origin.field_kind}
        row |= dict(zip(("field_height", "field_width"), origin.field_size, strict=True))
    else:
        row["channels"] = ""
    for name, found in entry.estimates.items():
        row |= {name: _finite(found.value), f"{name}_low": _finite(found.low), f"{name}_high": _finite(found.high)}
    return row


def _known(value: int | None) -> Any:
    return "" if value is None else value


def _finite(value: float) -> Any:
    return value if math.isfinite(value) else ""
