"""Projective field of a pixel of one image, with the network and the image from any source."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erf.building import Model, Network, build_network
from erf.building.network import SMALLER, Warn, warn_of_assumption
from erf.definitions import DEFAULT_DEFINITION, DEFINITIONS
from erf.errors import ImageError, InputError
from erf.gradients.graph import Cancelled, never
from erf.gradients.projective import ProjectiveField, project
from erf.gradients.units import one_channel
from erf.images import ImageSet, read_image
from erf.images.image import Failure, Image, Sample
from erf.images.laterality import laterality_from_name, view_from_name
from erf.images.size import Size
from erf.network.devices import memory_errors
from erf.theory.tracing import blank

ImageSource = str | Path | Image | Sample | NDArray[np.generic] | Tensor


def projective_field(
    model: Model,
    image: ImageSource,
    layer: str = "",
    pixel: tuple[int, int] | None = None,
    *,
    channel: int | str = "all",
    input_name: str = "",
    definition: str = DEFAULT_DEFINITION,
    check: bool = True,
    size: Size | None = None,
    weights: str | Path | None = None,
    seed: int | None = None,
    model_args: Mapping[str, Any] | None = None,
    depth: int = 0,
    trust: bool = False,
    is_cancelled: Cancelled = never,
    warn: Warn = warn_of_assumption,
) -> ProjectiveField:
    """Compute the projective field of a pixel: which units of a layer depend on it, in one image.

    It holds, for every unit of the layer, the derivative of its sum over channels with respect to the pixel: the same
    number that the receptive field of that unit, in this image, has at the pixel. The network is in eval mode, its
    parameters are frozen.

    Args:
        model: name, module, function that returns a module, or network, as for `erf.compute`.
        image: preprocessed pixels (C, H, W) or (H, W); path of an image file, or image of an `ImageSet`, which get the
            network's own preprocessing; or a sample, which has its own.
        layer: name of the layer; '' for the default layer.
        pixel: (y, x) in the frame; None for its centre, (H // 2, W // 2).
        channel: 'all' for the sum over the channels of the layer, or the number of one.
        input_name: the input whose pixel is meant, of a network that takes several; '' for all of them.
        definition: key of `erf.DEFINITIONS`, by which the channels of the input are reduced to the map.
        check: whether to compare with the gradient of a backward pass, and to try another way if it differs.
        size: (height, width) of the input in pixels, or the side of a square; None for that of given pixels, or the
            network's own.
        weights: as for `erf.build_network`.
        seed: seed of untrained weights; None for 0, or that of a network of `build_network`.
        model_args: options of the network.
        depth: slices of a volume, for networks with 3-D convolutions.
        trust: whether an archive `file.pt2`, which is code, may be opened.
        is_cancelled: called before each module; once it returns true, the computation stops.
        warn: called with one line where a value is assumed.

    Returns:
        The field: signed derivatives, the map, and where the units lie in the image.

    Raises:
        ModelError: the network cannot be built.
        ImageError: the image cannot be read or preprocessed.
        InputError: the image does not fit the network, or the pixel lies outside the frame.
        LayerError: the network has no such layer or channel, or no derivative agrees with the gradient.
        InterruptedRunError: `is_cancelled` returned true.
        InsufficientMemoryError: a pass does not fit into memory.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.AvgPool2d(2))
        >>> found = erf.projective_field(model, torch.rand(8, 12), "1", pixel=(4, 6))
        >>> found
        ProjectiveField of pixel 4,6 in layer 1: 4 of 4x6 units see it, by forward mode
        >>> found.signed.shape, found.map.shape, found.box
        ((1, 4, 6), (4, 6), Box(top=-0.5, left=-0.5, bottom=7.5, right=11.5))
    """
    if definition not in DEFINITIONS:
        raise InputError(f"definition '{definition}' not known; expected one of {', '.join(DEFINITIONS)}")
    if size is None and isinstance(image, np.ndarray | Tensor | Sample) and not isinstance(model, Network):
        size = _pixels(image).shape[-2:]  # type: ignore[assignment]
    network = build_network(
        model, weights, seed=seed, size=size, model_args=model_args, depth=depth, trust=trust, warn=warn
    )
    inputs = _inputs(network, image)
    with memory_errors(SMALLER):
        name, traced, _ = network.locate(layer, warn=warn)
        return project(
            network.model, inputs, name, traced, pixel or (network.size[0] // 2, network.size[1] // 2),
            arrange=network.arguments, channel=one_channel(channel, name, traced.feature_shape[0]),
            channels=_channels_of(network, input_name), definition=definition, check=check, seed=network.seed,
            is_cancelled=is_cancelled,
        )  # fmt: skip


def _channels_of(network: Network, input_name: str) -> range | None:
    """Return the channels of the image that belong to one input; None for all."""
    if not input_name:
        return None
    names = network.arguments.names
    if input_name not in names:
        found = f"its inputs are {', '.join(names)}" if names else "it takes a single input"
        raise InputError(f"input '{input_name}' of {network.name}: {found}")
    channels = network.arguments.channels(network.input_shape)[names.index(input_name)]
    return range(channels.start, channels.stop)


def _inputs(network: Network, image: ImageSource) -> Tensor:
    """Return the input (1, C, H, W) of the network, with the dtype and device of its parameters."""
    given = isinstance(image, np.ndarray | Tensor | Sample)
    pixels = _pixels(image) if given else _pixels(_preprocessed(network, image))  # type: ignore[arg-type]
    if len(pixels) == 1 and network.input_shape[0] == network.channels:
        pixels = pixels.expand(network.channels, -1, -1)
    if tuple(pixels.shape) != network.input_shape:
        found, expected = ("x".join(map(str, shape)) for shape in (pixels.shape, network.input_shape))
        raise InputError(f"an image of {found}; {network.name} expects {expected}", remedy="give another `size`")
    if not pixels.isfinite().all():
        raise ImageError("found NaN or infinite pixels, expected finite values only")
    return pixels[None].to(blank(network.model, ()))


def _pixels(image: NDArray[np.generic] | Tensor | Sample) -> Tensor:
    """Return pixels (C, H, W)."""
    pixels = torch.as_tensor(image.pixels if isinstance(image, Sample) else image).detach()
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3:
        raise InputError(f"an image of {pixels.ndim} axes; expected (C, H, W) or (H, W)")
    return pixels


def _preprocessed(network: Network, image: str | Path | Image) -> Sample:
    """Decode and preprocess an image, or all images of a case."""
    taken = image if isinstance(image, Image) else _from_file(Path(image))
    sample = ImageSet.of([taken], network.framing()).sample(taken)
    if isinstance(sample, Failure):
        raise ImageError(sample.reason)
    return sample


def _from_file(path: Path) -> Image:
    return Image(
        path.name, str(path), partial(read_image, path), laterality_from_name(path.stem), view_from_name(path.stem)
    )
