"""A network with the description of its input, and the choice of its layers and units."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from erf.building.default_layer import DefaultLayer, choose_default
from erf.building.weights import file_digest, origin_of_weights
from erf.errors import AssumptionWarning, InputError, LayerError
from erf.gradients.units import UnitChoice, resolve_units
from erf.images import PHANTOM, Framing
from erf.models import ModelCard, load_weights
from erf.models.sources import module_card
from erf.network.devices import memory_errors
from erf.network.inputs import Arguments
from erf.network.layers import Unit
from erf.results import Origin
from erf.theory.layers import MappedLayer, list_layers, match_layers
from erf.theory.tracing import Trace, trace

SMALLER = "use a smaller `size`"
"""Remedy where memory runs out."""

_MARKS = frozenset("*?[")
"""Characters of a shell-style pattern."""

Warn = Callable[[str], None]


def warn_of_assumption(words: str) -> None:
    """Issue an `AssumptionWarning`."""
    warnings.warn(words, AssumptionWarning, stacklevel=3)


@dataclass(frozen=True, repr=False)
class Network:
    """A network and the description of its input, as `build_network` makes it."""

    name: str
    model: nn.Module
    card: ModelCard
    size: tuple[int, int]
    """(height, width) of the input, in pixels."""
    channels: int
    """Channels of the image for each input."""
    arguments: Arguments = field(default_factory=Arguments)
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options that the network was built with."""
    seed: int = 0
    """Seed of untrained weights and of random numbers in the network."""
    weights: str = ""
    """Source of the weights; '' if they are drawn from the seed."""
    weights_sha256: str = ""

    @classmethod
    def of_module(cls, model: nn.Module, input_shape: Sequence[int]) -> "Network":
        """Describe a module that takes an image (C, H, W) as one argument."""
        card = module_card(model)
        channels, height, width = input_shape
        weights, digest = origin_of_weights(card.name, model, card, None)
        return cls(card.name, model, card, (height, width), channels, weights=weights, weights_sha256=digest)

    def __repr__(self) -> str:
        parameters = sum(each.numel() for each in self.model.parameters())
        options = "".join(f", {name} {value}" for name, value in self.options.items())
        shape = "x".join(map(str, self.input_shape))
        weights = self.weights or f"untrained, seed {self.seed}"
        return f"Network {self.name}{options}: input {shape}, {parameters:,} parameters, weights {weights}"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of all inputs together."""
        return (len(self.arguments.parts) * self.channels, *self.size)

    def origin(self, **facts: Any) -> Origin:
        """Return the provenance of the network; `facts` are further or other fields of `Origin`."""
        own = Origin(
            model=self.name, model_options=self.options, weights=self.weights, weights_sha256=self.weights_sha256
        )
        return replace(own, **facts)

    def framing(
        self, normalisation: str = "", fit: str = "", interpolation: str = "", *, source: str | Path = ""
    ) -> Framing:
        """Return the preprocessing of images: the network's own where nothing else is given.

        Args:
            normalisation: as for `Framing`; 'auto' for that of its configuration, which must have one.
            fit: as for `Framing`; by default `pad` for phantoms, which have the size of the input.
            interpolation: as for `Framing`.
            source: source of the images.

        Raises:
            InputError: a value is not known, or the network has no configuration.
        """
        return _framing(self, normalisation, fit, interpolation, source)

    def with_weights(self, file: str | Path) -> "Network":
        """Load other weights into the network, in place, and return their description.

        Raises:
            WeightsError: the file cannot be read or does not fit.
        """
        load_weights(self.model, file)
        return replace(self, weights=str(file), weights_sha256=file_digest(Path(file)))

    def mapped_layers(self) -> list[MappedLayer]:
        """List all layers that yield a map over the input.

        Raises:
            InsufficientMemoryError: a pass of a blank image does not fit into memory.
        """
        with memory_errors(SMALLER):
            return list_layers(self.model, self.input_shape, self.arguments)

    def default_layer(self, points: Sequence[MappedLayer] | None = None) -> DefaultLayer:
        """Choose the layer that is measured where none is named, from known layers if they are given.

        Raises:
            LayerError: the card has none, and no layer is a map of several units.
        """
        if self.card.default_layer:
            return DefaultLayer(self.card.default_layer)
        with memory_errors(SMALLER):
            return choose_default(self.model, points or self.mapped_layers(), self.input_shape, self.arguments)

    def locate(
        self,
        layer: str = "",
        unit: UnitChoice = "center",
        points: Sequence[MappedLayer] | None = None,
        warn: Warn = warn_of_assumption,
    ) -> tuple[str, Trace, Unit]:
        """Resolve the choice of one unit.

        Args:
            layer: name of the layer; '' for the default layer.
            unit: choice of the unit; if it names several, the first is taken and a warning given.
            points: known layers of the network, to avoid listing them again.
            warn: called with one line where a value is assumed.

        Returns:
            The layer's name, its trace, and the unit.

        Raises:
            LayerError: the network has no such layer or unit.
        """
        chosen = DefaultLayer(layer) if layer else self.default_layer(points)
        name = chosen.name
        if chosen.passed_over:
            warn(chosen.words)
        with memory_errors(SMALLER):
            traced = trace(self.model, [name], self.input_shape, self.arguments)[name]
        first, *others = resolve_units(unit, name, traced.feature_shape[1:], traced.field)
        if others:
            warn(f"found {len(others) + 1} units; the first is taken")
        return name, traced, first

    def layers(self, patterns: Sequence[str] = (), warn: Warn = warn_of_assumption) -> tuple[str, ...]:
        """Resolve a choice of layers.

        Args:
            patterns: names or shell-style patterns; ('all',) for all of the network's card, or all maps of several
                units; empty for the default layer.
            warn: called with one line if a default is taken that is not on the network's card.

        Returns:
            Names of layers, each once. Names without a pattern are not looked up.

        Raises:
            LayerError: no layer matches.
        """
        is_all = tuple(patterns) == ("all",)
        if is_all and self.card.layers:
            return self.card.layers
        if not patterns:
            chosen = self.default_layer()
            if not self.card.default_layer:
                warn(f"{chosen.words}; `erf.layers` lists all")
            return (chosen.name,)
        if not is_all and not any(_MARKS & set(one) for one in patterns):
            return tuple(patterns)
        return _matching(self.mapped_layers(), patterns)


def _matching(points: Sequence[MappedLayer], patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that patterns match, each once; `all` for maps of several units of the outermost modules."""
    if tuple(patterns) == ("all",):
        found = [point.name for point in points if point.suits and point.depth == 1]
    else:
        found = [name for one in patterns for name in (match_layers(points, one) if _MARKS & set(one) else [one])]
    if not found:
        raise LayerError(f"'{','.join(patterns)}' names no layer", remedy="`erf.layers` lists all")
    return tuple(dict.fromkeys(found))


def _framing(network: Network, normalisation: str, fit: str, interpolation: str, source: str | Path) -> Framing:
    own = network.card.preprocessing
    if normalisation == "auto" and not own.source:
        raise InputError(
            f"{network.name} has no configuration of its preprocessing; expected `normalisation` standardise, "
            "imagenet or another"
        )
    return Framing(
        network.size,
        network.channels,
        own.normalisation if normalisation in ("", "auto") else normalisation,
        fit or ("pad" if source == PHANTOM else own.fit),
        interpolation or own.interpolation,
    )
