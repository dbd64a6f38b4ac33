"""The page of an atlas: a table that can be sorted and filtered, in one file that opens without a network."""

import html
import math
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from erf.comparison import Estimate
from erf.measures import Measure
from erf.plotting.coloring import Coloring, Limits
from erf.plotting.thumbnails import gradient, shaded
from erf.report.atlas.entry import Entry
from erf.storage.files import complete_file
from erf.text import for_html, printable

MARK = '<meta name="generator" content="erf atlas">'
"""Mark of a page that an atlas may replace."""

KINDS = {
    "untrained": "random weights", "trained": "trained weights", "imported": "map of another program",
    "failed": "no field",
}  # fmt: skip


def write_page(
    entries: Sequence[Entry], measures: Sequence[Measure], coloring: Coloring, path: Path, title: str
) -> None:
    """Write the page; whatever comes from networks and files is escaped."""
    parts = files("erf.report.atlas")
    template = Template((parts / "page.html").read_text(encoding="utf-8"))
    limits = _joint_limits(entries, coloring) if coloring.joint else None
    pictures = [_picture(each, coloring, limits) for each in entries]
    text = template.substitute(
        mark=MARK,
        title=for_html(title),
        summary=for_html(_summary(entries)),
        colors=for_html(coloring.describe()),
        gradient=gradient(coloring.color_map(signed=False)),
        style=(parts / "page.css").read_text(encoding="utf-8"),
        script=(parts / "page.js").read_text(encoding="utf-8"),
        kinds="".join(f'<option value="{kind}">{words}</option>' for kind, words in _kinds(entries).items()),
        orders="".join(f'<option value="{place}">{for_html(name)}</option>' for place, name in _orders(measures)),
        head="".join(_header(place, name, words) for place, name, words in _columns(measures)),
        rows="\n".join(_row(each, picture, measures) for each, picture in zip(entries, pictures, strict=True)),
        meanings="".join(
            f"<dt>{for_html(each.name)}{_unit(each)}</dt><dd>{for_html(each.description)}</dd>" for each in measures
        ),
    )
    with complete_file(path) as part:
        part.write_text(text, encoding="utf-8")


def _summary(entries: Sequence[Entry]) -> str:
    failed = sum(bool(each.reason) for each in entries)
    images = sorted({each.images for each in entries if each.images is not None})
    counts = " or ".join(map(str, images)) if len(images) < 3 else f"{images[0]} to {images[-1]}"
    definitions = ", ".join(dict.fromkeys(each.definition for each in entries if each.definition))
    words = [f"{len(entries)} networks"]
    words += [f"{failed} without a field, for the reason given"] if failed else []
    words += [f"mean over {counts} images each"] if images else []
    words += [f"definition {definitions}"] if definitions else []
    return f"{'; '.join(words)}."


def _kinds(entries: Sequence[Entry]) -> dict[str, str]:
    found = {each.kind for each in entries}
    return {kind: words for kind, words in KINDS.items() if kind in found}


def _columns(measures: Sequence[Measure]) -> list[tuple[int | None, str, str]]:
    """List place, name and meaning of each column; the place is None where sorting has no meaning."""
    columns: list[tuple[str, str]] = [
        ("network", ""), ("parameters", "number of parameters"),
        ("input [px]", "height x width"), ("theory [px]", "side of the theoretical receptive field"),
        *((f"{each.name}{_unit(each)}", each.description) for each in measures),
    ]  # fmt: skip
    return [(None, "field", ""), *((place, name, words) for place, (name, words) in enumerate(columns, start=1))]


def _orders(measures: Sequence[Measure]) -> list[tuple[int, str]]:
    return [(place, name) for place, name, _ in _columns(measures) if place is not None]


def _unit(measure: Measure) -> str:
    return f" [{measure.unit}]" if measure.unit else ""


