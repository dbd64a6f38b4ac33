"""Networks of the magnification paper that are available in timm.

Paper: Jeevan et al. Magnification invariant medical image analysis (arXiv 2302.11488), section 2.2, which took them
from timm and trained them from scratch on two classes. Networks: He et al. 2016 (ResNet), Howard et al. 2019
(MobileNetV3), Dosovitskiy et al. 2021 (ViT), Liu et al. 2021 (Swin), Trockman, Kolter 2022 (ConvMixer), Tolstikhin et
al. 2021 (MLP-Mixer).

The image sizes are missing from the paper's public text; 224x224 is the default, and 448x672 (as in the same authors'
code) works for all: ViT, Swin and Mixer are then built for that size.

Deviation: timm starts the last norm of each residual branch of a ResNet at 0, so that its untrained receptive field is
that of the shortcuts alone. Here it starts at 1; `zero_init_last=True` restores timm's initial value.

ViT, Swin and Mixer pass tokens between blocks. Their layers here are the maps that these tokens form, without class
token, before the last layer norm: after that norm, with its initial weights, the channels of a unit sum to 0 for any
image, so that a gradient over all channels of such a unit is only rounding noise.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn

from .layers.library import timm_model
from .registry import ModelCard, register

SIZE = (224, 224)


def build_convolutional(
    network: str, in_channels: int = 3, classes: int | None = None, tag: str = "", **options: Any
) -> nn.Module:
    """Build a convolutional timm network; (N, in_channels, H, W) -> logits (N, classes).

    Args:
        network: timm's name of the network.
        in_channels: channels of the input.
        classes: number of logits; None for two, or with a tag for those of its weights.
        tag: timm's tag of pretrained weights; empty for random weights.
        options: passed to timm.
    """
    return _create(network, in_channels, classes, tag, options)


def _create(network: str, in_channels: int, classes: int | None, tag: str, options: dict[str, Any]) -> nn.Module:
    if classes is not None or not tag:
        options["num_classes"] = 2 if classes is None else classes
    return timm_model(network, tag, in_chans=in_channels, **options)


class TokenNetwork(nn.Module):
    """A timm network whose blocks pass on tokens; (N, in_channels, H, W) -> logits (N, classes).

    Each module of `stages` passes on the map after one block (ViT, Mixer) or stage (Swin). Arguments are those of
    `build_convolutional`; `size` is the (H, W) of the input in pixels.
    """

    def __init__(
        self,
        network: str,
        in_channels: int = 3,
        classes: int | None = None,
        size: tuple[int, int] = SIZE,
        tag: str = "",
        **options: Any,
    ) -> None:
        super().__init__()
        backbone: Any = _create(network, in_channels, classes, tag, {"img_size": size} | options)
        self.backbone: Any = backbone
        self.stages = nn.ModuleList(nn.Identity() for _ in backbone.feature_info)

    def forward(self, x: Tensor) -> Tensor:
        tokens, maps = self.backbone.forward_intermediates(x, output_fmt="NCHW")
        for stage, map_ in zip(self.stages, maps, strict=True):
            stage(map_)
        return self.backbone.forward_head(tokens)

    def rename_key(self, key: str) -> str:
        """Map a key of timm to ours."""
        return key if key.startswith("backbone.") else f"backbone.{key}"


_RESNET = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")
_MOBILENET = ("conv_stem", *(f"blocks.{index}" for index in range(6)), "blocks")
_CONVMIXER = ("stem", "blocks")

_CONVOLUTIONAL: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "resnet18": ("resnet18", "ResNet-18", 11_177_538, _RESNET),
    "resnet34": ("resnet34", "ResNet-34", 21_285_698, _RESNET),
    "resnet50": ("resnet50", "ResNet-50", 23_512_130, _RESNET),
    "mobilenetv3-small-050": ("mobilenetv3_small_050", "MobileNetV3-small 0.50", 570_274, _MOBILENET),
    "mobilenetv3-small-075": ("mobilenetv3_small_075", "MobileNetV3-small 0.75", 1_018_922, _MOBILENET),
    "mobilenetv3-small-100": ("mobilenetv3_small_100", "MobileNetV3-small 1.00", 1_519_906, _MOBILENET),
    "convmixer-1536-20": ("convmixer_1536_20", "ConvMixer-1536/20", 50_092_034, _CONVMIXER),
    "convmixer-768-32": ("convmixer_768_32", "ConvMixer-768/32", 20_342_786, _CONVMIXER),
    "convmixer-1024-20": ("convmixer_1024_20_ks9_p14", "ConvMixer-1024/20", 23_360_514, _CONVMIXER),
}

_TOKENS: dict[str, tuple[str, str, int, int]] = {
    "vit-tiny": ("vit_tiny_patch16_224", "ViT-tiny, 16x16 patches", 5_524_802, 12),
    "vit-small": ("vit_small_patch16_224", "ViT-small, 16x16 patches", 21_666_434, 12),
    "vit-base": ("vit_base_patch16_224", "ViT-base, 16x16 patches", 85_800_194, 12),
    "swin-tiny": ("swin_tiny_patch4_window7_224", "Swin-tiny, 4x4 patches, window 7", 27_520_892, 4),
    "swin-base": ("swin_base_patch4_window7_224", "Swin-base, 4x4 patches, window 7", 86_745_274, 4),
    "mixer-small": ("mixer_s16_224", "MLP-Mixer-small, 16x16 patches", 18_016_290, 8),
    "mixer-base": ("mixer_b16_224", "MLP-Mixer-base, 16x16 patches", 59_113_010, 12),
}

_PAPER = "Jeevan et al. 2023 (magnification, arXiv 2302.11488)"

for _name, (_network, _words, _parameters, _layers) in _CONVOLUTIONAL.items():
    register(
        ModelCard(
            name=_name,
            summary=_words,
            paper=_PAPER,
            build=partial(build_convolutional, _network),
            parameters=_parameters,
            layers=_layers,
            in_channels=3,
            input_size=SIZE,
            default_layer=_layers[-1],
            tagged=True,
        )
    )

for _name, (_network, _words, _parameters, _stages) in _TOKENS.items():
    register(
        ModelCard(
            name=_name,
            summary=_words,
            paper=_PAPER,
            build=partial(TokenNetwork, _network),
            parameters=_parameters,
            layers=tuple(f"stages.{index}" for index in range(_stages)),
            in_channels=3,
            input_size=SIZE,
            default_layer=f"stages.{_stages - 1}",
            sized=True,
            tagged=True,
        )
    )
