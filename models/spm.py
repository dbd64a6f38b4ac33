"""SPM, a simple parallel module on ResNet-50, with and without a spectral residual block.

Paper: Li et al. Spectrally-enforced global receptive field for contextual medical image segmentation and
classification. ICME 2020 (doi 10.1109/ICME46284.2020.9102949), Fig. 3 and Table 1. No code is public. Backbone from
timm.

Reconstruction: the printed 29.59 M parameters leave several readings open. This one has a ResNet-50 that keeps its
unused classifier for 1000 classes, a 1x1 and a 3x3 branch of 192 channels, and a 1x1 convolution of both to 256:
29,589,290. The printed 2.11 M parameters of the block fit only an SRB_F on all 2048 channels at 64x64, before the 3x3
convolution: 2,109,569 more.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .layers.library import timm_model
from .layers.segmenter import LAYERS, OUTPUT_STRIDE, SIZE, Segmenter, conv1x1_norm_relu, conv3x3_norm_relu
from .layers.spectral import FourierBlock
from .registry import ModelCard, register


class ParallelHead(nn.Module):
    """Head of two parallel branches, a 1x1 convolution, and `block` followed by a 3x3 convolution.

    (N, channels, h, w) -> logits (N, classes, h, w)
    """

    def __init__(self, channels: int, classes: int, block: nn.Module, branch: int = 192, inner: int = 256) -> None:
        super().__init__()
        self.narrow = conv1x1_norm_relu(channels, branch)
        self.block = block
        self.wide = conv3x3_norm_relu(channels, branch)
        self.join = conv1x1_norm_relu(2 * branch, inner)
        self.logits = nn.Conv2d(inner, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.join(torch.cat([self.narrow(x), self.wide(self.block(x))], dim=1)))


class SPM(Segmenter):
    """SPM; (N, in_channels, H, W) -> logits (N, classes, H, W).

    Args:
        in_channels: channels of the input.
        classes: channels of the output.
        spectral: whether an SRB_F precedes the 3x3 convolution.
        size: (H, W) of the input in pixels, to which the SRB_F belongs.
        options: passed to `FourierBlock`.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        spectral: bool = False,
        size: tuple[int, int] = SIZE,
        **options: Any,
    ) -> None:
        backbone = timm_model("resnet50", in_chans=in_channels, output_stride=OUTPUT_STRIDE)
        grid = (-(-size[0] // OUTPUT_STRIDE), -(-size[1] // OUTPUT_STRIDE))
        block = FourierBlock(2048, grid, **options) if spectral else nn.Identity()
        super().__init__(backbone, ParallelHead(2048, classes, block))


for _name, _words, _spectral, _parameters in (
    ("spm", "", False, 29_589_290),
    ("spm-srb-f", ", SRB_F before its 3x3 convolution", True, 31_698_859),
):
    register(
        ModelCard(
            name=_name,
            summary=f"simple parallel module on ResNet-50{_words}",
            paper="Li et al. 2020 (SRB, doi 10.1109/ICME46284.2020.9102949)",
            build=partial(SPM, spectral=_spectral),
            parameters=_parameters,
            layers=LAYERS,
            in_channels=3,
            input_size=SIZE,
            default_layer="head",
            sized=True,
        )
    )
