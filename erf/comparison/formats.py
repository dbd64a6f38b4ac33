"""Text formats of a comparison: for terminals, papers, pages and programs."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from textwrap import fill
from typing import TYPE_CHECKING, Any

from erf.text import (
    for_csv,
    for_html,
    for_latex,
    for_markdown,
    format_p,
    html_table,
    markdown_table,
    one_line,
    text_table,
)
from erf.uncertainty import METHODS, Interval
from erf.uncertainty.resampling import CORRECTION

if TYPE_CHECKING:
    from erf.comparison.table import ComparisonTable, Entry

_LINE = 100
"""Characters of a line in a terminal."""

_SMALLEST, _SMALLEST_HALF = 1e-2, 1e-5
"""Value, and half width of an interval, below which numbers may have an exponent."""

Rows = tuple[list[str], list[list[str]]]
"""Column headers, and rows of cells."""


def value_rows(table: "ComparisonTable", millimetres: bool = False) -> Rows:
    """Measures with intervals: one row per measure, one column per ERF; p values of sides where there are any."""
    rows = []
    for measure in table.measures:
        cells = []
        for index in range(len(table.erfs)):
            factor, unit = table.shown(index, measure, millimetres)
            entry = table.entries[index][measure.name]
            side = f", p {format_p(entry.side_p)}" if math.isfinite(entry.side_p) else ""
            cells.append(format_interval(entry.interval, factor) + side)
        rows.append([measure.name, measure.description, unit, *cells])
    for name in table.area_ratios[0]:
        words = f"RepLKNet's area ratio at {name.removeprefix('replknet')} %; changes with the gradient's scale"
        cells = [format_number(100 * ratios[name]) for ratios in table.area_ratios]
        rows.append([name, words, "%", *cells])
    return ["measure", "meaning", "unit", *table.labels], rows


def difference_rows(table: "ComparisonTable", millimetres: bool = False) -> Rows:
    """Differences to the first ERF with intervals and corrected p values: one row per measure."""
    rows = []
    for measure in table.measures:
        cells = []
        for index in range(1, len(table.erfs)):
            factor, unit = table.shown(index, measure, millimetres)
            entry = table.entries[index][measure.name]
            is_shown = table.has_common_scale(index, measure, millimetres)
            cells.append(_format_difference(entry, factor) if is_shown else "other spacing")
        rows.append([measure.name, unit, *cells])
    return ["measure", "unit", *(f"{label} − {table.labels[0]}" for label in table.labels[1:])], rows


def _format_difference(entry: "Entry", factor: float) -> str:
    if entry.difference is None or not math.isfinite(entry.difference.value):
        return "–"
    words = format_interval(entry.difference, factor, sign="+")
    return f"{words}, p {format_p(entry.adjusted_p)}" if math.isfinite(entry.adjusted_p) else words


def format_interval(interval: Interval, factor: float = 1.0, sign: str = "") -> str:
    """A value and its interval to two digits of the latter's half width, such as 412 [401, 420]."""
    value, low, high = (factor * edge for edge in (interval.value, interval.low, interval.high))
    if not math.isfinite(value):
        return "–"
    if not (math.isfinite(low) and math.isfinite(high)):
        return format_number(value, sign)
    value, low, high = value + 0.0, low + 0.0, high + 0.0  # no minus before 0
    half = (high - low) / 2
    if max(half, abs(value)) < _SMALLEST or 0 < half < _SMALLEST_HALF:
        return f"{value:{sign}.4g} [{low:{sign}.4g}, {high:{sign}.4g}]"
    decimals = 3 if half <= 0 else max(0, 1 - math.floor(math.log10(half)))
    return f"{value:{sign},.{decimals}f} [{low:{sign},.{decimals}f}, {high:{sign},.{decimals}f}]"


def format_number(value: float, sign: str = "") -> str:
    """A number to four digits."""
    return "–" if not math.isfinite(value) else f"{value:{sign}.4g}"


def caption(table: "ComparisonTable") -> str:
    """Description of the statistical methods, with notes."""
    return " ".join([describe_methods(table), *(f"Note: {note}." for note in table.notes)])


def describe_methods(table: "ComparisonTable") -> str:
    """Description of the statistical methods, in a sentence or two."""
    resampling = table.resampling
    counts = " / ".join(map(str, dict.fromkeys(table.images)))
    lines = [
        f"Subset {table.subset}, definition {table.definition}, {counts} images. In brackets: "
        f"{100 * resampling.level:g} % {METHODS[resampling.method]} intervals over {table.units}. Behind left-right "
        f"measures: p of a permutation test of sides ({resampling.resamples} draws, seed {resampling.seed})."
    ]
    if len(table.erfs) > 1:
        lines.append(f"p values of differences: jackknife-t, two-sided, corrected by {CORRECTION}.")
    return " ".join(lines)


def to_markdown(table: "ComparisonTable", millimetres: bool = False) -> str:
    """Markdown pipe tables."""
    parts = [markdown_table(*value_rows(table, millimetres))]
    if len(table.erfs) > 1:
        parts.append(markdown_table(*difference_rows(table, millimetres)))
    return "\n\n".join([*parts, for_markdown(caption(table))]) + "\n"


