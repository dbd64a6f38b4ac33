"""HCT: a convolutional network for whole mammograms whose last stages attend to every position.

Paper: Taha et al. Deep is a Luxury We Don't Have. MICCAI 2022 (arXiv 2208.06066), Fig. 1, Fig. 4 and Algorithm 1.
Source of configuration: whiterabbit-ai/hct (Apache-2.0), read for facts; the code is ours.

Deviations: none known for `hct`. The paper prints 1.73 M parameters; its public code and ours have 1,737,010.
`hct-softmax` and `hct-nystrom` follow the paper's other two rows, with the corrections described in
`layers/performer.py` and `layers/nystrom.py`; the paper does not say which implementation of Nyström attention it used.
`hct-exact`, with exact softmax attention, is not in the paper: it is the control for the other three.
"""

from functools import partial

from torch import Tensor, nn

from .errors import ModelError
from .layers.attention import ExactAttention, MapAttention
from .layers.nystrom import NystromAttention
from .layers.performer import PerformerAttention, SoftmaxFeatureAttention
from .layers.residual import CHANNELS, LAYERS, ResidualBlock, ResNet22, conv1x1, conv3x3
from .registry import ModelCard, register

ATTENTIONS: dict[str, type[MapAttention]] = {
    "performer-relu": PerformerAttention,
    "performer-softmax": SoftmaxFeatureAttention,
    "nystrom": NystromAttention,
    "exact": ExactAttention,
}


class AttentionConvBlock(nn.Module):
    """Attention over all positions, then a 3x3 convolution with stride and widening (Algorithm 1 of the paper).

    (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride)
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, project: bool, attention: type[MapAttention]
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.attention = attention(in_channels)
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
    """HCT classifier; (N, in_channels, H, W) -> logits (N, classes).

    Args:
        in_channels: channels of the input.
        classes: number of logits.
        conv_stages: number of convolutional stages (2 to 4); the remaining of the five are attention-convolutional.
        attention: kind of attention, a key of `ATTENTIONS`.

    Raises:
        ModelError: `conv_stages` or `attention` is not supported.
    """

    def __init__(
        self, in_channels: int = 1, classes: int = 2, conv_stages: int = 3, attention: str = "performer-relu"
    ) -> None:
        if not 2 <= conv_stages <= 4:
            raise ModelError(f"hct: conv_stages={conv_stages}, expected 2, 3 or 4 (5 would be gmic)")
        if attention not in ATTENTIONS:
            raise ModelError(f"hct: attention '{attention}' not known, expected one of {', '.join(ATTENTIONS)}")
        attentive = partial(AttentionConvBlock, attention=ATTENTIONS[attention])
        blocks = (ResidualBlock,) * conv_stages + (attentive,) * (len(CHANNELS) - conv_stages)
        super().__init__(in_channels, classes, strides=(2, 2, 2, 2, 2), blocks=blocks)
        self.conv_stages = conv_stages


_VARIANTS = {
    "hct": ("performer-relu", "linear attention (Performer-ReLU)", 1_737_010),
    "hct-softmax": ("performer-softmax", "linear attention (Performer-softmax)", 1_737_010),
    "hct-nystrom": ("nystrom", "linear attention (Nyström)", 1_736_338),
    "hct-exact": ("exact", "exact softmax attention, the control at small sizes,", 1_737_010),
}

for _name, (_attention, _words, _parameters) in _VARIANTS.items():
    register(
        ModelCard(
            name=_name,
            summary=f"convolutional transformer, {_words} in stages 4 and 5",
            paper="Taha et al. 2022 (HCT, arXiv 2208.06066)",
            build=partial(HCT, attention=_attention),
            parameters=_parameters,
            layers=LAYERS,
        )
    )