def _header(place: int | None, name: str, words: str) -> str:
    if place is None:
        return f'<th scope="col" role="columnheader">{name}</th>'
    hint = f' title="{_quoted(words)}"' if words else ""
    word, bracket, unit = name.partition(" [")
    below = f"<small>{for_html(unit.removesuffix(']'))}</small>" if bracket else ""
    button = f'<button type="button" data-column="{place}"{hint}>{for_html(word)}</button>{below}'
    return f'<th scope="col" role="columnheader" aria-sort="none">{button}</th>'


def _row(entry: Entry, picture: str, measures: Sequence[Measure]) -> str:
    name = f'<th scope="row" role="rowheader" data-value="{_quoted(entry.label)}">{_named(entry)}</th>'
    cells = [_reason(entry, len(measures))] if entry.origin is None else [*_facts(entry), *_numbers(entry, measures)]
    field = f'<td role="cell" class="field">{picture}</td>'
    return f'<tr role="row" data-kind="{entry.kind}">{field}{name}{"".join(cells)}</tr>'


def _named(entry: Entry) -> str:
    words = for_html(entry.label).replace("_", "_<wbr>").replace(".", ".<wbr>")
    origin = entry.origin
    layer = f", layer {origin.layer}" if origin is not None and not origin.imported else ""
    lines = [f"<small>{for_html(entry.weights + layer)}</small>"] if origin is not None else []
    lines += [f'<small class="remark">{for_html(entry.remark)}</small>'] if entry.remark else []
    return words + "".join(lines)


def _reason(entry: Entry, measures: int) -> str:
    return f'<td role="cell" class="reason" colspan="{3 + measures}">{for_html(entry.reason)}</td>'


def _facts(entry: Entry) -> Iterator[str]:
    origin = entry.origin
    assert origin is not None
    height, width = origin.input_shape[1:]
    count = entry.parameters
    yield _cell("parameters", "–" if count is None else _millions(count), "" if count is None else count)
    yield _cell("input [px]", f"{height} × {width}", height * width)
    side = math.sqrt(math.prod(origin.field_size))
    words = f"{side:,.0f}" if math.isfinite(side) else _endless(entry)
    yield _cell("theory [px]", for_html(words), "" if origin.imported else side if math.isfinite(side) else 1e12)


def _endless(entry: Entry) -> str:
    """A theoretical field that is not finite, in words."""
    origin = entry.origin
    if origin is None or origin.field_kind == "unknown":
        return "not known"
    return "data-dependent" if origin.field_kind == "data-dependent" else "everything"


def _numbers(entry: Entry, measures: Sequence[Measure]) -> Iterator[str]:
    for each in measures:
        found = entry.estimates[each.name]
        value = found.value if math.isfinite(found.value) else ""
        yield _cell(f"{each.name}{_unit(each)}", _interval(found), value)


def _interval(found: Estimate) -> str:
    """A value, and below it its interval."""
    value, _, interval = str(found).partition(" [")
    number = value.removesuffix(f" {found.unit}") if found.unit else value
    return for_html(number) + (f"<small>[{for_html(interval)}</small>" if interval else "")


def _cell(name: str, content: str, value: float | str) -> str:
    return f'<td role="cell" data-name="{_quoted(name)}" data-value="{_quoted(str(value))}">{content}</td>'


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k" if count >= 1e4 else str(count)


def _quoted(text: str) -> str:
    """The text within an attribute of an element."""
    return html.escape(printable(text), quote=True)


def _joint_limits(entries: Sequence[Entry], coloring: Coloring) -> Limits:
    values = [_values(each, coloring).ravel() for each in entries if each.origin is not None]
    return coloring.limits(np.concatenate(values)) if values else (0.0, 1.0)


def _values(entry: Entry, coloring: Coloring) -> np.ndarray:
    return entry.mean if coloring.is_absolute else entry.density


def _picture(entry: Entry, coloring: Coloring, limits: Limits | None) -> str:
    """The thumbnail of a field; nothing without one."""
    if entry.origin is None:
        return ""
    values = _values(entry, coloring)
    address = shaded(coloring.shown(values, limits or coloring.limits(values)), coloring.color_map(signed=False))
    words = _quoted(f"field of {entry.label}")
    return f'<img src="{address}" alt="{words}" width="{values.shape[1]}" height="{values.shape[0]}">'
