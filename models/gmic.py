"""GMIC's global network: a 22-layer convolutional network for whole mammograms.

Papers: Shen et al. An interpretable classifier for high-resolution breast cancer screening images utilizing weakly
supervised localization. Medical Image Analysis 2021 (arXiv 2002.07613); and, for `gmic`, the variant that is the
baseline of Taha et al. Deep is a Luxury We Don't Have. MICCAI 2022 (arXiv 2208.06066).
Sources of configuration: nyukat/GMIC (AGPL-3.0) and whiterabbit-ai/hct (Apache-2.0), read for facts; the code is ours.

Deviations: `gmic-nyu` is the global network with its saliency head only; patch retrieval, local network and fusion of
the full GMIC are left out, and their keys in a checkpoint are ignored.
"""

import re

from torch import Tensor

from .layers.residual import CHANNELS, LAYERS, ResidualBlock, ResNet22, ResNet22Features, conv1x1, initialise
from .registry import ModelCard, register

_OTHER_NETWORKS = ("dn_resnet.", "mil_attn_", "classifier_linear.", "fusion_dnn.")


class GMIC(ResNet22):
    """GMIC baseline of the HCT paper, stride 2 in every stage; (N, in_channels, H, W) -> logits (N, classes)."""

    def __init__(self, in_channels: int = 1, classes: int = 2) -> None:
        super().__init__(in_channels, classes, strides=(2, 2, 2, 2, 2), blocks=(ResidualBlock,) * 5)


class GMICNYU(ResNet22Features):
    """GMIC's global network as published; (N, in_channels, H, W) -> saliency maps (N, classes, h, w) in 0 to 1.

    Stride 1 in the first stage, and a 1x1 convolution as head.
    """

    def __init__(self, in_channels: int = 1, classes: int = 2) -> None:
        super().__init__(in_channels, strides=(1, 2, 2, 2, 2), blocks=(ResidualBlock,) * 5)
        self.saliency = conv1x1(CHANNELS[-1], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.saliency(self.features(x)).sigmoid()

    def rename_key(self, key: str) -> str | None:
        """Map a key of nyukat/GMIC to ours; None for keys of the networks that are left out."""
        if key.startswith(_OTHER_NETWORKS):
            return None
        key = key.replace("left_postprocess_net.gn_conv_last.", "saliency.")
        return super().rename_key(re.sub(r"^ds_net\.(?!final_bn)", "conv_stages.", key).removeprefix("ds_net."))


register(
    ModelCard(
        name="gmic",
        summary="convolutional baseline of the HCT paper, stage strides 2-2-2-2-2",
        paper="Taha et al. 2022 (HCT, arXiv 2208.06066)",
        build=GMIC,
        parameters=2_800_050,
        layers=LAYERS,
    )
)
register(
    ModelCard(
        name="gmic-nyu",
        summary="global network of GMIC as published, stage strides 1-2-2-2-2, saliency head",
        paper="Shen et al. 2021 (GMIC, arXiv 2002.07613)",
        build=GMICNYU,
        parameters=2_800_048,
        layers=LAYERS,
    )
)
