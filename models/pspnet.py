"""PSPNet on ResNet-101, as compared in the SRB paper.

Papers: Zhao et al. Pyramid scene parsing network. CVPR 2017 (arXiv 1612.01105); Li et al., ICME 2020, Table 1. Backbone
from timm; no available library has this head with these widths, so it is ours.

Reconstruction from the printed 68.06 M parameters: a ResNet-101 with three 3x3 convolutions as stem and no classifier,
the pyramid head with 512 channels, and an auxiliary head of 256 channels on layer3: 68,059,076. The paper says that all
its networks use ResNet-50, which gives 46.6 to 51.0 M; `depth=50` builds that.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import ModelError
from .layers.library import deep_stem_resnet
from .layers.segmenter import (
    LAYERS,
    OUTPUT_STRIDE,
    SIZE,
    Segmenter,
    conv1x1_norm_relu,
    conv3x3_norm_relu,
    upsample,
)
from .registry import ModelCard, register

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class PyramidPooling(nn.Module):
    """The map and its means over grids of 1, 2, 3 and 6 cells per side; (N, C, h, w) -> (N, 2C, h, w)."""

    def __init__(self, channels: int, grids: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.grids = grids
        self.branches = nn.ModuleList(conv1x1_norm_relu(channels, channels // len(grids)) for _ in grids)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [
            upsample(branch(functional.adaptive_avg_pool2d(x, grid)), x)
            for grid, branch in zip(self.grids, self.branches, strict=True)
        ]
        return torch.cat([x, *pooled], dim=1)


class PSPNet(Segmenter):
    """PSPNet; (N, in_channels, H, W) -> logits (N, classes, H, W), in training mode also those of the auxiliary head.

    Raises:
        ModelError: `depth` is neither 50 nor 101.
    """

    def __init__(
        self, in_channels: int = 3, classes: int = 2, depth: int = 101, output_stride: int = OUTPUT_STRIDE
    ) -> None:
        if depth not in DEPTHS:
            raise ModelError(f"pspnet: depth={depth}, expected 50 or 101")
        backbone = deep_stem_resnet(DEPTHS[depth], in_chans=in_channels, num_classes=0, output_stride=output_stride)
        pyramid = nn.Sequential(
            PyramidPooling(2048), conv3x3_norm_relu(4096, 512), nn.Dropout(0.1), nn.Conv2d(512, classes, 1)
        )
        super().__init__(backbone, pyramid)
        self.auxiliary = nn.Sequential(conv3x3_norm_relu(1024, 256), nn.Dropout(0.1), nn.Conv2d(256, classes, 1))

    def forward(self, x: Tensor) -> Any:
        if not self.training:
            return super().forward(x)
        deep, (third,) = self.backbone.forward_intermediates(x, indices=[3])
        return upsample(self.head(deep), x), upsample(self.auxiliary(third), x)


register(
    ModelCard(
        name="pspnet",
        summary="PSPNet on ResNet-101 with a deep stem",
        paper="Li et al. 2020 (SRB, doi 10.1109/ICME46284.2020.9102949)",
        build=PSPNet,
        parameters=68_059_076,
        layers=LAYERS,
        in_channels=3,
        input_size=SIZE,
        default_layer="head",
    )
)
