"""HCT: a convolutional network for whole mammograms whose last stages attend to every position.

Paper: Taha et al. Deep is a Luxury We Don't Have. MICCAI 2022 (arXiv 2208.06066), Fig. 1, Fig. 4 and Algorithm 1.
Source of configuration: whiterabbit-ai/hct (Apache-2.0), read for facts; the code is ours.

Deviations: none known. The paper prints 1.73 M parameters; its public code, and this one, have 1,737,010.
"""

from torch import Tensor, nn

from .layers.performer import PerformerAttention
from .layers.residual import CHANNELS, LAYERS, ResidualBlock, ResNet22, conv1x1, conv3x3, initialise
from .registry import ModelCard, ModelError, register


class AttentionConvBlock(nn.Module):
    """Attention over all positions, then a 3x3 convolution that strides and widens (Algorithm 1 of the paper).

    (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride)
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, project: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.attention = PerformerAttention(in_channels)
        self.bn2 = nn.BatchNorm2d(in_channels)
        self.conv2 = conv3x3(in_channels, out_channels, stride)
        self.shortcut = conv1x1(in_channels, out_channels, stride) if project else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        attended = self.attention(active) + x
        return self.conv2(self.relu(self.bn2(attended))) + shortcut


class HCT(ResNet22):
    """`conv_stages` convolutional stages, the rest attention-convolutional; (N, 1, H, W) -> logits (N, classes)."""

    def __init__(self, in_channels: int = 1, classes: int = 2, conv_stages: int = 3) -> None:
        if not 2 <= conv_stages <= 4:
            raise ModelError(f"hct: conv_stages={conv_stages}, expected 2, 3 or 4 (5 would be gmic)")
        blocks = (ResidualBlock,) * conv_stages + (AttentionConvBlock,) * (len(CHANNELS) - conv_stages)
        super().__init__(in_channels, strides=(2, 2, 2, 2, 2), blocks=blocks)
        self.conv_stages = conv_stages
        self.classifier = nn.Linear(CHANNELS[-1], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


register(
    ModelCard(
        name="hct",
        summary="convolutional transformer, linear attention (Performer-ReLU) in stages 4 and 5",
        paper="Taha et al. 2022 (arXiv 2208.06066)",
        build=HCT,
        parameters=1_737_010,
        layers=LAYERS,
    )
)
