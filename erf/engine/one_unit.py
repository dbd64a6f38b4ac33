"""The ERF of one unit in one call: the network and the images from any source, in memory or in a file."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from erf.building import Model, Network, build_network, own_normalisation
from erf.building.network import Warn, warn_of_assumption
from erf.building.weights import code_digest, state_digest, structure_digest
from erf.definitions import DEFAULT_DEFINITION
from erf.engine.api import compute_layers
from erf.engine.file_run import FileRun, identify, identity_digest
from erf.engine.settings import Settings
from erf.errors import ImageError, ImageWarning, InputError
from erf.gradients.units import CENTER, UnitChoice
from erf.images import PHANTOM, Image, ImageSet, Progress, ProgressReport, choose_images, from_arrays
from erf.images.size import Size, as_size
from erf.network.inputs import Arguments
from erf.process import StopRequest
from erf.results import ERF, MemorySink, Origin, Sink
from erf.storage import SUFFIXES, load
from erf.storage.outputs import check_outputs
from erf.storage.staging import Staging
from erf.text import as_names
from erf.uncertainty import StoppingRule

Images = str | Path | ImageSet | Sequence[NDArray[np.generic] | Tensor] | NDArray[np.generic] | Tensor


def compute(
    model: Model,
    images: Images = PHANTOM,
    *,
    n: int = 100,
    layer: str = "",
    weights: str | Path | None = None,
    size: Size | None = None,
    model_args: Mapping[str, Any] | None = None,
    trust: bool = False,
    image_seed: int = 0,
    normalisation: str = "",
    fit: str = "",
    interpolation: str = "",
    unit: UnitChoice = CENTER,
    channel: int | str = "all",
    aligned: bool = False,
    activation: str = "none",
    method: str = "gradient",
    method_options: Mapping[str, Any] | None = None,
    arguments: Arguments | None = None,
    definitions: Sequence[str] = (DEFAULT_DEFINITION,),
    subset_by: Sequence[str] = (),
    projections: int = 1,
    seed: int | None = None,
    precision: str = "float32",
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    deterministic: bool = False,
    strict: bool = False,
    until: StoppingRule | float | None = None,
    crop: bool = True,
    self_check: bool = True,
    allow_rounding: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    origin: Origin | Mapping[str, Any] | None = None,
    sink: Sink | None = None,
    scratch: Path | None = None,
    progress: bool | Progress | None = True,
) -> ERF:
    """Compute the effective receptive field of one unit: statistics over images of its input gradient.

    Follows Luo et al. (NIPS 2016): a gradient of 1 on all channels of the unit, zero elsewhere, is back-propagated to
    the input, with the model in eval mode and its parameters frozen. The signed gradient (C, H, W) of each image
    becomes a map (H, W) under each of the `definitions`. Mean and variance over images are computed for the subsets
    `all`, `left` and `right` and, for each column in `subset_by`, `column=value`.

    Args:
        model: name as on the command line ('gmic', 'timm:NAME', 'file.py:factory', …), module, function that returns a
            module, or a network of `build_network`. A module is moved to `device`.
        images: folder, manifest CSV or 'phantom'; arrays (C, H, W) of one shape; or a set of `load_images` or
            `from_arrays`, whose own settings hold.
        n: number of images drawn from a folder or manifest, or of phantoms; all arrays are used.
        layer: path of the module whose output (N, C, h, w) holds the unit; '' for the default layer, `output` for the
            model's own output, and `layer:key` where a module returns several tensors.
        weights: file, 'shipped', 'none' or `timm:TAG`; None for shipped weights if there are any.
        size: (height, width) of the input in pixels, or the side of a square; None for that of images or network.
        model_args: options of the network.
        trust: whether an archive `file.pt2`, which is code, may be opened.
        image_seed: seed of the draw of images and of phantoms.
        normalisation: key of `erf.images.NORMALISATIONS`, MEAN/STD, or 'auto'; '' for the network's own, and none for
            arrays given to a module or a function.
        fit: key of `erf.images.FITS`, how images of a folder are brought to the size of the input; '' for the network's
            own.
        interpolation: key of `erf.images.INTERPOLATIONS`; '' for the network's own.
        unit: 'center' for (h // 2, w // 2), (y, x) in the layer's map, or any other `UnitChoice`.
        channel: 'all', the number of one channel, or 'signs' for random signs, whose squares estimate the sum of
            squares of all channels without bias.
        aligned: average the maps of several units, shifted so that the units coincide; maps of units that differ
            between images are always aligned.
        activation: function of the unit's channels of which the gradient is taken: 'relu', 'sigmoid' or 'softmax', for
            probabilities; of a window, 'edges' is the sum of the magnitudes of its gradient.
        method: one of `METHODS`, by default the gradient.
        method_options: options of the method.
        arguments: how an image is passed to the model; None to infer it.
        definitions: one or more of `DEFINITIONS`; they share the pass, and each adds two maps to memory and file.
        subset_by: columns of the manifest; each distinct value defines a subset.
        projections: number of draws of the model's random projections; each map is the mean over the draws, and each
            draw takes a pass.
        seed: seed of untrained weights, random signs, random projections and random numbers that the network draws;
            None for 0, or that of a network of `build_network`.
        precision: 'float32', the model's own precision, or 'bfloat16' for convolutions and matrix products in half of
            it; the file then records how much the gradient on noise differs.
        device: 'cpu', 'cuda', 'mps' or 'auto'.
        batch_size: images per pass; None for as many small images as make a pass efficient, or a single large one. If
            memory runs out, images go one by one.
        workers: threads that decode ahead; None for one on a CPU and four with a GPU.
        deterministic: use only algorithms that give the same bits each time.
        strict: stop at the first image that cannot be used, instead of skipping it.
        until: stop as soon as a measure is known to this precision, such as 0.02 for an interval of r50 with a half
            width of 2 % of the value; by default all images are used.
        crop: where the theoretical receptive field is finite, feed the network only the part of the image that
            contains it; the gradient is the same and takes less time.
        self_check: compare, on the first image, the fast way of computing with the plain one, and fall back to a slower
            one where they differ by more than rounding; a `SelfCheckWarning` and the file report it.
        allow_rounding: whether to compute the gradient of channels that sum to a constant, as behind an untrained
            layer norm: it is rounding alone.
        output: HDF5 file that the result is written to; progress is kept next to it, and an interrupted run goes on
            with `resume`. By default, the result is kept in memory.
        overwrite: whether `output` may replace a file, and discard the progress of an interrupted run.
        resume: continue the interrupted run of the same call; a finished one is loaded.
        origin: facts for the record, or further ones; by default those of the network and the images.
        sink: destination of the results, instead of `output`.
        scratch: folder for temporary files of sums, by default that of `output`, else the system's.
        progress: whether to show progress, or a function that is called with a stage (`images`, then `maps`), the
            number done, and the total.

    Returns:
        The ERF with its maps by subset and definition, the records of all images, and the provenance. An `ImageWarning`
        sums up remarks on images, such as those with a gradient that is zero everywhere.

    Raises:
        ModelError: the network cannot be built.
        LayerError: the layer or unit does not exist, or yields no map, or its channels sum to a constant.
        ImageError: with `strict`, an image cannot be used; without, all of them cannot.
        InsufficientMemoryError: the run does not fit into memory.
        InputError: settings, images and model do not fit together.
        OutputError: a file cannot be written, or exists.
        InterruptedRunError: the run was interrupted, and its progress is kept, with `output`.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> result = erf.compute(model, "phantom", n=4, size=(64, 48), layer="1", device="cpu", progress=False)
        >>> result.provenance.field_size  # each of two convolutions adds a pixel on each side
        (5.0, 5.0)
        >>> result["left"].mean.shape
        (64, 48)
    """
    if output is not None and sink is not None:
        raise InputError("`output` and `sink` at once; expected one of them")
    if output is not None:
        check_outputs([Path(output)], SUFFIXES)
    network, given = network_for(
        model, images, weights=weights, seed=seed, size=size, model_args=model_args, trust=trust,
        normalisation=normalisation, scaling=fit or interpolation,
    )  # fmt: skip
    rule = None if until is None else StoppingRule.of(until)
    settings = Settings(
        unit=unit, channel=channel, aligned=aligned, activation=activation, method=method,
        method_options=method_options,
        arguments=arguments or network.arguments, definitions=as_names(definitions), subset_by=as_names(subset_by),
        projections=projections, seed=network.seed if seed is None else seed, precision=precision, device=device,
        batch_size=batch_size, workers=workers,
        deterministic=deterministic, strict=strict, until=rule, crop=crop, self_check=self_check,
        allow_rounding=allow_rounding,
    )  # fmt: skip
    with _display(progress, network.name) as report:
        source = str(given) if isinstance(given, str | Path) else ""
        framing = network.framing(normalisation, fit, interpolation, source=source)
        chosen = given if isinstance(given, ImageSet) else choose_images(
            given, framing, n=n, seed=image_seed, inputs=network.arguments.names, progress=report
        )  # fmt: skip
        if not isinstance(origin, Origin):
            origin = network.origin(**{"image_seed": image_seed, "source": source} | dict(origin or {}))
        taken = layer or network.layers()[0]
        if output is not None:
            staging = Staging([Path(output)], overwrite, resume)
            found = _compute_file(staging, network, chosen, taken, settings, origin, report)
        else:
            (found,) = compute_layers(
                network.model, chosen, [taken], settings, origin=origin, sinks=[sink or MemorySink()], scratch=scratch,
                progress=report,
            )  # fmt: skip
    for remark in found.remarks:
        warnings.warn(remark, ImageWarning, stacklevel=2)
    return found


def network_for(
    model: Model,
    images: Images,
    *,
    weights: str | Path | None = None,
    seed: int | None = None,
    size: Size | None = None,
    model_args: Mapping[str, Any] | None = None,
    trust: bool = False,
    normalisation: str = "",
    scaling: str = "",
    warn: Warn = warn_of_assumption,
) -> tuple[Network, ImageSet | str | Path]:
    """Build a network for images; arrays and sets of images have a size, which is that of its input.

    Args:
        model: as for `compute`, as are all that are not explained.
        images: see there.
        weights: see there.
        seed: see there.
        size: see there.
        model_args: see there.
        trust: see there.
        normalisation: see there.
        scaling: how images would be scaled, which arrays and sets are not.
        warn: called with one line where a value is assumed.

    Returns:
        The network, and the images: a set of them, or a source from which they are chosen.

    Raises:
        ModelError: the network cannot be built.
        InputError: images and options do not fit together.
    """
    given = images if isinstance(images, ImageSet | str | Path) else _of_arrays(images, model, normalisation)
    side = None if size is None else as_size(size)
    if isinstance(given, ImageSet):
        side = _size_of(given, side, scaling)
        if isinstance(model, nn.Module) and weights is None and not model_args:
            return Network.of_module(model, given.shape), given
    network = build_network(model, weights, seed=seed, size=side, model_args=model_args, trust=trust, warn=warn)
    return network, given


def _compute_file(
    staging: Staging,
    network: Network,
    images: ImageSet,
    layer: str,
    settings: Settings,
    origin: Origin,
    progress: Progress | None,
) -> ERF:
    """Compute the only output of a staging area, or load it if it is finished."""
    (path,) = staging.outputs
    identity = identify(settings, _facts(network, images, layer))
    with StopRequest() as stop, staging:
        staging.begin(identity)
        run = FileRun(staging, [path], images, replace(origin, identity=identity_digest(identity)))
        if not run.is_finished():
            run.compute(network.model, [layer], settings, progress=progress, stop=stop)
        staging.publish()
    return load(path)


def _facts(network: Network, images: ImageSet, layer: str) -> dict[str, Any]:
    """Return what determines the result besides the settings."""
    return {
        "model": network.name,
        "code": code_digest(network.name),
        "structure": structure_digest(network.model),
        "parameters": state_digest(network.model),
        "model options": network.options,
        "layer": layer,
        "images": images.digest,
        "contents of arrays": [_content(image) for image in images.images if image.path.startswith("array:")],
        "preprocessing": asdict(images.framing),
        "shard": images.part,
    }


def _content(image: Image) -> str:
    try:
        return image.decode().sha256
    except ImageError:
        return "not usable"


def _size_of(images: ImageSet, size: tuple[int, int] | None, fit: str) -> tuple[int, int]:
    """Return the (height, width) of a set of images; raise `InputError` if another one was asked for."""
    _, height, width = images.shape
    if size is not None and tuple(size) != (height, width):
        raise InputError(f"images of {height}x{width} and a size of {size[0]}x{size[1]}; expected one of them")
    if fit:
        raise InputError("arrays and sets of images are not scaled", remedy="give `fit` to `load_images`")
    return height, width


def _of_arrays(arrays: Any, model: Model, normalisation: str) -> ImageSet:
    """Return the image set of arrays or tensors (C, H, W)."""
    if isinstance(arrays, nn.Module) or not hasattr(arrays, "__iter__"):
        raise InputError(
            f"images of type {type(arrays).__name__}; expected a folder, a manifest, 'phantom', arrays (C, H, W), or a "
            "set of `load_images` or `from_arrays`"
        )
    found = [_numpy(array) for array in arrays]
    return from_arrays(found, normalisation=normalisation or own_normalisation(model) or "none")


def _numpy(array: Any) -> NDArray[np.generic]:
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        return np.asarray(array.float() if array.dtype == torch.bfloat16 else array)  # NumPy has no bfloat16
    return np.asarray(array)


def _display(progress: bool | Progress | None, label: str) -> AbstractContextManager[Progress | None]:
    """Return the context of the function to call with the progress."""
    return ProgressReport(label) if progress is True else nullcontext(progress or None)
