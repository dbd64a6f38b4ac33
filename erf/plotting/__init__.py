"""Pictures of ERFs, from results alone: no model, no PyTorch."""

from collections.abc import Sequence
from pathlib import Path

from erf.definitions import DEFAULT_DEFINITION
from erf.errors import InputError
from erf.plotting.panels import MAP_SCALES, Comparison, compare
from erf.results import ERF
from erf.storage.files import check_free, complete_file

__all__ = ["MAP_SCALES", "SUFFIXES", "Comparison", "compare", "plot"]

LAYOUT_NAMES = ("overview", "paper", "paper-curves", "differences", "contours", "radial", "growth", "convergence")

SUFFIXES = (".png", ".svg", ".pdf", ".html")


def plot(
    erfs: ERF | Sequence[ERF],
    path: str | Path,
    *,
    definition: str = DEFAULT_DEFINITION,
    subsets: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    scale: str = "log",
    layout: str = "overview",
    overwrite: bool = False,
) -> Path:
    """Draw ERFs: per subset each map, and the curves across rows and columns with their square roots.

    The suffix of `path` decides: PNG, SVG and PDF are pictures, HTML is an interactive page in one file. Several ERFs
    of one input size are laid over each other. `scale` is that of the maps' colours: 'log', 'sqrt' or 'linear'; the
    other `layouts` have their own: 'paper' and 'paper-curves' (Tables 1 and A2 of the HCT paper), 'differences',
    'contours' of equal mass over the mean image, 'radial' profiles, 'growth' over the layers of a network, and
    'convergence' of measures with the number of images. Raises `InputError` for what cannot be
    drawn together and `OutputError` for a path that cannot be written.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> result = erf.compute(model, images, layer="1", device="cpu")
        >>> erf.plot([result], "maps.png").name
        'maps.png'
    """
    comparison = compare([erfs] if isinstance(erfs, ERF) else erfs, labels, definition, subsets, scale)
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: suffix '{path.suffix}' not known; expected one of {', '.join(SUFFIXES)}")
    if layout not in LAYOUT_NAMES or (layout != "overview" and path.suffix.lower() == ".html"):
        found = f"layout '{layout}' of an HTML page" if layout in LAYOUT_NAMES else f"layout '{layout}'"
        raise InputError(f"{found} not known; expected one of {', '.join(LAYOUT_NAMES)}, in HTML overview only")
    check_free(path, overwrite)
    with complete_file(path) as part:
        _draw(comparison, part, layout)
    return path


def _draw(comparison: Comparison, path: Path, layout: str) -> None:
    # The drawing libraries take a second to import, and each is needed for its own kind of file only.
    if path.suffix.lower() == ".html":
        from erf.plotting.page import draw_page

        path.write_text(draw_page(comparison), encoding="utf-8")
    else:
        from erf.plotting.layouts import LAYOUTS
        from erf.plotting.saving import save_figure

        save_figure(LAYOUTS[layout](comparison), path)
