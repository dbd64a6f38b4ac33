"""Networks and layers from timm and torchvision, which are optional dependencies."""

from collections import OrderedDict
from typing import Any

from torch import nn

from ..errors import ModelError

EXTRA = "timm"


RESIDUAL_BRANCHES_ON: dict[str, Any] = {"zero_init_last": False}
"""Option that disables timm's default to start the last norm of residual branches at 0, which hides the branches."""


_LOADING = {"pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
"""timm options that load weights, from files that may contain code."""


def timm_model(name: str, tag: str = "", **options: Any) -> nn.Module:
    """Build a timm network, with pretrained weights if a tag is given.

    ResNets start with active residual branches, unless `zero_init_last` is given.

    Args:
        name: timm's name of the network.
        tag: timm's tag of pretrained weights, which are downloaded; empty for random weights.
        options: passed to `timm.create_model`; options that load weights are refused.

    Raises:
        ModelError: timm is missing (the message names the extra to install) or cannot build the network.
    """
    for option in _LOADING & options.keys():
        raise ModelError(f"{name} would load weights by timm's option {option}", remedy="give them as `weights`")
    if name.startswith("resnet"):
        options = RESIDUAL_BRANCHES_ON | options
    name = f"{name}.{tag}" if tag else name
    try:
        import timm
    except ImportError as error:
        raise ModelError(_missing(name, error)) from error
    try:
        return timm.create_model(name, pretrained=bool(tag), **options)
    except Exception as error:  # the types depend on the network and on the download
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"timm cannot build {name}: {reason}") from error


def deep_stem_resnet(depths: tuple[int, int, int, int], **options: Any) -> nn.Module:
    """Build a bottleneck ResNet with a stem of three 3x3 convolutions (64, 64, 128 channels) instead of one 7x7."""
    try:
        from timm.models.resnet import Bottleneck, ResNet
    except ImportError as error:
        raise ModelError(_missing("resnet", error)) from error
    block: Any = Bottleneck  # timm annotates the parameter as an instance
    return ResNet(block, depths, stem_type="deep", stem_width=64, **RESIDUAL_BRANCHES_ON, **options)


def deeplab_head(channels: int, classes: int) -> nn.Module:
    """Build torchvision's DeepLabV3 head: (N, channels, h, w) -> logits (N, classes, h, w)."""
    try:
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead
    except ImportError as error:
        raise ModelError(_missing("deeplabv3", error)) from error
    return DeepLabHead(channels, classes)


def _missing(name: str, error: ImportError) -> str:
    return f"{name} needs timm and torchvision ({error}); install them with pip install 'erf-toolkit[{EXTRA}]'"


def insert_after(parts: nn.Sequential, name: str, new_name: str, new: nn.Module) -> nn.Sequential:
    """Return a sequence of the same modules under the same names, with a new one inserted after `name`."""
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for key, child in parts.named_children():
        children[key] = child
        if key == name:
            children[new_name] = new
    return nn.Sequential(children)
