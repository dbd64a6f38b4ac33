"""Functions shared by the commands that run a network: building it, its input, and the choice of layers."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erf.cli.console import fail, parse_list, parse_options, parse_size, warn
from erf.errors import InputError, LayerError
from erf.network.inputs import Arguments

if TYPE_CHECKING:
    from torch import nn

    from erf.models import ModelCard
    from erf.network.layers import Unit
    from erf.theory.layers import TapPoint
    from erf.theory.tracing import Trace

ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A name that `erf models` lists, or timm:NAME, torchvision:NAME, smp:ARCHITECTURE:ENCODER, "
        "package.module:factory, file.py:factory, file.pt2.",
        rich_help_panel="What is measured",
    ),
]
ModelArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--model-arg",
        help="Option of the network as NAME=VALUE, such as `alpha=1`; can be given several times.",
        rich_help_panel="What is measured",
        metavar="NAME=VALUE",
    ),
]
Size = Annotated[
    str,
    typer.Option(help="Frame HEIGHTxWIDTH in pixels; default: the model's own.", rich_help_panel="What is measured"),
]
Depth = Annotated[
    int,
    typer.Option(
        min=0, help="Slices of a volume, for a network of 3-D convolutions.", rich_help_panel="What is measured"
    ),
]
LayerName = Annotated[str, typer.Option(help="Tap point; default: the network's last map of several units.")]
UnitName = Annotated[str, typer.Option(help="`center`, `y,x` in the layer's map, or `pixel:y,x`.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Open an archive `file.pt2`, which is code: it can do whatever its maker has put there.",
        rich_help_panel="What is measured",
    ),
]
_SHIPPED_WORD, _UNTRAINED_WORD = "shipped", "none"

Weights = Annotated[
    str,
    typer.Option(
        help="Weights file (safetensors or a saved state dict), `none` for an untrained network, `shipped` for those "
        "that come with the package (the default of gmic, def-gmic and hct), or `timm:TAG`, which timm downloads.",
        rich_help_panel="What is measured",
    ),
]


@dataclass(frozen=True)
class Network:
    """A network and the description of its input."""

    name: str
    model: "nn.Module"
    card: "ModelCard"
    options: Mapping[str, Any]
    weights_sha256: str
    size: tuple[int, int]
    channels: int
    """Channels of the image for each input."""
    arguments: Arguments
    weights: str = ""
    """Source of the weights; '' if they are drawn from the seed."""

    @staticmethod
    def digest(weights: Path) -> str:
        """Return the SHA-256 of a weights file."""
        return _digest(weights)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of all inputs together."""
        return (len(self.arguments.parts) * self.channels, *self.size)

    def tap_points(self) -> "list[TapPoint]":
        """List all layers that yield a feature map."""
        from erf.network.devices import memory_errors
        from erf.theory.layers import list_layers

        with memory_errors("use a smaller --size"):
            return list_layers(self.model, self.input_shape, self.arguments)

    def tap(self, layer: str, unit: str, points: "Sequence[TapPoint] | None" = None) -> "tuple[str, Trace, Unit]":
        """Resolve the texts of one layer and one unit.

        Args:
            layer: name of the layer; '' for the default layer.
            unit: text of the unit; if it names several, the first is used and a warning printed.
            points: known layers of the network, to avoid listing them again.

        Returns:
            The layer's name, its trace, and the unit.
        """
        from erf.gradients.units import resolve_units
        from erf.network.devices import memory_errors
        from erf.theory.layers import default_layer
        from erf.theory.tracing import trace

        name = layer or self.card.default_layer or default_layer(points or self.tap_points())
        with memory_errors("use a smaller --size"):
            traced = trace(self.model, [name], self.input_shape, self.arguments)[name]
        first, *others = resolve_units(unit, name, traced.feature_shape[1:], traced.field)
        if others:
            warn(f"{len(others) + 1} units; the first is looked at")
        return name, traced, first

    def layers(self, text: str) -> tuple[str, ...]:
        """Resolve a text to layers.

        Args:
            text: names or shell-style patterns, separated by commas; `all`; or '' for the network's default layer. A
                default that is not on the network's card is reported by a warning.

        Raises:
            LayerError: no layer matches.
        """
        from erf.theory.layers import default_layer, match_layers

        card = self.card
        if text == "all" and card.layers:
            return card.layers
        if not text and card.default_layer:
            return (card.default_layer,)
        named = parse_list(text)
        if named and text != "all" and not any(mark in text for mark in "*?["):
            return named
        points = self.tap_points()
        if not text:
            layer = default_layer(points)
            warn(f"layer '{layer}' is taken, the last map of several units; `erf layers -m {self.name}` lists all")
            return (layer,)
        if text == "all":
            found = [point.name for point in points if point.suits and point.depth == 1]
        else:
            found = [name for one in named for name in (match_layers(points, one) if set(one) & set("*?[") else [one])]
        if not found:
            raise LayerError(f"--layer '{text}' names no layer; `erf layers -m {self.name}` lists all")
        return tuple(dict.fromkeys(found))


