"""Networks that timm keeps, an optional dependency, and their parts."""

from collections import OrderedDict
from typing import Any

from torch import nn

from ..errors import ModelError

EXTRA = "timm"


RESIDUAL_BRANCHES_ON: dict[str, Any] = {"zero_init_last": False}
"""timm starts the last norm of each residual branch of a ResNet at 0, which hides all but the shortcuts."""


_LOADING = {"pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
"""Options of timm that read weights, in files that may be code."""


def timm_model(name: str, tag: str = "", **options: Any) -> nn.Module:
    """A network of timm, with the weights that it has under a tag, if any.

    ResNets start with their residual branches on, unless `zero_init_last` says otherwise. `ModelError` names the extra
    to install where timm is missing.
    """
    for option in _LOADING & options.keys():
        raise ModelError(f"{name} would load weights by timm's option {option}; expected them as --weights FILE")
    if name.startswith("resnet"):
        options = RESIDUAL_BRANCHES_ON | options
    name = f"{name}.{tag}" if tag else name
    try:
        import timm
    except ImportError as error:
        raise ModelError(_missing(name, error)) from error
    try:
        return timm.create_model(name, pretrained=bool(tag), **options)
    except Exception as error:  # which ones, depends on the network and on what it downloads
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"timm cannot build {name}: {reason}") from error


def deep_stem_resnet(depths: tuple[int, int, int, int], **options: Any) -> nn.Module:
    """A bottleneck ResNet whose 7x7 stem is three 3x3 convolutions of 64, 64 and 128 channels."""
    try:
        from timm.models.resnet import Bottleneck, ResNet
    except ImportError as error:
        raise ModelError(_missing("resnet", error)) from error
    block: Any = Bottleneck  # its annotation asks for an instance
    return ResNet(block, depths, stem_type="deep", stem_width=64, **RESIDUAL_BRANCHES_ON, **options)


def deeplab_head(channels: int, classes: int) -> nn.Module:
    """Torchvision's DeepLabV3 head: (N, channels, h, w) -> logits (N, classes, h, w)."""
    try:
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead
    except ImportError as error:
        raise ModelError(_missing("deeplabv3", error)) from error
    return DeepLabHead(channels, classes)


def _missing(name: str, error: ImportError) -> str:
    return f"{name} needs timm and torchvision ({error}); install them with pip install 'erf-toolkit[{EXTRA}]'"


def insert_after(parts: nn.Sequential, name: str, new_name: str, new: nn.Module) -> nn.Sequential:
    """The same parts under the same names, and a new one behind one of them."""
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for key, child in parts.named_children():
        children[key] = child
        if key == name:
            children[new_name] = new
    return nn.Sequential(children)
