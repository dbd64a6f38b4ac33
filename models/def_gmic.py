"""Def-GMIC: GMIC with deformable convolutions in its last two stages.

Paper: Taha et al. Deep is a Luxury We Don't Have. MICCAI 2022 (arXiv 2208.06066), a baseline of section 3.
No code is public. Reconstruction from the printed 2.89 M parameters: "deformable convolutions instead of the attention
layer, at the last two layers" can be read in several ways, and only this one fits: in all four blocks of stages 4 and 5
the first of the two convolutions is deformable (version 1, one group of offsets, predicted by a 3x3 convolution with
bias): 2,893,434.

Choice: offsets start at 0, as in the paper on deformable convolutions, so the untrained network has GMIC's receptive
field. With `offset_scale` the weights that predict the offsets are drawn from a normal distribution instead, to show
the effect of shifted sampling points.
"""

from functools import partial

from .layers.deformable import DeformableConv2d
from .layers.residual import LAYERS, ResidualBlock, ResNet22
from .registry import ModelCard, register


class DefGMIC(ResNet22):
    """Def-GMIC: three residual and two deformable stages; (N, in_channels, H, W) -> logits (N, classes)."""

    def __init__(self, in_channels: int = 1, classes: int = 2, offset_scale: float = 0.0) -> None:
        deformable = partial(ResidualBlock, first=DeformableConv2d)
        blocks = (ResidualBlock,) * 3 + (deformable,) * 2
        super().__init__(in_channels, classes, strides=(2, 2, 2, 2, 2), blocks=blocks)
        for module in self.modules():
            if isinstance(module, DeformableConv2d):
                module.reset_parameters(offset_scale)


register(
    ModelCard(
        name="def-gmic",
        summary="GMIC with deformable convolutions in stages 4 and 5",
        paper="Taha et al. 2022 (HCT, arXiv 2208.06066)",
        build=DefGMIC,
        parameters=2_893_434,
        layers=LAYERS,
    )
)
