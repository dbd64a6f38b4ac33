"""Pictures of ERFs, from results alone: no model, no PyTorch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erf.definitions import DEFAULT_DEFINITION
from erf.errors import InputError
from erf.plotting.coloring import COLOR_MAPS, MAP_SCALES, Coloring
from erf.plotting.panels import SHARES, Comparison, compare
from erf.results import ERF, shared_definition
from erf.storage import as_erf
from erf.storage.files import check_free, complete_file

__all__ = ["COLOR_MAPS", "MAP_SCALES", "SUFFIXES", "Coloring", "Comparison", "compare", "plot"]

LAYOUT_NAMES = (
    *("overview", "paper", "paper-curves", "differences", "contours", "radial", "growth", "convergence", "ranks"),
)

SUFFIXES = (".png", ".svg", ".pdf", ".html")


def plot(
    erfs: ERF | str | Path | Sequence[ERF | str | Path],
    path: str | Path | None = None,
    *,
    definition: str = "",
    subsets: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    scale: str = "log",
    colors: str = "",
    clip: tuple[float, float] | None = None,
    joint_scale: bool = False,
    shares: Sequence[float] = SHARES,
    layout: str = "overview",
    interactive: bool = False,
    overwrite: bool = False,
) -> Any:
    """Draw ERFs: per subset each map, and the curves across rows and columns with their square roots.

    Args:
        erfs: One ERF, or several of one input size, which are laid over each other; or their files.
        path: PNG, SVG or PDF for a picture, HTML for an interactive page in one file; None to return the figure.
        definition: Definition of the maps; '' for the one that the first ERF shows by default.
        subsets: Names of one or more subsets; None for those that all ERFs have.
        labels: Labels of the ERFs; their titles if None.
        scale: Scale of the maps' colours: 'log', 'sqrt', 'linear', 'log1p' for log10(1 + map) over its maximum as in
            the figures of RepLKNet, or a power such as 'power:0.2' as in those of VMamba. This and the next three
            are for the layout 'overview'; the others have their own.
        colors: Colour map: 'viridis', 'magma', 'gray', 'RdYlGn', 'coolwarm' or 'RdBu_r'; '' for viridis, and for
            RdBu_r if maps have negative values.
        clip: Percentiles of a map's pixels, such as (1, 99.5), below and above which colours do not change.
        joint_scale: Whether all maps have one scale, of the share of the mass per pixel (with 'log1p' of the map
            itself), instead of each its own.
        shares: Shares of the mass that the layout 'contours' draws, up to four.
        layout: 'overview', 'paper' and 'paper-curves' (Tables 1 and A2 of the HCT paper), 'differences', 'contours' of
            equal mass over the mean image, 'radial' profiles, 'growth' over the layers of a network, 'convergence'
            of measures with the number of images, or 'ranks' of networks if their gradients are multiplied by a
            number, of any input sizes.
        interactive: Whether to return a figure of plotly, without a path.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The path, or a figure of matplotlib or plotly, which shows itself in a notebook.

    Raises:
        InputError: The ERFs cannot be drawn together, or an option is not known.
        OutputError: The path cannot be written.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> result = erf.compute(model, images, layer="1", device="cpu", progress=False)
        >>> erf.plot([result], "maps.png").name
        'maps.png'
        >>> len(erf.plot(result, subsets=["left", "right"]).axes)  # a map and four curves each, and a colour bar
        11
    """
    suffix = Path(path).suffix.lower() if path is not None else ".html" if interactive else ".png"
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: suffix '{suffix}' not known; expected one of {', '.join(SUFFIXES)}")
    is_page = suffix == ".html"
    if layout not in LAYOUT_NAMES or (layout != "overview" and is_page):
        found = f"layout '{layout}' of an HTML page" if layout in LAYOUT_NAMES else f"layout '{layout}'"
        raise InputError(f"{found} not known; expected one of {', '.join(LAYOUT_NAMES)}, in HTML overview only")
    coloring = Coloring(scale, colors, clip, joint_scale)
    if layout != "overview" and coloring != Coloring(scale):
        raise InputError(f"layout '{layout}' has its own colours; colours, clipping and a joint scale are of overview")
    several = [as_erf(each) for each in ([erfs] if isinstance(erfs, ERF | str | Path) else erfs)]
    shown = definition or (shared_definition(several) if several else DEFAULT_DEFINITION)
    comparison = compare(several, labels, shown, subsets, coloring, shares, any_size=layout == "ranks")
    if path is None:
        return _page_figure(comparison) if interactive else _figure(comparison, layout)
    check_free(Path(path), overwrite)
    with complete_file(Path(path)) as part:
        _save(comparison, part, layout)
    return Path(path)


# The drawing libraries take a second to import, and each is needed for its own kind of picture only.


def _figure(comparison: Comparison, layout: str) -> Any:
    from erf.plotting.layouts import LAYOUTS
    from erf.plotting.saving import literal

    return literal(LAYOUTS[layout](comparison))


def _page_figure(comparison: Comparison) -> Any:
    from erf.plotting.page import interactive_figure

    return interactive_figure(comparison)


def _save(comparison: Comparison, path: Path, layout: str) -> None:
    if path.suffix.lower() == ".html":
        from erf.plotting.page import draw_page

        path.write_text(draw_page(comparison), encoding="utf-8")
    else:
        from erf.plotting.layouts import LAYOUTS
        from erf.plotting.saving import save_figure

        save_figure(LAYOUTS[layout](comparison), path)