def to_text(table: "ComparisonTable") -> str:
    """Aligned columns for a terminal."""
    head, rows = value_rows(table)
    parts = [text_table(*_without_meaning(head, rows))]
    if len(table.erfs) > 1:
        parts.append(text_table(*difference_rows(table)))
    return "\n\n".join([*parts, fill(one_line(caption(table)), _LINE)])


def to_html(table: "ComparisonTable") -> str:
    """HTML tables for a notebook."""
    parts = [html_table(*value_rows(table), left=2)]
    if len(table.erfs) > 1:
        parts.append(html_table(*difference_rows(table)))
    return "".join([*parts, f"<p><small>{for_html(caption(table))}</small></p>"])


def _without_meaning(head: list[str], rows: list[list[str]]) -> Rows:
    """Drop the column of meanings, which is as wide as a terminal."""
    return [head[0], *head[2:]], [[row[0], *row[2:]] for row in rows]


def to_latex(table: "ComparisonTable", millimetres: bool = False) -> str:
    """LaTeX tabulars for the package booktabs."""
    parts = [_tabular(*value_rows(table, millimetres), drop=1)]
    if len(table.erfs) > 1:
        parts.append(_tabular(*difference_rows(table, millimetres)))
    return "\n\n".join([*parts, f"% {for_latex(caption(table))}"]) + "\n"


def _tabular(head: list[str], rows: list[list[str]], drop: int | None = None) -> str:
    lines = [[for_latex(cell) for place, cell in enumerate(line) if place != drop] for line in (head, *rows)]
    body = [" & ".join(line) + r" \\" for line in lines]
    columns = "l" * 2 + "r" * (len(lines[0]) - 2)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def records(table: "ComparisonTable", millimetres: bool = False) -> Iterator[dict[str, Any]]:
    """Every number at full precision with its unit: one record per ERF and measure.

    Differences are left out where an ERF and the first have no common unit, as lengths in pixels of other spacings.
    """
    for index, label in enumerate(table.labels):
        common = {
            "label": label,
            "model": table.erfs[index].provenance.model,
            "subset": table.subset,
            "definition": table.definition,
            "images": table.images[index],
            "pixel_spacing_mm": table.spacings[index],
        }
        for measure in table.measures:
            factor, unit = table.shown(index, measure, millimetres)
            has_difference = table.has_common_scale(index, measure, millimetres)
            yield common | _record(measure.name, unit, factor, table.entries[index][measure.name], has_difference)
        for name, ratio in table.area_ratios[index].items():
            yield common | {"measure": name, "unit": "%", "value": 100 * ratio}


def _record(measure: str, unit: str, factor: float, entry: "Entry", has_difference: bool) -> dict[str, Any]:
    interval, difference = entry.interval, entry.difference
    record: dict[str, Any] = {
        "measure": measure,
        "unit": unit,
        "value": factor * interval.value,
        "low": factor * interval.low,
        "high": factor * interval.high,
        "side_p": entry.side_p,
    }
    if difference is not None and has_difference:
        record |= {
            "difference": factor * difference.value,
            "difference_low": factor * difference.low,
            "difference_high": factor * difference.high,
            "p": difference.p,
            "adjusted_p": entry.adjusted_p,
            "paired": difference.paired,
        }
    return record


_COLUMNS = (
    *(
        "label",
        "model",
        "subset",
        "definition",
        "images",
        "pixel_spacing_mm",
        "measure",
        "unit",
        "value",
        "low",
        "high",
    ),
    *("side_p", "difference", "difference_low", "difference_high", "p", "adjusted_p", "paired"),
)


def to_csv(table: "ComparisonTable", millimetres: bool = False) -> str:
    """CSV with one line per ERF and measure, at full precision; empty for missing numbers."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for record in records(table, millimetres):
        writer.writerow({name: "" if _is_nothing(value) else for_csv(value) for name, value in record.items()})
    return out.getvalue()


def to_json(table: "ComparisonTable", millimetres: bool = False) -> str:
    """JSON object with the statistical settings, and one record per ERF and measure; null for missing numbers."""
    content = {
        "level": table.resampling.level,
        "interval": METHODS[table.resampling.method],
        "resamples": table.resampling.resamples,
        "seed": table.resampling.seed,
        "drawn": table.units,
        "correction": CORRECTION,
        "notes": list(table.notes),
        "measures": {
            measure.name: {
                "meaning": measure.description,
                "unit": table.shown(0, measure, millimetres)[1],
                "range": measure.bounds,
                "source": measure.source,
            }
            for measure in table.measures
        },
        "values": [
            {name: None if _is_nothing(value) else value for name, value in record.items()}
            for record in records(table, millimetres)
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _is_nothing(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


FORMATS: dict[str, Callable[["ComparisonTable", bool], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "json": to_json,
    "tex": to_latex,
}


def render(table: "ComparisonTable", kind: str, millimetres: bool = False) -> str:
    """Format a comparison; `kind` is a key of `FORMATS`."""
    return FORMATS[kind](table, millimetres)
