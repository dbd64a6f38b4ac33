"""Merging of ERFs measured in the same way on different images, such as the shards of a run."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from erf.accumulation.moments import Moments
from erf.box import Box
from erf.errors import InputError
from erf.results import ERF, PROVENANCE, ImageRecord, MemorySink, Provenance, Sink, Statistics, unlike, without_input

_MAY_DIFFER = ("shard", "created", "command", "device", "versions", "source", "identity", "crop", "self_check")


def merge(erfs: Sequence[ERF], *, allow_missing: bool = False, sink: Sink | None = None) -> ERF:
    """Merge ERFs of different images, such as the shards of a run, into one.

    Means and variances are merged in double precision (Chan, Golub, LeVeque, Stanford report STAN-CS-79-773). Shards
    store them in double precision, so the result equals that of one run up to rounding.

    Args:
        erfs: one or more results.
        allow_missing: accept an incomplete set of shards.
        sink: destination of the result, by default memory.

    Returns:
        The merged ERF, with images in the order of one run.

    Raises:
        InputError: an image is in two of the results, they were measured differently, or shards are missing.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> parts = [erf.compute(model, images.shard(part, 2), layer="1", device="cpu") for part in (1, 2)]
        >>> erf.merge(parts).count()
        4
    """
    if not erfs:
        raise InputError("nothing to merge: expected at least one ERF")
    _check_alike(erfs)
    _check_shards([erf.provenance.shard for erf in erfs], allow_missing)
    _check_disjoint(erfs)
    sink = MemorySink() if sink is None else sink
    provenance = replace(erfs[0].provenance, shard=(1, 1), **_merged_ways([erf.provenance for erf in erfs]))
    sink.begin(provenance)
    for row in sorted((row for erf in erfs for row in erf.rows()), key=lambda row: _place(row.record)):
        sink.add_image(row.record, row.profiles, row.overview)
    for subset in _subsets(erfs):
        for definition in provenance.definitions:
            members = [erf.statistics(subset, definition) for erf in erfs if subset in erf.subsets]
            sink.add_statistics(subset, definition, reduce(Moments.merge, map(_moments, members)).statistics())
    return sink.result()


def _merged_ways(origins: Sequence[Provenance]) -> dict[str, Any]:
    """Merge crops and self-checks; a part that fell back from the fast way has the same maps, and is reported."""
    crops = [origin.crop for origin in origins]
    tops, lefts, bottoms, rights = zip(*crops, strict=True) if all(crops) else ((),) * 4
    checks = [origin.self_check for origin in origins]
    return {
        "crop": Box(min(tops), min(lefts), max(bottoms), max(rights)) if tops else (),
        "self_check": next((check for check in checks if check.get("result") != "agrees"), checks[0]),
    }


def _place(record: ImageRecord) -> tuple[tuple[str, ...], int]:
    return without_input(record.subsets), record.number  # the images of a case stay together


def _subsets(erfs: Sequence[ERF]) -> list[str]:
    """List the subsets in the order of a single run: by their first image."""
    records = sorted((record for erf in erfs for record in erf.images if record.status == "ok"), key=_place)
    return list(dict.fromkeys(name for record in records for name in record.subsets))


def _moments(statistics: Statistics) -> Moments:
    mean = statistics.mean.astype(np.float64)
    if statistics.count < 2:
        return Moments(statistics.count, mean, np.zeros_like(mean), statistics.draws)
    deviations = statistics.variance.astype(np.float64) * (statistics.count - 1)
    return Moments(statistics.count, mean, deviations, statistics.draws)


def _check_alike(erfs: Sequence[ERF]) -> None:
    names = [name for name in PROVENANCE if name not in _MAY_DIFFER]
    for other in erfs[1:]:
        found = unlike(erfs[0].provenance, other.provenance, names)
        if found:
            raise InputError(f"the files differ in {'; '.join(found)}; expected shards of one run")
        identities = {erfs[0].provenance.identity, other.provenance.identity} - {""}
        if len(identities) > 1:
            raise InputError("the files are of runs with other images or settings; expected shards of one run")


def _check_shards(shards: Sequence[tuple[int, int]], allow_missing: bool) -> None:
    counts = {count for _, count in shards}
    if len(counts) > 1:
        raise InputError(f"found shards of {' and '.join(map(str, sorted(counts)))}; expected shards of one run")
    count = counts.pop()
    missing = sorted(set(range(1, count + 1)) - {number for number, _ in shards}) if count > 1 else []
    if missing and not allow_missing:
        raise InputError(
            f"shards {', '.join(map(str, missing))} of {count} are missing",
            remedy="add them, or ask for `allow_missing`",
        )


def _check_disjoint(erfs: Sequence[ERF]) -> None:
    seen: set[str] = set()
    for erf in erfs:
        keys = {record.id for record in erf.images}
        both = sorted(seen & keys)
        if both:
            raise InputError(
                f"image '{both[0]}' is in two of the files, and so are {len(both) - 1} more; expected each image once"
            )
        seen |= keys
