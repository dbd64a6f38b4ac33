"""Networks of MONAI, `monai:NAME`, by default of images with one channel and two classes."""

import inspect
from functools import partial
from typing import Any

from torch import nn

from .libraries import FALLBACK_SIZE, as_module, called, check_known, check_untrained, external_card, library
from .registry import ModelCard

_DEFAULTS = {
    "spatial_dims": 2,
    "in_channels": 1,
    "n_input_channels": 1,
    "out_channels": 2,
    "num_classes": 2,
    "pretrained": False,
}
"""Options of MONAI's networks, for those that take them."""

_REQUIRED = {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2)}
"""The same, for networks that have no default of their own: the U-Net of MONAI's examples."""

_FAMILIES = {"MedNeXt": "MedNeXt", "resnet": "ResNet", "SEResNe": "SENet", "SENet": "SENet"}
"""Classes to which functions pass their options on, by the beginning of the functions' names."""


def monai_card(name: str, network: str) -> ModelCard:
    """Return the card of a network of MONAI; nothing is built.

    Raises:
        ModelError: MONAI is not installed or has no such network.
    """
    nets = library("monai.networks.nets", "monai")
    check_known(network, [one for one in dir(nets) if _is_network(getattr(nets, one))], "monai")
    return external_card(name, "a network of MONAI", partial(_build, network), sized=True)


def _is_network(found: Any) -> bool:
    return inspect.isfunction(found) or (inspect.isclass(found) and issubclass(found, nn.Module))


def _build(network: str, size: tuple[int, int], **options: Any) -> nn.Module:
    nets = library("monai.networks.nets", "monai")
    name, build = f"monai:{network}", getattr(nets, network)
    check_untrained(name, {key: value or None for key, value in options.items()}, ("pretrained",))
    family = next((kind for start, kind in _FAMILIES.items() if network.startswith(start)), network)
    own, passed_on = (inspect.signature(one).parameters for one in (build, getattr(nets, family)))
    taken = {**passed_on, **own}
    defaults: dict[str, Any] = {key: value for key, value in _DEFAULTS.items() if key in taken}
    needed: dict[str, Any] = {**_REQUIRED, "img_size": size if all(size) else FALLBACK_SIZE}
    defaults |= {
        key: value for key, value in needed.items() if key in own and own[key].default is inspect.Parameter.empty
    }
    return as_module(name, called(name, build, **defaults | options))
