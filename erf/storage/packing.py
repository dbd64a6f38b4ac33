"""Arrays by name for the sums and rows of a run, as stored in a checkpoint."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erf.results import OVERVIEW, PROFILE_ARRAYS, Overview, Profile, Provenance, Row
from erf.storage.schema import record_of

Sums = Mapping[str, NDArray[Any]]
"""The state of one `RunningMoments`."""


def pack_sums(sums: Sequence[Sums]) -> dict[str, NDArray[Any]]:
    """Convert sums, one set for each measured unit, to arrays by name."""
    return {f"{unit}/{name}": array for unit, each in enumerate(sums) for name, array in each.items()}


def unpack_sums(arrays: Sums, units: int) -> tuple[Sums, ...]:
    """Return the sums of each measured unit; empty if one has none."""
    found: list[dict[str, NDArray[Any]]] = [{} for _ in range(units)]
    for key, array in arrays.items():
        unit, _, name = key.partition("/")
        found[int(unit)][name] = array
    return tuple(found) if all(found) else ()


def pack_rows(rows: Sequence[tuple[Row, ...]]) -> dict[str, NDArray[Any]]:
    """Convert rows of several images to arrays; for images that failed, only the record."""
    records = [[asdict(row.record) for row in units] for units in rows]
    arrays: dict[str, NDArray[Any]] = {"records": np.frombuffer(json.dumps(records).encode(), np.uint8)}
    for number, units in enumerate(rows):
        for unit, row in enumerate(units):
            for definition, profile in row.profiles.items():
                for name in PROFILE_ARRAYS:
                    arrays[f"{number}/{unit}/{definition}/{name}"] = getattr(profile, name)
        overview = units[0].overview
        if overview is not None:
            for name in OVERVIEW:
                arrays[f"{number}/{name}"] = getattr(overview, name)
    return arrays


def unpack_rows(arrays: Mapping[str, NDArray[Any]], provenance: Sequence[Provenance]) -> Iterator[tuple[Row, ...]]:
    """Yield the rows of each image, as given to `pack_rows`; raise `ValueError` for invalid records."""
    for number, units in enumerate(json.loads(arrays["records"].tobytes())):
        overview = None
        if f"{number}/{OVERVIEW[0]}" in arrays:
            overview = Overview(*(arrays[f"{number}/{name}"] for name in OVERVIEW))
        rows = []
        for unit, record in enumerate(units):
            image = record_of(record)
            kept = provenance[unit].definitions if image.status == "ok" else ()
            profiles = {
                definition: Profile(*(arrays[f"{number}/{unit}/{definition}/{name}"] for name in PROFILE_ARRAYS))
                for definition in kept
            }
            rows.append(Row(image, profiles, overview))
        yield tuple(rows)
