"""Networks from the options of a command."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from erf.cli.console import parse_list, parse_options, parse_size, warn
from erf.cli.remedies import translate

if TYPE_CHECKING:
    from erf.building import Network


def build_network(
    name: str,
    weights: str = "",
    seed: int = 0,
    size: str = "",
    model_args: Sequence[str] | None = None,
    depth: int = 0,
    trust: bool = False,
) -> "Network":
    """Build a network from the options of a command; values that are assumed are reported by warnings.

    Args:
        name: name of the network.
        weights: weights file, `none`, `shipped`, `timm:TAG`, or '' for shipped weights if there are any.
        seed: seed of untrained weights.
        size: HEIGHTxWIDTH of the input; '' for the network's own.
        model_args: options of the network, NAME=VALUE each.
        depth: slices of a volume, for networks with 3-D convolutions.
        trust: whether an archive `file.pt2`, which is code, may be opened.

    Raises:
        ErfError: an option has a wrong form, or the network cannot be built; see `erf.build_network`.
    """
    from erf.building import build_network as build

    options = parse_options(list(model_args or []))
    return build(
        name,
        weights or None,
        seed=seed,
        size=parse_size(size) if size else None,
        model_args=options,
        depth=depth,
        trust=trust,
        warn=warn_of_assumption,
    )


def pick_layers(network: "Network", text: str) -> tuple[str, ...]:
    """Resolve names and patterns of layers, separated by commas; '' for the default layer."""
    return network.layers(parse_list(text), warn_of_assumption)


def warn_of_assumption(words: str) -> None:
    """Print a warning of the library in terms of the command line."""
    warn(translate(words))