def build_network(
    name: str,
    weights: str = "",
    seed: int = 0,
    size: str = "",
    model_args: Sequence[str] | None = None,
    depth: int = 0,
    trust: bool = False,
) -> Network:
    """Build a network from the options of a command, and determine the shape of its input.

    Args:
        name: name of the network, as for `create_model`.
        weights: weights file, `none`, `shipped`, `timm:TAG`, or '' for shipped weights if there are any.
        seed: seed of untrained weights.
        size: HEIGHTxWIDTH of the input; '' for the network's own.
        model_args: options of the network, NAME=VALUE each.
        depth: slices of a volume, for networks with 3-D convolutions.
        trust: whether an archive `file.pt2`, which is code, may be opened.

    Raises:
        InputError: an option has a wrong form, or `depth` is missing.
        ModelError: the network cannot be built.
        WeightsError: the weights cannot be read or do not fit.
        typer.Exit: the weights file was changed while it was read.
    """
    from erf.models import create_model, model_card

    options = parse_options(list(model_args or []))
    if taken := sorted({"weights", "trust"} & options.keys()):
        raise InputError(f"--model-arg '{taken[0]}=…' is no option of a network; expected --{taken[0]}")
    frame = parse_size(size) if size else None
    card = model_card(name)
    file = _weights_file(name, weights, bool(options))
    before = _stamp(file)
    model = create_model(name, file, **{"seed": seed, "size": frame} | options | {"trust": trust})
    if not card.in_channels:
        arguments, channels = _arguments(name, model, depth)
    else:
        arguments, channels = Arguments(), options.get("in_channels", card.in_channels)
    if file is None and not card.brings_weights:
        _warn_of_hidden_branches(name, model)
    frame = frame or _own_size(name, model, card)
    source, digest = _origin_of_weights(name, model, card, file)
    if _stamp(file) != before:
        fail(f"weights {file} were changed while they were read; try again")
    return Network(name, model, card, options, digest, frame, channels, arguments, source)


def _weights_file(name: str, weights: str, has_options: bool) -> Path | None:
    """Return the weights file named by a text, None for an untrained network.

    Shipped weights fit only a network without options.
    """
    from erf.models import ModelError, shipped_weights

    if weights == _UNTRAINED_WORD:
        return None
    if weights in ("", _SHIPPED_WORD):
        found = None if has_options else shipped_weights(name)
        if weights and found is None:
            why = "with options" if has_options else "for it"
            raise ModelError(f"model '{name}': no weights are shipped {why}; expected a weights file, or `none`")
        return found
    return Path(weights)


def _arguments(name: str, model: "nn.Module", depth: int) -> tuple[Arguments, int]:
    """Infer how an external network takes its input, from its first convolution and the signature of `forward`."""
    from erf.models.sources import input_axes, input_channels, input_names

    axes, channels = input_axes(model), input_channels(model)
    if axes == 3 and not depth:
        raise InputError(f"{name} takes volumes (its first convolution is 3-D); give their slices with --depth")
    arguments = Arguments(input_names(model), depth if axes == 3 else 0, axes == 1)
    return arguments, channels * max(arguments.depth, 1)


def _own_size(name: str, model: "nn.Module", card: "ModelCard") -> tuple[int, int]:
    """Return the input size from the card or the network, or a fallback, which is reported by a warning."""
    from erf.models.sources import FALLBACK_SIZE

    if all(card.input_size):
        return card.input_size
    for attribute in ("img_size", "image_size", "input_size"):
        found = getattr(model, attribute, None)
        found = (found, found) if isinstance(found, int) else found
        if isinstance(found, tuple | list) and len(found) >= 2 and all(isinstance(one, int) for one in found):
            return (found[-2], found[-1])
    warn(f"{name} does not say its input's size; {FALLBACK_SIZE[0]}x{FALLBACK_SIZE[1]} is taken, --size sets another")
    return FALLBACK_SIZE


def _warn_of_hidden_branches(name: str, model: "nn.Module") -> None:
    """Warn if residual branches start at 0: the untrained network then has the receptive field of its shortcuts."""
    norms = [
        path
        for path, module in model.named_modules()
        if "Norm" in type(module).__name__ and (weight := getattr(module, "weight", None)) is not None
        if weight.numel() and not weight.any()
    ]
    scales = [
        path
        for path, parameter in model.named_parameters()
        if path.rsplit(".", 1)[-1] in ("gamma", "gamma_1", "gamma_2", "layer_scale", "ls1", "scale")
        if parameter.numel() and float(parameter.detach().abs().max()) < 1e-2
    ]
    if norms or scales:
        found = f"{len(norms)} norms" if norms else f"{len(scales)} layer scales"
        first = (norms or scales)[0]
        warn(
            f"{name} is untrained and {found} (the first: {first}) begin at 0 or nearly: its residual branches are "
            "hidden, and the field shown is that of its shortcuts"
        )


def _origin_of_weights(name: str, model: "nn.Module", card: "ModelCard", weights: Path | None) -> tuple[str, str]:
    """Return the source of the weights and their SHA-256, of the file or of the state that a factory returned."""
    from erf.models import shipped_weights
    from erf.results import SHIPPED

    if weights is not None and weights == shipped_weights(name):
        return f"{SHIPPED}{weights.name}", _digest(weights)
    if weights is not None:
        return str(weights), _digest(weights) if weights.is_file() else ""
    if not card.brings_weights:
        return "", ""
    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        digest.update(key.encode())
        if hasattr(tensor, "numpy"):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return f"of {file_name(name)}", digest.hexdigest()


def _stamp(weights: Path | None) -> tuple[int, int]:
    """Return (size in bytes, modification time in ns), to detect that the file was written to."""
    if weights is None or not weights.is_file():
        return 0, 0
    found = weights.stat()
    return found.st_size, found.st_mtime_ns


def _digest(weights: Path) -> str:
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name(model: str) -> str:
    """Convert a model's name to a file name without extension."""
    base = model.replace("\\", "/").split("/")[-1]
    return base.replace(".py:", ":").removesuffix(".pt2").replace(":", "-")
