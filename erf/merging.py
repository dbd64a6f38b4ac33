"""One ERF of several, measured alike on different images: what shards of a run become."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from erf.errors import InputError
from erf.moments import Moments
from erf.result import (
    ERF,
    FOOTPRINT,
    OVERVIEW,
    Footprint,
    ImageRecord,
    MemorySink,
    Overview,
    Sink,
    Statistics,
)

_MAY_DIFFER = ("shard", "created", "command", "device", "versions", "source")


def merge(erfs: Sequence[ERF], *, allow_missing: bool = False, sink: Sink | None = None) -> ERF:
    """Merge ERFs of different images, such as those of `--shard`, to that of all of them.

    Means and variances are merged in double precision (Chan, Golub, LeVeque, Stanford report STAN-CS-79-773); shards
    keep theirs so, and then the result is that of one run but for rounding. Images are in the order of one run. Raises
    `InputError` where an image is in two of them, where they were measured differently, or where shards are missing
    and that was not allowed.
    """
    if not erfs:
        raise InputError("nothing to merge: expected at least one ERF")
    _check_alike(erfs)
    _check_shards([erf.provenance.shard for erf in erfs], allow_missing)
    _check_disjoint(erfs)
    sink = MemorySink() if sink is None else sink
    provenance = replace(erfs[0].provenance, shard=(1, 1))
    sink.begin(provenance)
    overviews = [erf.overview() for erf in erfs]
    footprints = [{name: erf.footprints[name] for name in provenance.definitions} for erf in erfs]
    for owner, row in sorted(
        ((owner, row) for owner, erf in enumerate(erfs) for row in range(len(erf.images))),
        key=lambda place: _place(erfs[place[0]].images[place[1]]),
    ):
        record, overview = erfs[owner].images[row], overviews[owner]
        kept = footprints[owner].items() if record.status == "ok" else ()
        sink.add_image(
            record,
            {name: Footprint(*(getattr(stacked, part)[row] for part in FOOTPRINT)) for name, stacked in kept},
            Overview(*(getattr(overview, part)[row] for part in OVERVIEW)) if overview else None,
        )
    for subset in _subsets(erfs):
        for definition in provenance.definitions:
            members = [erf.statistics(subset, definition) for erf in erfs if subset in erf.subsets]
            sink.add_statistics(subset, definition, _merged(members))
    return sink.result()


def _place(record: ImageRecord) -> tuple[tuple[str, ...], int]:
    return record.subsets, record.number


def _subsets(erfs: Sequence[ERF]) -> list[str]:
    """In the order of a single run: that in which images come to have them."""
    records = sorted((record for erf in erfs for record in erf.images if record.status == "ok"), key=_place)
    return list(dict.fromkeys(name for record in records for name in record.subsets))


def _merged(members: Sequence[Statistics]) -> Statistics:
    moments = reduce(Moments.merge, map(_moments, members))
    return Statistics(
        moments.count,
        moments.mean.astype(np.float32),
        moments.variance.astype(np.float32),
        moments.mean.sum(0),
        moments.mean.sum(1),
        moments.draws,
    )


def _moments(statistics: Statistics) -> Moments:
    mean = statistics.mean.astype(np.float64)
    if statistics.count < 2:
        return Moments(statistics.count, mean, np.zeros_like(mean), statistics.draws)
    deviations = statistics.variance.astype(np.float64) * (statistics.count - 1)
    return Moments(statistics.count, mean, deviations, statistics.draws)


def _check_alike(erfs: Sequence[ERF]) -> None:
    described: list[Mapping[str, str]] = [dict(erf.provenance.described()) for erf in erfs]
    names = {name.replace("_", " ") for name in _MAY_DIFFER}
    for other in described[1:]:
        unlike = [name for name, value in other.items() if name not in names and value != described[0][name]]
        if unlike:
            found = "; ".join(f"{name} {described[0][name]} and {other[name]}" for name in unlike)
            raise InputError(f"the files differ in {found}; expected shards of one run")


def _check_shards(shards: Sequence[tuple[int, int]], allow_missing: bool) -> None:
    counts = {count for _, count in shards}
    if len(counts) > 1:
        raise InputError(f"found shards of {' and '.join(map(str, sorted(counts)))}; expected shards of one run")
    count = counts.pop()
    missing = sorted(set(range(1, count + 1)) - {number for number, _ in shards}) if count > 1 else []
    if missing and not allow_missing:
        raise InputError(
            f"shards {', '.join(map(str, missing))} of {count} are missing; add them, or ask for --allow-missing"
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
