"""Opening of an explorer: networks, images and ERF files on one page."""

import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from erf.building import Model, Network
from erf.building.network import Warn, warn_of_assumption
from erf.engine.one_unit import Images, network_for
from erf.errors import InputError
from erf.explorer.given import Given
from erf.explorer.pictures import Pictures
from erf.explorer.running import Explorer
from erf.explorer.session import Session, check_same_images, pick_memory
from erf.explorer.stored import StoredField
from erf.explorer.subject import Subject
from erf.images import PHANTOM, Framing, ImageSet, choose_images, list_images
from erf.images.size import Size
from erf.network.devices import pick_device
from erf.storage import load

_PHANTOMS = 8
"""Phantoms that are shown where no number is given."""


def explore(
    model: Model | Sequence[Model] | None = None,
    images: Images = PHANTOM,
    *,
    files: str | Path | Sequence[str | Path] = (),
    n: int | None = None,
    weights: str | Path | None = None,
    size: Size | None = None,
    model_args: Mapping[str, Any] | None = None,
    trust: bool = False,
    normalisation: str = "",
    fit: str = "",
    interpolation: str = "",
    image_seed: int = 0,
    allow_outside: bool = False,
    seed: int | None = None,
    device: str = "auto",
    memory: float | None = None,
    port: int = 0,
    token: str = "",
    open_browser: bool | None = None,
    warn: Warn = warn_of_assumption,
) -> Explorer:
    """Open a page on this machine that shows what a network sees: click a pixel, and see the field of the unit there.

    Each image is passed through the network once, and its graph is kept, so that a click takes a backward pass only;
    fields that are small are computed on a crop. The first field of each layer is compared with the plain computation.
    Nothing leaves the machine: the server listens on 127.0.0.1 alone, and its address contains a secret.

    Args:
        model: network, or several to compare, as for `erf.compute`; None to look at files alone.
        images: as for `erf.compute`; all images of a folder or manifest are shown, in its order.
        files: ERF files whose maps are shown beside.
        n: number of images, drawn at random from a folder or manifest, or of phantoms.
        weights: as for `erf.compute`, for all networks that are built.
        size: (height, width) of the input in pixels, or the side of a square; None for that of the network.
        model_args: options of the networks.
        trust: whether an archive `file.pt2`, which is code, may be opened.
        normalisation: as for `erf.compute`, as are the next two.
        fit: see there.
        interpolation: see there.
        image_seed: seed of the draw of images and of phantoms.
        allow_outside: whether a manifest may name files outside its own folder.
        seed: seed of untrained weights and of random numbers that a network draws.
        device: 'cpu', 'cuda', 'mps' or 'auto'.
        memory: gigabytes that the graph of an image may take; None for half of what is free, 0 to keep none.
        port: port of this machine; 0 for a free one.
        token: secret in the address, by which bookmarks stay valid; '' for a random one.
        open_browser: whether to open the page in the browser; None for outside of notebooks only.
        warn: called with one line where a value is assumed.

    Returns:
        The running explorer, with its address `url`; `stop` ends it, and in a notebook it shows itself as a frame.

    Raises:
        ErfError: a network, image source or file cannot be used, or the port is taken.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> with erf.explore(model, size=(64, 48), n=2, device="cpu", open_browser=False) as explorer:
        ...     explorer.url.startswith("http://127.0.0.1:")
        True
    """
    models: list[Any] = [] if model is None else list(model) if isinstance(model, list | tuple) else [model]
    paths = [files] if isinstance(files, str | Path) else list(files)
    if not models and not paths:
        raise InputError("neither a network nor a file; expected one of them to explore")
    where = pick_device(device)
    subjects = []
    for each in models:
        network, found = network_for(
            each, images, weights=weights, seed=seed, size=size, model_args=model_args, trust=trust,
            normalisation=normalisation, scaling=fit or interpolation, warn=warn,
        )  # fmt: skip
        framing = network.framing(normalisation, fit, interpolation, source=images if isinstance(images, str) else "")
        chosen = _chosen(found, network, framing, n, image_seed, allow_outside)
        budget = pick_memory(memory, where) // len(models)
        given = Given(
            model=each if isinstance(each, str) else "",
            is_built=isinstance(each, nn.Module | Network),
            weights=str(weights or ""),
            trust=trust,
            source=str(images) if isinstance(images, str | Path) else "",
            is_array=not isinstance(images, str | Path | ImageSet),
            image_seed=image_seed,
            normalisation=normalisation,
            fit=fit,
            interpolation=interpolation,
            allow_outside=allow_outside,
        )
        subjects.append(Subject(network, Pictures(chosen), where, budget, given, network.seed))
    check_same_images(subjects)
    stored = [StoredField(Path(path), load(path)) for path in paths]
    in_notebook = _is_notebook()
    session = Session(subjects, stored)
    try:
        explorer = Explorer(session, port, token, in_notebook)
    except BaseException:
        session.close()
        raise
    if open_browser or (open_browser is None and not in_notebook):
        webbrowser.open(explorer.url)
    return explorer


def _is_notebook() -> bool:
    """Whether this is the kernel of a notebook, rather than a program that has its packages loaded."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


def _chosen(
    given: ImageSet | str | Path, network: Network, framing: Framing, n: int | None, seed: int, allow_outside: bool
) -> ImageSet:
    """Choose the images: all of a folder or manifest, in its order, unless a number of them was asked for."""
    if isinstance(given, ImageSet):
        return given
    inputs = network.arguments.names
    if n is None and given != PHANTOM:
        return ImageSet.of(list_images(given, allow_outside, inputs), framing)
    count = _PHANTOMS if n is None else n
    return choose_images(given, framing, n=count, seed=seed, inputs=inputs, allow_outside=allow_outside)
