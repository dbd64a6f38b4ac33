"""Tables for the terminal."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from erf.cli.console import display
from erf.measures import MEASURES, observe
from erf.profiling import CONCURRENT, STAGES, StageTimes
from erf.results import ERF, unit_labels
from erf.storage.series import Series
from erf.text import printable

GROWTH = ("rms_radius", "r50", "r90")
"""Measures that show how a receptive field grows with depth."""

_SCORES = {"validation_auc": "AUC", "validation_mean_iou": "mean IoU"}
"""Display names of a training's validation scores."""


def print_table(title: str, columns: list[str], rows: list[list[str]], left: int = 1) -> None:
    """Print rows under columns; the first `left` columns are text, the others numbers."""
    table = Table(show_lines=any("\n" in cell for row in rows for cell in row))
    for place, column in enumerate(columns):
        table.add_column(Text(printable(column)), justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # a plain string would be parsed as markup
    display(Text(printable(title), style="bold"), table)  # rich would wrap a table's own title to its width


def print_stage_times(times: StageTimes, seconds: float) -> None:
    """Print the time of each stage, of a command that took `seconds` in total."""
    rows = [
        [
            name, words, "in parallel" if name in CONCURRENT else "in turn", str(times.calls[name]),
            f"{times.seconds[name]:.2f}", f"{1000 * times.seconds[name] / times.calls[name]:.1f}",
        ]
        for name, words in STAGES.items()
        if times.calls[name]
    ]  # fmt: skip
    rest = seconds - sum(times.seconds[name] for name in STAGES if name not in CONCURRENT)
    rows.append(["rest", "set-up, waiting for images, picture", "in turn", "", f"{rest:.2f}", ""])
    print_table(f"{seconds:.1f} s in all", ["stage", "what", "runs", "calls", "s", "ms each"], rows, left=3)


def print_subsets(erf: ERF, definition: str) -> None:
    """Print, per subset, the number of images, the centroid, and its shift from the unit's centre."""
    origin = erf.provenance
    y0, x0 = origin.unit_center
    rows = []
    for subset in erf.subsets:
        statistics = erf.statistics(subset, definition)
        # Negative values have no centre of mass.
        y, x = statistics.centroid if definition != "signed" else (math.nan, math.nan)
        rows.append(
            [
                subset,
                "–" if erf.is_mean_only else str(statistics.count),
                _px(x),
                _px(y),
                _px(x - x0, "+"),
                _px(y - y0, "+"),
            ]
        )
    print_table(
        f"{origin.title} ({origin.weights_text}), layer {origin.layer}, definition {definition}: "
        f"centroid of the ERF; the unit's centre is at x {x0:g}, y {y0:g} px",
        ["subset", "images", "x [px]", "y [px]", "shift in x [px]", "shift in y [px]"],
        rows,
    )
    if origin.projections > 1:
        _print_spread(erf, definition)


def print_series(title: str, series: Series) -> None:
    """Print, per epoch, the width of the receptive field and its left-right shift between left and right breasts."""
    has_sides = {"left", "right"} <= set(series.subsets)
    known = {name for moment in series.moments for name in moment.scores}
    scores = {name: words for name, words in _SCORES.items() if name in known}
    rows = []
    for moment in series.moments:
        seen = series.observe(moment, definition=moment.provenance.shown_definition).all()
        names = (*GROWTH, *(("lean",) if has_sides else ()))
        found = [_px(float(MEASURES[name].of(seen))) for name in names]
        shown = [f"{moment.scores[name]:.3f}" if name in moment.scores else "–" for name in scores]
        rows.append([str(moment.epoch), moment.stage or Path(moment.provenance.weights).stem, *found, *shown])
    columns = [*(f"{name} [px]" for name in GROWTH), *(("lean [px]",) if has_sides else ())]
    first = series.moments[0].provenance
    print_table(
        f"{title}: {first.title}, {first.target}, {len(series.images)} images, definition {first.shown_definition}",
        ["epoch", "stage", *columns, *scores.values()],
        rows,
        left=2,
    )


def print_growth(erfs: Sequence[ERF], definition: str) -> None:
    """Print, per layer, the stride, the theoretical receptive field, and the measures of the effective one."""
    rows = []
    names = unit_labels([erf.provenance for erf in erfs])
    for erf, name in zip(erfs, names, strict=True):
        origin, seen = erf.provenance, None if definition == "signed" else observe(erf, definition=definition).all()
        values = [] if seen is None else [float(MEASURES[measure].of(seen)) for measure in GROWTH]
        field = " × ".join("∞" if math.isinf(length) else f"{length:.0f}" for length in origin.field_size)
        stride = " × ".join(f"{step:g}" for step in dict.fromkeys(origin.field_stride))
        rows.append([name, stride, field, *(_px(value) for value in values)])
    origin = erfs[0].provenance
    print_table(
        f"{origin.title} ({origin.weights_text}), definition {definition}: "
        + (f"growth over {len(erfs)} layers" if names[0] == origin.layer else f"{len(erfs)} units of {origin.layer}")
        + f", in pixels; mean of {erfs[0].count()} images",
        [
            "layer" if names[0] == origin.layer else "unit",
            "stride",
            "theoretical field",
            *([] if definition == "signed" else GROWTH),
        ],
        rows,
    )


def _print_spread(erf: ERF, definition: str) -> None:
    spreads = [(subset, erf.statistics(subset, definition).spread()) for subset in erf.subsets]
    rows = [
        [subset, _px(spread.centroid[1]), _px(spread.centroid[0]), f"{100 * spread.total_variation:.1f}"]
        for subset, spread in spreads
        if spread is not None
    ]
    print_table(
        f"spread over {erf.provenance.projections} random projections: standard deviation of the centroid, and the "
        "share of its mass that one draw has elsewhere than the mean of all",
        ["subset", "x [px]", "y [px]", "elsewhere [%]"],
        rows,
    )


def _px(value: float, sign: str = "") -> str:
    return "–" if math.isnan(value) else f"{value:{sign}.1f}"
