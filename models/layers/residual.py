"""Pre-activation residual block, and the 22-layer network for mammograms built from it.

Paper: He, Zhang, Ren, Sun. Identity mappings in deep residual networks. ECCV 2016 (arXiv 1603.05027), in the form of
Wu et al. Deep neural networks improve radiologists' performance in breast cancer screening. IEEE TMI 2020
(arXiv 1903.08297).
"""

import re
from collections.abc import Callable, Sequence

from torch import Tensor, nn

CHANNELS = (16, 32, 64, 128, 256)

LAYERS = ("stem", *(f"stage{index + 1}" for index in range(len(CHANNELS))), "final")

Block = Callable[[int, int, int, bool], nn.Module]
"""(in_channels, out_channels, stride, project) -> block; `project` puts a 1x1 convolution on the shortcut."""


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


class ResidualBlock(nn.Module):
    """Twice norm, ReLU, 3x3 convolution; (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution and of the projection.
        project: whether a 1x1 convolution projects the shortcut.
        first: builds the first of the two convolutions from (in_channels, out_channels, stride).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        project: bool,
        first: Callable[[int, int, int], nn.Module] = conv3x3,
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = first(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut = conv1x1(in_channels, out_channels, stride) if project else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(self.relu(self.bn2(self.conv1(active)))) + shortcut


class ResNet22Features(nn.Module):
    """Stem, five stages of two blocks, final norm and ReLU; subclasses add the head.

    `features` maps (N, in_channels, H, W) to (N, 256, h, w). The first block of every stage projects its shortcut, even
    where neither stride nor width change.

    Args:
        in_channels: channels of the input.
        strides: stride of each stage.
        blocks: builder of the blocks of each stage.
    """

    conv_stages = len(CHANNELS)

    def __init__(self, in_channels: int, strides: Sequence[int], blocks: Sequence[Block]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, CHANNELS[0], 7, stride=2, padding=3, bias=False)
        self.pool = nn.MaxPool2d(3, stride=2)
        widths = (CHANNELS[0], *CHANNELS)
        for index, (block, stride) in enumerate(zip(blocks, strides, strict=True)):
            first = block(widths[index], widths[index + 1], stride, True)
            second = block(widths[index + 1], widths[index + 1], 1, False)
            self.add_module(f"stage{index + 1}", nn.Sequential(first, second))
        self.final = nn.Sequential()
        self.final.add_module("norm", nn.BatchNorm2d(CHANNELS[-1]))
        self.final.add_module("relu", nn.ReLU(inplace=True))

    def features(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        for index in range(len(CHANNELS)):
            x = self.get_submodule(f"stage{index + 1}")(x)
        return self.final(x)

    def rename_key(self, key: str) -> str | None:
        """Map a key of whiterabbit-ai/hct to ours; attention stages are numbered after the convolutional ones."""

        def stage(match: re.Match[str]) -> str:
            first = 0 if match["kind"] == "conv" else self.conv_stages
            return f"stage{first + int(match['stage']) + 1}."

        key = re.sub(r"^conv_stages\.first_conv\.", "stem.", key)
        key = re.sub(r"^(?P<kind>conv|ac)_stages\.layer_list\.(?P<stage>\d)\.", stage, key)
        key = key.replace(".performer_attention.", ".attention.").replace(".downsample.0.", ".shortcut.")
        return re.sub(r"^final_bn\.", "final.norm.", key)


class ResNet22(ResNet22Features):
    """ResNet-22 classifier with average pooling; (N, in_channels, H, W) -> logits (N, classes)."""

    def __init__(self, in_channels: int, classes: int, strides: Sequence[int], blocks: Sequence[Block]) -> None:
        super().__init__(in_channels, strides, blocks)
        self.classifier = nn.Linear(CHANNELS[-1], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def initialise(model: nn.Module) -> None:
    """Apply He initialisation (fan in) to every convolution; linear and norm layers keep PyTorch's defaults."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
