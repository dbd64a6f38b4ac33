"""An interactive page in one file, through plotly: opens from disk and works offline."""

import numpy as np
import plotly.graph_objects as go
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from erf.measures import smooth
from erf.plotting.panels import (
    Comparison,
    caption,
    number_of_images,
    shrink,
    square_root,
)
from erf.text import for_html

Values = NDArray[np.float32]

_MAP_PIXELS = 416
_COLORS = 33
_ROW_HEIGHT = 380
_LINEAR = "share [‰ per px]"
_ROOTED = "√ share [√‰ per px]"


def draw_page(comparison: Comparison) -> str:
    """The page as HTML: maps and curves per subset, zoom, values on hover, linear or square root."""
    figure = interactive_figure(comparison)
    plot = figure.to_html(full_html=False, include_plotlyjs="inline", config={"displaylogo": False})
    return _PAGE.format(
        title=for_html(" and ".join(comparison.labels)),
        caption="<br>".join(for_html(line) for line in caption(comparison).splitlines()),
        scale=comparison.coloring.describe(),
        plot=plot,
    )


def interactive_figure(comparison: Comparison) -> go.Figure:
    """The maps and curves of the page."""
    height, width = comparison.size
    count, rows = len(comparison.erfs), len(comparison.subsets)
    figure = make_subplots(
        rows=rows,
        cols=count + 2,
        column_widths=[width / height] * count + [1.25, 1.25],
        horizontal_spacing=0.05,
        vertical_spacing=0.28 / max(rows, 2),
        subplot_titles=[for_html(title) for subset in comparison.subsets for title in _titles(comparison, subset)],
    )
    curves: dict[int, list[Values]] = {}
    for row, subset in enumerate(comparison.subsets, start=1):
        for index in range(count):
            _add_map(figure, comparison, index, subset, row)
        for column, name in enumerate(("across_rows", "across_columns"), start=count + 1):
            for index in range(count):
                curves |= _add_curve(figure, comparison, index, subset, name, row, column)
    _label_axes(figure, comparison)
    _add_switch(figure, comparison, curves)
    figure.update_layout(
        width=max(900, 300 * count + 2 * 400),
        height=_ROW_HEIGHT * rows + 150,
        margin={"l": 60, "r": 20, "t": 95, "b": 55},
        template="simple_white",
        showlegend=True,
        legend={"orientation": "h", "y": _above(comparison), "yanchor": "bottom", "x": 1, "xanchor": "right"},
    )
    return figure


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Effective receptive field of {title}</title>
<link rel="icon" href="data:,">
<style>
body {{ font-family: system-ui, sans-serif; margin: 1.5rem; color: #222; }}
h1 {{ font-size: 1.3rem; }}
p {{ max-width: 60rem; line-height: 1.5; }}
.plot {{ overflow-x: auto; }}
</style>
</head>
<body>
<h1>Effective receptive field of {title}</h1>
<p>{caption}</p>
<p>Colours of the maps: {scale}; the values are shown on hover. Dashed lines bound a finite theoretical receptive
field; the cross and the dotted line mark the centre of the unit.</p>
<div class="plot">{plot}</div>
</body>
</html>
"""


def _titles(comparison: Comparison, subset: str) -> list[str]:
    title = f"{subset}, {comparison.counted(subset)}"
    maps = [
        f"{label}: {subset}, N = {number_of_images(erf, subset)}"
        for label, erf in zip(comparison.labels, comparison.erfs, strict=True)
    ]
    return [*maps, f"Sum across rows: {title}", f"Sum across columns: {title}"]


def _add_map(figure: go.Figure, comparison: Comparison, index: int, subset: str, row: int) -> None:
    """Add a map on its colour scale."""
    erf = comparison.erfs[index]
    panel = comparison.panels[index, subset]
    small, factor = shrink(panel.map, _MAP_PIXELS)
    block = panel.block * factor
    middle = (block - 1) / 2
    values = comparison.shown(index, subset, small)
    heatmap = go.Heatmap(
        z=np.round(values * 127 + 128 if comparison.signed else values * 255).astype(np.uint8),
        customdata=small,
        x0=middle,
        dx=block,
        y0=middle,
        dy=block,
        colorscale=_color_scale(comparison.coloring.color_map(comparison.signed)),
        zmin=0,
        zmax=255,
        showscale=False,
        hovertemplate="x %{x} px, y %{y} px<br>%{customdata:.2e} of the maximum<extra></extra>",
    )
    figure.add_trace(heatmap, row=row, col=index + 1)
    color = comparison.coloring.mark(comparison.signed)
    box = erf.provenance.field_box()
    if box is not None:
        edges = {"x0": box.left, "x1": box.right, "y0": box.top, "y1": box.bottom}
        line = {"color": color, "dash": "dash", "width": 1}
        figure.add_shape(type="rect", **edges, line=line, fillcolor="rgba(0,0,0,0)", opacity=1, row=row, col=index + 1)
    y, x = erf.provenance.unit_center
    figure.add_annotation(
        x=x, y=y, text="+", showarrow=False, font={"color": color, "size": 16}, row=row, col=index + 1
    )


def _color_scale(name: str) -> list[tuple[float, str]]:
    """A colour map of matplotlib for plotly."""
    places = np.linspace(0, 1, _COLORS)
    return [(place, to_hex(color)) for place, color in zip(places.tolist(), colormaps[name](places), strict=True)]


def _add_curve(
    figure: go.Figure, comparison: Comparison, index: int, subset: str, name: str, row: int, column: int
) -> dict[int, list[Values]]:
    """Add a curve, pale for every pixel and solid for means; returns linear and square-root values by trace."""
    color = comparison.colors[index]
    pixels = getattr(comparison.panels[index, subset], name)
    positions, means = smooth(pixels, comparison.stretch)
    common = {"mode": "lines", "legendgroup": str(index), "name": for_html(comparison.labels[index])}
    pale = go.Scatter(
        y=_compact(pixels),
        line={"color": color, "width": 0.5},
        opacity=0.3,
        hoverinfo="skip",
        showlegend=False,
        **common,
    )
    solid = go.Scatter(
        x=_compact(positions),
        y=_compact(means),
        line={"color": color, "width": 1.8},
        showlegend=bool(row == 1 and name == "across_rows"),
        hovertemplate="%{x:.0f} px: %{y:.4f}",
        **common,
    )
    first = len(figure.data)
    figure.add_traces([pale, solid], rows=row, cols=column)
    _mark_field(figure, comparison, index, 1 if name == "across_rows" else 0, row, column)
    return {first + place: [_compact(y), _compact(square_root(y))] for place, y in enumerate((pixels, means))}


def _compact(values: NDArray[np.floating]) -> Values:
    return values.astype(np.float32)


def _mark_field(figure: go.Figure, comparison: Comparison, index: int, along: int, row: int, column: int) -> None:
    """Dashed lines at the edges of a finite theoretical receptive field, a dotted one at the unit's centre."""
    origin = comparison.erfs[index].provenance
    dotted = {"color": "#777", "dash": "dot", "width": 1}
    figure.add_vline(origin.unit_center[along], line=dotted, opacity=1, row=row, col=column)
    box = origin.field_box()
    if box is not None:
        dashed = {"color": comparison.colors[index], "dash": "dash", "width": 1}
        for edge in box.axes[along]:
            figure.add_vline(edge, line=dashed, opacity=1, row=row, col=column)


def _label_axes(figure: go.Figure, comparison: Comparison) -> None:
    height, width = comparison.size
    count = len(comparison.erfs)
    figure.update_annotations(font_size=12)
    for row in range(1, len(comparison.subsets) + 1):
        for column in range(1, count + 1):
            figure.update_xaxes(title="x [px]", range=[-0.5, width - 0.5], constrain="domain", row=row, col=column)
            axis = figure.get_subplot(row, column).xaxis.plotly_name.replace("axis", "")
            figure.update_yaxes(
                title="y [px]" if column == 1 else None,
                range=[height - 0.5, -0.5],
                scaleanchor=axis,
                constrain="domain",
                row=row,
                col=column,
            )
        for column, (title, length) in enumerate((("x [px]", width), ("y [px]", height)), start=count + 1):
            figure.update_xaxes(title=title, range=[-0.5, length - 0.5], row=row, col=column)
            figure.update_yaxes(title=_LINEAR, rangemode="tozero", row=row, col=column)


def _add_switch(figure: go.Figure, comparison: Comparison, curves: dict[int, list[Values]]) -> None:
    """Buttons that exchange all curves for their square roots and back."""
    traces = list(curves)
    axes = sorted({f"{figure.data[trace].yaxis.replace('y', 'yaxis')}.title.text" for trace in traces})
    buttons = [
        {
            "label": label,
            "method": "update",
            "args": [{"y": [curves[trace][position] for trace in traces]}, dict.fromkeys(axes, title), traces],
        }
        for position, (label, title) in enumerate((("curves: linear", _LINEAR), ("curves: square root", _ROOTED)))
    ]
    menu = {"type": "buttons", "direction": "right", "buttons": buttons, "x": 0, "xanchor": "left"}
    figure.update_layout(updatemenus=[menu | {"y": _above(comparison), "yanchor": "bottom", "showactive": True}])


def _above(comparison: Comparison) -> float:
    """A height just above the titles of the first row, as a share of the plot's height."""
    return 1 + 32 / (_ROW_HEIGHT * len(comparison.subsets))
