"""DeepLabV3 on ResNet-50, as compared in the SRB paper.

Papers: Chen, Papandreou, Schroff, Adam. Rethinking atrous convolution for semantic image segmentation (arXiv
1706.05587); Li et al., ICME 2020, Table 1. Backbone from timm, head from torchvision.

Reconstruction from the printed 39.76 M parameters: a ResNet-50 with three 3x3 convolutions as stem and no classifier,
and the head with five branches of 256 channels: 39,757,762. (torchvision's own network has the 7x7 stem.)
"""

from torch import nn

from .layers.library import deep_stem_resnet, deeplab_head
from .layers.segmenter import LAYERS, OUTPUT_STRIDE, SIZE, Segmenter
from .registry import ModelCard, register


def build(in_channels: int = 3, classes: int = 2, output_stride: int = OUTPUT_STRIDE) -> nn.Module:
    """Build the network; (N, in_channels, H, W) -> logits (N, classes, H, W)."""
    backbone = deep_stem_resnet((3, 4, 6, 3), in_chans=in_channels, num_classes=0, output_stride=output_stride)
    return Segmenter(backbone, deeplab_head(2048, classes))


register(
    ModelCard(
        name="deeplabv3",
        summary="DeepLabV3 on ResNet-50 with a deep stem",
        paper="Li et al. 2020 (SRB, doi 10.1109/ICME46284.2020.9102949)",
        build=build,
        parameters=39_757_762,
        layers=LAYERS,
        in_channels=3,
        input_size=SIZE,
        default_layer="head",
    )
)
